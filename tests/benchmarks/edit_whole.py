#!/usr/bin/env python3
"""Edits a checkpoint of the full layout of Llama 3 70B (141 GB) on a disk that has room for neither it nor the result.

    edit_whole.py --folder /path/on/the/disk [--bytes 141GB] [--ranks 1] [--room 20GB] [--bearing build/bin/bearing]

The source is real: bfloat16 values in files of the real sizes, whose blocks are clones of the same 64 MB (a btrfs in a file). The
result is written whole as well, to an ext4 in a sparse file of 1.2 times its size; what is written gives its blocks back while the
edit goes on, after one edited tensor of each of the first files was compared with the closed form. So nothing is read back
(--no-verify). Needs root and btrfs-progs. Prints one line of JSON: seconds, GB/s, peak memory of the process; the folder is removed
again.
"""

import argparse
import concurrent.futures
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

import edit_speed

FICLONERANGE = 0x4020940D
PUNCH_HOLE_KEEP_SIZE = 3
BLOCK = 4096
HEADER = 1 << 20
QUIET_SECONDS = 5
libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def mounted(folder, size, make):
    """A file system of so many bytes, in a sparse file beside its folder. Past the page cache, as on the disk itself."""
    image = folder.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(size)
    folder.mkdir()
    subprocess.run([*make, image], check=True, stdout=subprocess.DEVNULL)
    loop = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", "-o", "discard", loop, folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


class CloneWriter:
    """write_shard of edit_speed.py with blocks of one file."""

    def __init__(self, noise_file):
        self.noise_file = noise_file

    def __call__(self, path, tensors, noise):
        if not self.noise_file.exists():
            self.noise_file.write_bytes(noise)
        begin, size = edit_speed.shard_begin(tensors, align=BLOCK)
        with open(path, "wb") as file, open(self.noise_file, "rb") as source:
            file.write(begin)
            file.flush()
            for at in range(0, size, len(noise)):
                blocks = min(len(noise), -(-(size - at) // BLOCK) * BLOCK)
                fcntl.ioctl(file, FICLONERANGE, struct.pack("qQQQ", source.fileno(), 0, blocks, len(begin) + at))
            file.truncate(len(begin) + size)


def tensor_at(path, name):
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + size + begin)
        raw = np.frombuffer(file.read(end - begin), dtype=np.uint16)
    return (raw.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def check(source, written, unit):
    """An o_proj of the file: W - r (r.W), rounded to bfloat16."""
    with open(written, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    name = next((n for n in header if n.endswith("self_attn.o_proj.weight")), None)
    if name is None:
        return
    weight = tensor_at(source, name)
    want = weight - np.outer(unit, unit @ weight)
    error = np.abs(tensor_at(written, name) - want)
    assert (error <= np.abs(want) * 2.0**-8 + 1e-7).all(), f"{name}: {error.max()}"
    print(f"checked {name}", flush=True)


def is_written(path):
    """Its first and its last values are there, and nothing was written for a while: files get their size before their bytes."""
    found = path.stat()
    if time.time() - found.st_mtime < QUIET_SECONDS or found.st_blocks * 512 < found.st_size:
        return False
    with open(path, "rb") as file:
        head = file.read(BLOCK)
        file.seek(-BLOCK, os.SEEK_END)
        return any(head) and any(file.read())


def punch(path):
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size - HEADER  # Headers are looked at in the end.
        if libc.fallocate(file.fileno(), PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(HEADER), ctypes.c_int64(size)) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")


def give_back(out, source, unit, room, checks, done):
    """Gives back the blocks of files that have been quiet for a while, once more than `room` bytes are written."""
    seen = set()
    while not done.wait(1):
        files = sorted(p for p in out.parent.glob("**/*.safetensors"))
        try:
            if sum(f.stat().st_blocks * 512 for f in files) < room:
                continue
            for file in files:
                if file in seen or not is_written(file):
                    continue
                if len(seen) < checks:
                    check(source / "model" / file.name, file, unit)
                seen.add(file)
                punch(file)
        except FileNotFoundError:
            pass  # The edit has finished meanwhile, and its folder has another name.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bytes", type=edit_speed.size, default=edit_speed.size("141GB"), help="less: fewer layers")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--room", type=edit_speed.size, default=edit_speed.size("20GB"))
    parser.add_argument("--checks", type=int, default=3)
    parser.add_argument("--bearing", type=Path, default=Path(__file__).resolve().parents[2] / "build/bin/bearing")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    try:
        with mounted(arguments.folder / "source", 4 << 30, ["mkfs.btrfs", "-q"]) as source, \
                mounted(arguments.folder / "target", int(1.2 * arguments.bytes), ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"]) as target:
            measure(arguments, source, target / "out")
    finally:
        shutil.rmtree(arguments.folder, ignore_errors=True)


def measure(arguments, source, out):
    edit_speed.write_shard = CloneWriter(source / "noise")
    total = edit_speed.make_model(source / "model", "70b", arguments.bytes)
    d = edit_speed.SHAPES["70b"][0]
    direction = np.frombuffer((source / "direction.safetensors").read_bytes()[-4 * d:], dtype=np.float32)
    unit = direction / np.linalg.norm(direction)
    done = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        watch = pool.submit(give_back, out, source, unit, arguments.room, arguments.checks, done)
        try:
            seconds, detail = edit_speed.run([arguments.bearing, "edit", "--model", source / "model", "--direction",
                                              source / "direction.safetensors", "--out", out, "--ranks", arguments.ranks,
                                              "--no-verify", "--no-progress", "-o", "json"])
        finally:
            done.set()
        watch.result()
    files = {f["name"]: f for f in json.loads((out / "manifest.json").read_text())["files"]}
    assert all((out / p.name).stat().st_size == p.stat().st_size and p.name in files for p in (source / "model").glob("*.safetensors"))
    print(json.dumps({"GB": round(total / 1e9, 2), "ranks": arguments.ranks, "seconds": round(seconds, 1),
                      "GB/s": round(total / 1e9 / seconds, 3), "peak_MiB": detail["peak_memory_bytes"] >> 20}), flush=True)


if __name__ == "__main__":
    main()
