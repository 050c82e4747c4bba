"""Collect on a model of 70B's shape, with random weights and fewer layers, streamed on two ranks: their memory together."""

import json
import random
import shutil
import struct

import measure
from engine import Engine

SHAPE = {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
         "num_hidden_layers": 8, "vocab_size": 32000}
BLOCK = 1 << 24  # Values that are drawn once and written over and over.


def config_of(shape):
    return shape | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
                    "rope_theta": 500000.0, "max_position_embeddings": 4096, "tie_word_embeddings": False,
                    "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}


def tensors_of(shape):
    """Name -> shape, as a Llama file holds them."""
    d, ffn, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    kv = d // shape["num_attention_heads"] * shape["num_key_value_heads"]
    tensors = {"model.embed_tokens.weight": [vocab, d], "model.norm.weight": [d], "lm_head.weight": [vocab, d]}
    layer = {"input_layernorm": [d], "post_attention_layernorm": [d], "self_attn.q_proj": [d, d], "self_attn.k_proj": [kv, d],
             "self_attn.v_proj": [kv, d], "self_attn.o_proj": [d, d], "mlp.gate_proj": [ffn, d], "mlp.up_proj": [ffn, d],
             "mlp.down_proj": [d, ffn]}
    for i in range(shape["num_hidden_layers"]):
        tensors |= {f"model.layers.{i}.{name}.weight": size for name, size in layer.items()}
    return tensors


def write_model(folder, shape):
    """One safetensors file of bfloat16. Weights repeat one block of draws, which costs as little as copying; gains are 1."""
    import torch
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape)))
    tensors, header, at = tensors_of(shape), {}, 0
    for name, size in tensors.items():
        count = 2 * torch.Size(size).numel()
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Of the size that keeps activations as they are; the few that have other rows to sum over do not matter here.
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(1)) / shape["hidden_size"] ** 0.5
    drawn = memoryview(block.bfloat16().view(torch.int16).numpy()).cast("B")
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for name, size in tensors.items():
            left = 2 * torch.Size(size).numel()
            if len(size) == 1:
                out.write(memoryview(torch.ones(size[0], dtype=torch.bfloat16).view(torch.int16).numpy()).cast("B"))
                continue
            while left > 0:
                left -= out.write(drawn[:min(left, len(drawn))])
    return 8 + len(text) + at


def run(context):
    shape = SHAPE | context.large_shape
    draw = random.Random(1)
    prefix = [draw.randrange(shape["vocab_size"]) for _ in range(20)]
    rows = [prefix + [draw.randrange(shape["vocab_size"]) for _ in range(draw.randint(10, 30))] for _ in range(context.large_prompts)]
    file = measure.write_json(context.work / "large.json", rows)
    folder = context.work / "large"
    need = 2 * sum(a * b for a, b in (size for size in tensors_of(shape).values() if len(size) == 2))
    if (free := shutil.disk_usage(context.work).free) < need + (1 << 30):
        raise SystemExit(f"{context.work}: {free >> 20} MiB free, the large model needs {need >> 20} MiB (TMPDIR chooses the place)")
    table = measure.Table("large", ["model", "dtype", "products", "ranks", "prompts", "file GiB", "collect s", "GiB of all ranks"])
    try:
        size = write_model(folder, shape)
        for gemm in context.large_gemm:
            options = {} if gemm == "measured" else {"gemm": gemm}
            with Engine(context.bin, folder, file, "bfloat16", ranks=2, threads=1, residency="streamed", **options) as engine:
                got = engine.ask("collect", positions=5)
                table.add(**{"model": f"d {shape['hidden_size']}, {shape['num_hidden_layers']} layers", "dtype": "bfloat16",
                             "products": engine.loaded["gemm_path"], "ranks": 2, "prompts": len(rows), "file GiB": size / 2**30,
                             "collect s": got["seconds"], "GiB of all ranks": sum(got["peak_bytes"]) / 2**30,
                             "after loading GiB": sum(engine.loaded["peak_bytes"]) / 2**30, "layers read": got["layers_read"],
                             "tokens": got["tokens"], "peak_bytes": got["peak_bytes"]})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [table]
