#!/usr/bin/env python3
"""What a config.json says about a model: sizes, windows, experts and the number of parameters, by arithmetic alone.

    config_facts.py tests/sharding/data/configs            # compares facts.json there with its configs; --write replaces it

Uses neither transformers nor Bearing: it is the third opinion that both are compared with. `parameters` counts every stored
number once, so a tied output matrix does not count; `text_parameters` is there when the model has a vision part as well.
"""

import argparse
import json
from pathlib import Path

GEMMA = ("gemma", "gemma2", "gemma3_text")
# What transformers assumes for keys that the published gemma-3 wrappers leave out of text_config.
GEMMA3_TEXT = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
               "max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
               "sliding_window_pattern": 6}


def text_of(config):
    return GEMMA3_TEXT | config["text_config"] if config["model_type"] == "gemma3" else config


def window_layers(c, layers):
    """Layers that see only the last `sliding_window` tokens."""
    family = c["model_type"]
    if "layer_types" in c:
        return [i for i, kind in enumerate(c["layer_types"]) if kind == "sliding_attention"]
    if family == "gemma2":
        return list(range(0, layers, 2))
    if family == "gemma3_text":
        return [i for i in range(layers) if (i + 1) % c["sliding_window_pattern"]]
    if not c.get("sliding_window") or family.startswith("qwen") and not c.get("use_sliding_window", False):
        return []
    # Of the Qwen families, all before max_window_layers are full: no published file here uses a window.
    return list(range(c["max_window_layers"] if family.startswith("qwen") else 0, layers))


def moe_layers(c, layers):
    if "num_local_experts" in c:
        return list(range(layers))
    if "num_experts" not in c:
        return []
    return [i for i in range(layers) if (i + 1) % c["decoder_sparse_step"] == 0 and i not in c.get("mlp_only_layers", [])]


def facts(config):
    c = text_of(config)
    family, layers, d, heads = c["model_type"], c["num_hidden_layers"], c["hidden_size"], c["num_attention_heads"]
    kv_heads = c.get("num_key_value_heads", heads)
    head_dim = c.get("head_dim") or d // heads
    mlp = c["intermediate_size"] // (2 if family == "qwen" else 1)
    tied = c.get("tie_word_embeddings", family in GEMMA)
    moe, window = moe_layers(c, layers), window_layers(c, layers)

    qkv_rows = (heads + 2 * kv_heads) * head_dim
    attention = qkv_rows * d + d * heads * head_dim
    if family in ("qwen", "qwen2", "qwen2_moe"):
        attention += qkv_rows
    if family in ("qwen3", "qwen3_moe", "gemma3_text"):
        attention += 2 * head_dim
    norms = (4 if family in ("gemma2", "gemma3_text") else 2) * d
    total = layers * (attention + norms) + (layers - len(moe)) * 3 * d * mlp + d
    total += c["vocab_size"] * d * (1 if tied else 2)

    found = {"layers": layers, "d_model": d, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "mlp_size": mlp,
             "vocab_size": c["vocab_size"], "tied": tied, "max_positions": c["max_position_embeddings"],
             "rope_theta": float(c.get("rope_theta", c.get("rotary_emb_base", 10000)))}
    scaling = c.get("rope_scaling")
    if scaling:
        found["rope_scaling"] = scaling.get("rope_type", scaling.get("type"))
    if family == "gemma3_text":
        found["rope_local_theta"] = float(c["rope_local_base_freq"])
    if window:
        found |= {"window": c["sliding_window"], "window_layers": window}
    if moe:
        experts = c.get("num_experts", c.get("num_local_experts"))
        size, shared = c.get("moe_intermediate_size", mlp), c.get("shared_expert_intermediate_size", 0)
        found |= {"experts": experts, "experts_per_token": c["num_experts_per_tok"], "expert_size": size,
                  "moe_layers": moe}
        if shared:
            found["shared_expert_size"] = shared
        # Router, experts, and the shared expert with its gate of one row.
        total += len(moe) * (experts * d + experts * 3 * d * size + (3 * d * shared + d if shared else 0))
    if "vision_config" in config:
        found["text_parameters"] = total
        total += vision_parameters(config["vision_config"], d)
    return {"parameters": total} | found


def vision_parameters(v, text_size):
    """A SigLIP tower without a pooling head, and Gemma 3's projector (a matrix and a norm)."""
    d, mlp = v["hidden_size"], v["intermediate_size"]
    patch = v.get("num_channels", 3) * v["patch_size"] ** 2
    embeddings = d * patch + d + (v["image_size"] // v["patch_size"]) ** 2 * d
    layer = 4 * (d * d + d) + 2 * d * mlp + mlp + d + 2 * 2 * d
    return embeddings + v["num_hidden_layers"] * layer + 2 * d + d * text_size + d


def all_facts(folder):
    return {path.name: facts(json.loads(path.read_text())) for path in sorted(Path(folder).glob("*.json"))
            if path.name != "facts.json"}


def text_of_facts(found):
    return "{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text, path = text_of_facts(all_facts(arguments.folder)), arguments.folder / "facts.json"
    if arguments.write:
        path.write_text(text)
    elif path.read_text() != text:
        raise SystemExit(f"{path} is not what the configs beside it say; --write replaces it")


if __name__ == "__main__":
    main()
