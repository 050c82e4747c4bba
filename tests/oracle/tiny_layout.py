"""From what transformers 5 saves to what is published: the spelling of config.json and the names in the weight file.

Each function takes the saved dictionary (of the config, or of the tensors by name) and returns the published one. Nothing here
changes what a model computes: make_tiny_models loads every folder back and compares.
"""

import re

import qwen1

# Phi3Config's defaults lie outside a tiny vocabulary.
NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
# Keys that transformers 4 did not write.
VERSION_5 = ("rope_parameters", "layer_types", "dtype")


def as_saved(saved):
    return saved


def version_4(saved):
    """`rope_theta`, `rope_scaling` and `torch_dtype`; which layers have a window follows from the family's own rule."""
    kept = {k: v for k, v in saved.items() if k not in VERSION_5}
    scaling = dict(saved["rope_parameters"])
    kept["rope_theta"] = scaling.pop("rope_theta")
    kept["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    kept["torch_dtype"] = saved["dtype"]
    if saved["model_type"].startswith("qwen") and not saved["use_sliding_window"]:
        kept["sliding_window"] = 131072
    return dict(sorted(kept.items()))


def first_gemma(saved):
    """The first Gemma files call the tanh approximation "gelu"."""
    return version_4(saved) | {"hidden_act": "gelu"}


def first_gemma3(saved):
    full, local = saved["rope_parameters"]["full_attention"], saved["rope_parameters"]["sliding_attention"]
    kept = version_4(saved | {"rope_parameters": full})
    kept = {k: v for k, v in kept.items() if not k.startswith("_sliding")}
    return dict(sorted((kept | {"rope_local_base_freq": local["rope_theta"], "sliding_window_pattern": 3}).items()))


def phi3_config(saved):
    """`rope_scaling` with `type`, and `partial_rotary_factor` and `original_max_position_embeddings` beside it."""
    kept = version_4(saved)
    rope = saved["rope_parameters"]
    if rope["rope_type"] == "longrope":
        kept["rope_scaling"] = {"long_factor": rope["long_factor"], "short_factor": rope["short_factor"], "type": "longrope"}
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        kept["partial_rotary_factor"] = rope["partial_rotary_factor"]
    return dict(sorted(kept.items()))


def qwen1_config(saved):
    hidden, heads = saved["hidden_size"], saved["num_attention_heads"]
    return {
        "architectures": ["QWenLMHeadModel"],
        "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig", "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
        "attn_dropout_prob": 0.0, "bf16": False, "emb_dropout_prob": 0.0, "eos_token_id": saved["eos_token_id"], "fp16": False,
        "fp32": True, "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": 2 * saved["intermediate_size"],
        "kv_channels": hidden // heads, "layer_norm_epsilon": saved["rms_norm_eps"], "max_position_embeddings": 2048,
        "model_type": "qwen", "no_bias": True, "num_attention_heads": heads, "num_hidden_layers": saved["num_hidden_layers"],
        "onnx_safe": None, "rotary_emb_base": int(saved["rope_parameters"]["rope_theta"]), "rotary_pct": 1.0,
        "scale_attn_weights": True, "seq_length": saved["max_position_embeddings"], "softmax_in_fp32": False,
        "tie_word_embeddings": False, "tokenizer_class": "QWenTokenizer", "transformers_version": "4.32.0", "use_cache": True,
        "use_cache_kernel": False, "use_cache_quantization": False, "use_dynamic_ntk": True, "use_flash_attn": "auto",
        "use_logn_attn": True, "vocab_size": saved["vocab_size"]}


def qwen1_tensors(tensors):
    return qwen1.to_qwen1(tensors)


def gemma3_tensors(tensors):
    """language_model.model.*, vision_tower.* and multi_modal_projector.*; the output matrix is the embedding's."""
    prefixes = {"model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.vision_model.",
                "model.multi_modal_projector.": "multi_modal_projector."}
    return {new + name.removeprefix(old): tensor for name, tensor in tensors.items()
            for old, new in prefixes.items() if name.startswith(old)}
