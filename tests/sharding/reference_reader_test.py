"""Whatever our safetensors reader accepts, the reference implementation accepts too and reads the same.

BEARING_SAFETENSORS_CHECK names the program safetensors_check.
"""

import json
import os
import random
import struct
import subprocess

import pytest

safetensors = pytest.importorskip("safetensors")

from safetensors_table import BOTH, NEITHER, REFERENCE, TABLE  # noqa: E402

MUTATIONS = 4000
TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"0", b"1", b"-1", b"1.0", b"1e2", b"-0", b"null", b"true", b" ", b"\n",
          b"\t", b"\\u0061", b"\\ud800", b"\xff", b"\x00", b"\xef\xbb\xbf", b'"a":', b'"shape":[1],', b'"dtype":"F32",',
          b'"data_offsets":[0,4],', b'"__metadata__":{"k":"v"},', b"9223372036854775808", b"18446744073709551616", b"//", b"[[[["]
DTYPES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4,
          "F32": 4, "I64": 8, "U64": 8, "F64": 8}


def sound_file(rng):
    """A header that is right, and the number of bytes that follow it."""
    tensors, offset = [], 0
    for index in range(rng.randrange(4)):
        dtype = rng.choice(list(DTYPES))
        shape = [rng.randrange(4) for _ in range(rng.randrange(3))]
        size = DTYPES[dtype]
        for axis in shape:
            size *= axis
        name = rng.choice(["a", "b.weight", "", "é", "../x"]) + str(index)
        tensors.append((name, {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}))
        offset += size
    if rng.random() < 0.4:
        tensors.append(("__metadata__", {"format": "pt"}))
    rng.shuffle(tensors)
    separators = rng.choice([(",", ":"), (", ", ": ")])
    text = json.dumps(dict(tensors), separators=separators, ensure_ascii=rng.random() < 0.5).encode()
    return text + b" " * rng.randrange(9), offset


def mutate(rng, header):
    """One small change of the header's bytes."""
    at = rng.randrange(len(header) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return header[:at] + rng.choice(TOKENS) + header[at:]
    if kind == 1:
        return header[:at] + header[at + rng.randrange(1, 12):]
    if kind == 2:
        end = at + rng.randrange(1, 60)
        return header[:end] + header[at:end] + header[end:]
    if kind == 3 and header:
        at = min(at, len(header) - 1)
        return header[:at] + bytes([rng.randrange(256)]) + header[at + 1:]
    if kind == 4:
        digits = [i for i, byte in enumerate(header) if 48 <= byte <= 57]
        if digits:
            at = rng.choice(digits)
            return header[:at] + str(rng.randrange(10)).encode() + header[at + 1:]
    letters = [i for i, byte in enumerate(header) if 97 <= byte <= 122]
    if letters:
        at = rng.choice(letters)
        return header[:at] + bytes([rng.randrange(97, 123)]) + header[at + 1:]
    return header


def make_file(rng):
    header, data_bytes = sound_file(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        header = mutate(rng, header)
    length = len(header)
    if rng.random() < 0.05:
        length = rng.choice([0, length + 1, max(length - 1, 0), 100_000_001, 1 << 62, (1 << 64) - 1])
    if rng.random() < 0.05:
        data_bytes = max(0, data_bytes + rng.choice([-1, 1, 8]))
    return struct.pack("<Q", length) + header + bytes(data_bytes)


def reference(data):
    """[name, dtype, shape, bytes] of each tensor, sorted, or None when the reference implementation refuses the file."""
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return None
    return sorted([name, tensor["dtype"], list(tensor["shape"]), len(tensor["data"])] for name, tensor in tensors)


def ours(paths):
    output = subprocess.run([os.environ["BEARING_SAFETENSORS_CHECK"], *paths], check=True, capture_output=True).stdout
    lines = output.decode().splitlines()
    assert len(lines) == len(paths)
    return [None if line == "reject" else json.loads(line) for line in lines]


def compare(tmp_path, files):
    """Number of files that both, one or none accept; fails on the first that only ours accepts or that differs."""
    paths = []
    for index, data in enumerate(files):
        path = tmp_path / f"{index}.safetensors"
        path.write_bytes(data)
        paths.append(str(path))
    both = neither = stricter = 0
    for data, got in zip(files, ours(paths)):
        want = reference(data)
        if got is None:
            neither += want is None
            stricter += want is not None
            continue
        assert want is not None, f"accepted by us alone: {data!r}"
        assert sorted(got) == want, f"read otherwise: {data!r}"
        both += 1
    return both, neither, stricter


def test_mutated_files(tmp_path):
    rng = random.Random(20240611)
    both, neither, stricter = compare(tmp_path, [make_file(rng) for _ in range(MUTATIONS)])
    print(f"accepted by both {both}, by neither {neither}, by the reference alone {stricter}")
    # Otherwise the mutations would test nothing.
    assert both > MUTATIONS // 10
    assert neither > MUTATIONS // 10


def test_sound_files_are_accepted_by_both(tmp_path):
    rng = random.Random(7)
    files = []
    for _ in range(500):
        header, data_bytes = sound_file(rng)
        files.append(struct.pack("<Q", len(header)) + header + bytes(data_bytes))
    assert compare(tmp_path, files) == (500, 0, 0)


@pytest.mark.parametrize("name, data, accepted_by", TABLE, ids=[row[0] for row in TABLE])
def test_table(tmp_path, name, data, accepted_by):
    want = {BOTH: (1, 0, 0), REFERENCE: (0, 0, 1), NEITHER: (0, 1, 0)}[accepted_by]
    assert compare(tmp_path, [data]) == want
