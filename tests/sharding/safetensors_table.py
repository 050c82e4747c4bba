"""Files at the edges of the safetensors format, and who accepts them: the reference implementation (wheel 0.8.0) and ours.

Ours accepts no file that the reference refuses. Run with a folder, it writes the files there as seeds of the fuzzer.
"""

import json
import pathlib
import struct
import sys

BOTH, REFERENCE, NEITHER = "both", "reference alone", "neither"


def framed(header, data_bytes=0, length=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(data_bytes)


def entry(dtype="U8", shape=(1,), begin=0, end=1, more=""):
    return f'{{"dtype":"{dtype}","shape":{json.dumps(list(shape))},"data_offsets":[{begin},{end}]{more}}}'


def tensors(**entries):
    return "{" + ",".join(f'"{name}":{text}' for name, text in entries.items()) + "}"


ONE = tensors(a=entry())
TABLE = [
    # name, file, who accepts it
    ("one tensor", framed(ONE, 1), BOTH),
    ("header length not a multiple of 8", framed(ONE + " ", 1), BOTH),
    ("padded with newlines", framed(ONE + "\n\n", 1), BOTH),
    ("empty object", framed("{}"), BOTH),
    ("metadata alone", framed('{"__metadata__":{"format":"pt"}}'), BOTH),
    ("scalar", framed(tensors(a=entry("F64", (), 0, 8)), 8), BOTH),
    ("no elements, offsets shared", framed(tensors(a=entry("F32", (0,), 0, 0), b=entry("F32", (4, 0), 0, 0), c=entry("F32", (1,), 0, 4)), 4), BOTH),
    ("empty name", framed('{"":' + entry() + "}", 1), BOTH),
    ("name like a path", framed('{"../../etc/passwd":' + entry() + "}", 1), BOTH),
    ("escaped name", framed('{"\\u0061\\n":' + entry() + "}", 1), BOTH),
    ("data order is not header order", framed(tensors(b=entry(begin=1, end=2), a=entry()), 2), BOTH),
    ("space before the brace", framed(" " + ONE, 1), REFERENCE),
    ("same key twice, same range", framed("{" + f'"a":{entry()},"a":{entry()}' + "}", 1), REFERENCE),
    ("same metadata key twice", framed('{"__metadata__":{"k":"1","k":"2"}}'), REFERENCE),
    ("unknown field of a tensor", framed(tensors(a=entry(more=',"x":1')), 1), REFERENCE),
    ("metadata is null", framed('{"__metadata__":null}'), REFERENCE),
    ("same key twice, other range", framed("{" + f'"a":{entry()},"a":{entry(begin=1, end=2)}' + "}", 2), NEITHER),
    ("metadata twice", framed('{"__metadata__":{},"__metadata__":{}}'), NEITHER),
    ("metadata with a number", framed('{"__metadata__":{"k":1}}'), NEITHER),
    ("trailing bytes", framed(ONE, 2), NEITHER),
    ("short body", framed(ONE, 0), NEITHER),
    ("hole", framed(tensors(a=entry(), b=entry(begin=2, end=3)), 3), NEITHER),
    ("hole at the start", framed(tensors(a=entry(begin=1, end=2)), 2), NEITHER),
    ("overlap", framed(tensors(a=entry("U8", (2,), 0, 2), b=entry("U8", (2,), 1, 3)), 3), NEITHER),
    ("size is not that of the shape", framed(tensors(a=entry("F32", (1,), 0, 1)), 1), NEITHER),
    ("end before begin", framed(tensors(a=entry(begin=1, end=0)), 1), NEITHER),
    ("shape overflows", framed(tensors(a=entry("U8", (2**32, 2**32), 0, 0))), NEITHER),
    ("size overflows", framed(tensors(a=entry("F64", (2**62,), 0, 0))), NEITHER),
    ("offsets overflow", framed('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551617]}}', 1), NEITHER),
    ("negative shape", framed(tensors(a=entry("U8", (-1, -1), 0, 1)), 1), NEITHER),
    ("shape with a fraction", framed('{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', 1), NEITHER),
    ("unknown type", framed(tensors(a=entry("U9")), 1), NEITHER),
    ("field missing", framed('{"a":{"dtype":"U8","shape":[1]}}', 1), NEITHER),
    ("three offsets", framed('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}', 1), NEITHER),
    ("lone surrogate", framed('{"\\ud800":' + entry() + "}", 1), NEITHER),
    ("invalid UTF-8", framed(b'{"\xff":' + entry().encode() + b"}", 1), NEITHER),
    ("nested too deep", framed('{"a":' + "[" * 2000 + "]" * 2000 + "}", 0), NEITHER),
    ("not an object", framed("[]"), NEITHER),
    ("something behind the object", framed(ONE + "x", 1), NEITHER),
    ("header length of nothing", framed("", 0), NEITHER),
    ("header longer than the file", framed(ONE, 1, length=len(ONE) + 2), NEITHER),
    ("header bomb, 100 MB and one", framed(ONE, 1, length=100_000_001), NEITHER),
    ("header bomb, 2^63", framed(ONE, 1, length=1 << 63), NEITHER),
    ("header bomb, 2^64 - 1", framed(ONE, 1, length=(1 << 64) - 1), NEITHER),
    ("shorter than its length field", b"\x02\x00\x00", NEITHER),
    ("nothing", b"", NEITHER),
]


def write_seeds(folder):
    """The two forms of safetensors_fuzzer.cc: a whole file, and the header with the size of its data."""
    for index, (_, data, _) in enumerate(TABLE):
        (folder / f"{index:02}-file").write_bytes(b"\x00" + data)
        if len(data) >= 8 and (length := struct.unpack("<Q", data[:8])[0]) <= len(data) - 8:
            header = data[8:8 + length]
            (folder / f"{index:02}-header").write_bytes(b"\x01" + struct.pack("<H", len(data) - 8 - length) + header)


if __name__ == "__main__":
    write_seeds(pathlib.Path(sys.argv[1]))
