#!/usr/bin/env python3
"""Times `bearing edit` against `cp` of the same files on the same disk, with peak memory.

    edit_speed.py --bytes 4GB --folder /path/on/the/disk [--shape 8b] [--ranks 1 2] [--repeat 3] [--cold]

Makes a synthetic bfloat16 checkpoint with the matrices of a Llama model (random values; as many layers as the size asks for),
then alternates `cp`, `cp` with a sync behind it, what the disk does past the page cache (direct writes of as many bytes, with --cold
together with reads of the source), and the edit with and without reading back. With --cold the source leaves the page cache before every run. With --copy-once `cp` runs in the first round
only. Prints one line of JSON a run and a table; the folder is removed again.
"""

import argparse
import concurrent.futures
import json
import mmap
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

SHAPES = {  # d_model, ffn, query rows, key rows, vocabulary
    "8b": (4096, 14336, 4096, 1024, 128256),
    "70b": (8192, 28672, 8192, 1024, 128256),
}
SHARD_BYTES = 5_000_000_000
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def size(text):
    return int(float(text[:-2]) * UNITS[text[-2:].upper()])


def tensors_of(shape, budget):
    """(name, shape) in the order of the files, for a model of about `budget` bytes."""
    d, ffn, heads, kv, vocab = SHAPES[shape]
    layer = [("input_layernorm.weight", (d,)), ("mlp.down_proj.weight", (d, ffn)), ("mlp.gate_proj.weight", (ffn, d)),
             ("mlp.up_proj.weight", (ffn, d)), ("post_attention_layernorm.weight", (d,)), ("self_attn.k_proj.weight", (kv, d)),
             ("self_attn.o_proj.weight", (d, heads)), ("self_attn.q_proj.weight", (heads, d)), ("self_attn.v_proj.weight", (kv, d))]
    layer_bytes = sum(2 * int(np.prod(s)) for _, s in layer)
    layers = max(1, round((budget - 4 * vocab * d) / layer_bytes))
    names = [("model.embed_tokens.weight", (vocab, d))]
    names += [(f"model.layers.{i}.{n}", s) for i in range(layers) for n, s in layer]
    return names + [("model.norm.weight", (d,)), ("lm_head.weight", (vocab, d))], layers


