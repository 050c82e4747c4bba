"""Qwen-1 (`model_type` "qwen", published with its own modelling code) through transformers' Qwen2, whose arithmetic it shares.

Up to `seq_length` tokens Qwen-1 is Qwen2 with as many key as query heads: dynamic NTK and log-n attention scaling only act on
longer inputs. Only the names differ: `attn.c_attn` stacks q, k and v; `mlp.w1` is the up and `mlp.w2` the gate projection;
`intermediate_size` in the config is twice the real one.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

QKV = "attn.c_attn"
# Qwen-1's name in a layer: Qwen2's.
LAYER = {"ln_1": "input_layernorm", "attn.c_proj": "self_attn.o_proj", "ln_2": "post_attention_layernorm",
         "mlp.w1": "mlp.up_proj", "mlp.w2": "mlp.gate_proj", "mlp.c_proj": "mlp.down_proj"}
TOP = {"transformer.wte.weight": "model.embed_tokens.weight", "transformer.ln_f.weight": "model.norm.weight",
       "lm_head.weight": "lm_head.weight"}


def to_qwen1(tensors):
    """Qwen2's tensors under Qwen-1's names."""
    found = {old: tensors[new] for old, new in TOP.items()}
    for layer in sorted({int(m[1]) for m in (re.match(r"model\.layers\.(\d+)\.", name) for name in tensors) if m}):
        old, new = f"transformer.h.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            found[f"{old}{QKV}.{kind}"] = torch.cat([tensors[f"{new}self_attn.{p}_proj.{kind}"] for p in "qkv"])
        found |= {f"{old}{mine}.weight": tensors[f"{new}{theirs}.weight"] for mine, theirs in LAYER.items()}
    return found


def to_qwen2(tensors):
    """Qwen-1's tensors under Qwen2's names."""
    found = {}
    for name, tensor in tensors.items():
        if name in TOP:
            found[TOP[name]] = tensor
            continue
        layer, part, kind = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)\.(weight|bias)", name).groups()
        if part == QKV:
            for p, third in zip("qkv", tensor.chunk(3)):
                found[f"model.layers.{layer}.self_attn.{p}_proj.{kind}"] = third
        else:
            found[f"model.layers.{layer}.{LAYER[part]}.{kind}"] = tensor
    return found


def qwen2_config(c):
    return Qwen2Config(
        hidden_size=c["hidden_size"], num_hidden_layers=c["num_hidden_layers"], vocab_size=c["vocab_size"],
        num_attention_heads=c["num_attention_heads"], num_key_value_heads=c["num_attention_heads"],
        intermediate_size=c["intermediate_size"] // 2, rms_norm_eps=c["layer_norm_epsilon"],
        max_position_embeddings=c["seq_length"], tie_word_embeddings=c["tie_word_embeddings"],
        rope_parameters={"rope_type": "default", "rope_theta": float(c["rotary_emb_base"])},
        eos_token_id=c.get("eos_token_id"), pad_token_id=None, bos_token_id=None)


def load(folder, dtype):
    tensors = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors |= load_file(path)
    model = Qwen2ForCausalLM(qwen2_config(json.loads((Path(folder) / "config.json").read_text())))
    model.load_state_dict(to_qwen2(tensors), strict=True)
    return model.to(dtype).eval()