def shard_begin(tensors, align=8):
    """What a file begins with, up to its data, and the bytes of its data."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % align)
    return len(text).to_bytes(8, "little") + text, offset


def write_shard(path, tensors, noise):
    begin, left = shard_begin(tensors)
    with open(path, "wb") as file:
        file.write(begin)
        while left > 0:
            left -= file.write(noise[: min(left, len(noise))])
        file.flush()
        os.fsync(file.fileno())


def make_model(folder, shape, budget):
    folder.mkdir(parents=True)
    d, ffn, heads, kv, vocab = SHAPES[shape]
    tensors, layers = tensors_of(shape, budget)
    # 64 MB of normal values, over and over: numbers as in a model, and no time spent on making them.
    values = np.random.default_rng(0).standard_normal(32 << 20, dtype=np.float32) * 0.02
    noise = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    shards, current, filled = [], [], 0
    for entry in tensors:
        if current and filled + 2 * int(np.prod(entry[1])) > SHARD_BYTES:
            shards.append(current)
            current, filled = [], 0
        current.append(entry)
        filled += 2 * int(np.prod(entry[1]))
    shards.append(current)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards):
        write_shard(folder / name, shard, noise)
    weight_map = {tensor: name for name, shard in zip(names, shards) for tensor, _ in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": d, "intermediate_size": ffn,
        "num_attention_heads": heads // 128, "num_key_value_heads": kv // 128, "head_dim": 128, "num_hidden_layers": layers,
        "vocab_size": vocab, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
        "tie_word_embeddings": False}))
    direction = np.random.default_rng(1).standard_normal(d, dtype=np.float32)
    text = json.dumps({"direction": {"dtype": "F32", "shape": [d], "data_offsets": [0, 4 * d]}}).encode()
    text += b" " * (-len(text) % 8)
    (folder.parent / "direction.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + direction.tobytes())
    return sum(f.stat().st_size for f in folder.iterdir())


def leave_cache(folder):
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def direct_buffer(block):
    buffer = mmap.mmap(-1, block)  # Aligned to pages.
    buffer.write(np.random.default_rng(2).bytes(block))
    return buffer


def use_disk_directly(out, total, model=None, threads=3, block=16 << 20):
    """Seconds that the disk takes for `total` bytes past the page cache, several writes at a time; with `model`, its files are read
    the same way meanwhile."""
    out.mkdir()
    jobs, files = [], []
    target = os.open(out / "direct", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    files.append(target)
    os.posix_fallocate(target, 0, total)
    written = direct_buffer(block)
    jobs += [lambda at=at: os.pwrite(target, written, at) for at in range(0, total - block, block)]
    reads, local = [], threading.local()

    def read(file, at):
        if not hasattr(local, "buffer"):
            local.buffer = direct_buffer(block)
        os.preadv(file, [local.buffer], at)

    for path in sorted(model.glob("*.safetensors")) if model else []:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        files.append(file)
        reads += [lambda file=file, at=at: read(file, at) for at in range(0, path.stat().st_size, block)]
    start = time.monotonic()
    try:
        with concurrent.futures.ThreadPoolExecutor(threads) as writers, concurrent.futures.ThreadPoolExecutor(threads) as readers:
            pending = [readers.submit(job) for job in reads] + [writers.submit(job) for job in jobs]
            for future in pending:
                future.result()
        os.fsync(target)
    finally:
        for file in files:
            os.close(file)
    return time.monotonic() - start


def run(command):
    """Seconds, and what the program says about itself."""
    start = time.monotonic()
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True)
    return time.monotonic() - start, json.loads(done.stdout) if done.stdout.startswith(b"{") else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=size, default=size("4GB"))
    parser.add_argument("--folder", type=Path, required=True, help="a new folder on the disk to measure; removed at the end")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--copy-once", action="store_true")
    parser.add_argument("--bearing", type=Path, default=Path(__file__).resolve().parents[2] / "build/bin/bearing")
    parser.add_argument("--verify", action="store_true", help="also time the edit with reading back")
    arguments = parser.parse_args()
    folder, model, out = arguments.folder, arguments.folder / "model", arguments.folder / "out"
    edit = [arguments.bearing, "edit", "--model", model, "--direction", folder / "direction.safetensors", "--out", out,
            "--no-progress", "-o", "json"]
    runs = {"cp": ["cp", "-r", model, out], "cp + sync": ["sh", "-c", f"cp -r {model} {out} && sync -f {out}"], "the disk alone": None}
    for ranks in arguments.ranks:
        runs[f"edit, {ranks} rank(s)"] = edit + ["--ranks", ranks, "--no-verify"]
        if arguments.verify:
            runs[f"edit and read back, {ranks} rank(s)"] = edit + ["--ranks", ranks]
    try:
        total = make_model(model, arguments.shape, arguments.bytes)
        print(f"{total / 1e9:.2f} GB, {arguments.shape} shape, {'cold' if arguments.cold else 'warm'} source", flush=True)
        times = {name: [] for name in runs}
        for turn in range(arguments.repeat):
            for name, command in runs.items():
                if turn and arguments.copy_once and name.startswith("cp"):
                    continue
                shutil.rmtree(out, ignore_errors=True)
                os.sync()
                if arguments.cold:
                    leave_cache(model)
                seconds, detail = run(command) if command else (use_disk_directly(out, total, model if arguments.cold else None), {})
                memory = detail.get("peak_memory_bytes", 0)
                times[name].append((seconds, memory))
                print(json.dumps({"run": name, "seconds": round(seconds, 2), "GB/s": round(total / 1e9 / seconds, 3),
                                  "peak_MiB": memory >> 20, "write_s": detail.get("write_seconds"), "verify_s": detail.get("verify_seconds")}), flush=True)
        best = {name: min(values) for name, values in times.items()}
        reference = best["cp"][0]
        direct = best["the disk alone"][0]
        print("\n| run | best s | GB/s | times cp | of the disk's rate | peak MiB a process |\n|---|---|---|---|---|---|")
        for name, (seconds, memory) in best.items():
            print(f"| {name} | {seconds:.1f} | {total / 1e9 / seconds:.2f} | {reference / seconds:.2f} | {direct / seconds:.0%} | {memory >> 20} |")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
