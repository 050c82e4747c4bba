"""The tiny models, one row each. Together they cover every family and every knob of the decoder.

Sizes are odd on purpose: few divide by 2, 3 or 4 ranks, hidden sizes are no powers of two, heads * head_dim is often not the
hidden size. Windows and longrope limits lie within the lengths of prompts_long.json, soft caps within the range of the values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers as hf

import tiny_layout

WINDOW = 8
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}


@dataclass(frozen=True)
class Tiny:
    model_class: type
    config: Callable  # () -> a transformers config
    seed: int  # of the weights; for mixtures of experts one whose routers leave no close calls
    dtype: torch.dtype = torch.float32
    # What config.json says instead of what transformers writes: the spelling of the published files.
    config_json: Callable = tiny_layout.as_saved
    # What the weights are called in the file instead.
    tensors: Callable = tiny_layout.as_saved
    tokenizer_size: int = 0  # when the model has more rows than tokens
    shard_size: str = ""
    prompts: str = "prompts_long.json"
    fill: dict = field(default_factory=dict)  # options of make_tiny_models.fill


def sizes(hidden, heads, kv_heads, layers, mlp, vocab, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads, num_hidden_layers=layers,
                intermediate_size=mlp, vocab_size=vocab, max_position_embeddings=512) | more


def rope(theta, kind="default", **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def llama(**changes):
    return hf.LlamaConfig(**(sizes(72, 9, 3, 3, 100, 259, tie_word_embeddings=True, rope_theta=10000.0, rms_norm_eps=1e-5)
                             | changes))


def qwen2(**changes):
    return hf.Qwen2Config(**(sizes(64, 4, 2, 3, 77, 301, tie_word_embeddings=False, rope_theta=1000000.0, rms_norm_eps=1e-6)
                             | changes))


def gemma2(**changes):
    return hf.Gemma2Config(**sizes(36, 6, 3, 4, 50, 263, head_dim=10, query_pre_attn_scalar=20, sliding_window=WINDOW,
                                   attn_logit_softcapping=5.0, final_logit_softcapping=3.0, tie_word_embeddings=True) | changes)


def qwen3(**changes):
    return hf.Qwen3Config(**sizes(36, 6, 2, 3, 44, 262, head_dim=16, tie_word_embeddings=True,
                                  rope_parameters=rope(10000.0)) | changes)


def phi3(factors, original, **changes):
    short, long = factors
    scaled = rope(10000.0, "longrope", short_factor=short, long_factor=long, original_max_position_embeddings=original)
    return hf.Phi3Config(**sizes(48, 4, 2, 2, 40, 265, original_max_position_embeddings=original,
                                 rope_parameters=scaled, **tiny_layout.NO_SPECIAL) | changes)


def mixtral():
    return hf.MixtralConfig(**sizes(40, 4, 2, 2, 24, 259, num_local_experts=4, num_experts_per_tok=2, sliding_window=None,
                                    tie_word_embeddings=False, rope_parameters=rope(1000000.0)))


def gemma3(**changes):
    return hf.Gemma3TextConfig(**sizes(36, 4, 2, 4, 44, 267, head_dim=12, query_pre_attn_scalar=24, sliding_window=WINDOW,
                                       sliding_window_pattern=3, tie_word_embeddings=True,
                                       rope_parameters={"sliding_attention": rope(10000.0),
                                                        "full_attention": rope(1000000.0, "linear", factor=8.0)}) | changes)


def gemma3_with_vision():
    text = gemma3(num_key_value_heads=1, head_dim=8, num_hidden_layers=3, vocab_size=271, query_pre_attn_scalar=8,
                  layer_types=["sliding_attention", "full_attention", "sliding_attention"])
    vision = dict(hidden_size=12, intermediate_size=20, num_attention_heads=2, num_hidden_layers=1, image_size=28,
                  patch_size=14, vision_use_head=False)
    return hf.Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4, boi_token_index=266,
                           eoi_token_index=267, image_token_index=268)


# Distinct, so that a rotation with the wrong list or in the wrong order shows.
SIX_FACTORS = ([1.0, 1.1, 1.3, 1.6, 2.0, 2.5], [1.2, 2.0, 4.0, 9.0, 14.0, 20.0])
THREE_FACTORS = ([1.0, 1.2, 1.7], [1.5, 4.0, 11.0])
CLASSES = {"token_classes": True}
SHARP = {"query_gain": 3.0}

SHORT = {"prompts": "prompts.json"}

TINY = {
    "llama-tied": Tiny(hf.LlamaForCausalLM, llama, seed=0, **SHORT),
    "qwen2-untied": Tiny(hf.Qwen2ForCausalLM, qwen2, seed=1, **SHORT),
    # An explicit head_dim that makes o_proj [48, 64], and rotary frequencies in all three bands of the llama3 rule.
    "llama3-rope": Tiny(hf.LlamaForCausalLM, lambda: llama(**sizes(48, 4, 2, 3, 90, 259), head_dim=16, rope_theta=None,
                                                           tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE),
                        seed=2, **SHORT),
    "qwen2-bf16": Tiny(hf.Qwen2ForCausalLM, lambda: qwen2(tie_word_embeddings=True), seed=3, dtype=torch.bfloat16, **SHORT),
    "llama-sharded": Tiny(hf.LlamaForCausalLM, lambda: llama(num_hidden_layers=4, tie_word_embeddings=False,
                                                             attention_bias=True, mlp_bias=True),
                          seed=4, shard_size="100KB", **SHORT),
    # ---- window, rope and head layouts of the Llama-like families
    "mistral-window": Tiny(
        hf.MistralForCausalLM, lambda: hf.MistralConfig(**sizes(36, 6, 3, 3, 50, 261, head_dim=8, sliding_window=WINDOW,
                                                                tie_word_embeddings=False, rope_parameters=rope(10000.0))),
        seed=1101, config_json=tiny_layout.version_4),
    "qwen2-window": Tiny(
        hf.Qwen2ForCausalLM, lambda: hf.Qwen2Config(**sizes(40, 4, 2, 4, 46, 263, use_sliding_window=True,
                                                            sliding_window=WINDOW, max_window_layers=2,
                                                            tie_word_embeddings=True, rope_parameters=rope(1000000.0))),
        seed=1102, config_json=tiny_layout.version_4),
    "qwen3-yarn": Tiny(
        hf.Qwen3ForCausalLM, lambda: qwen3(max_position_embeddings=1024, rope_parameters=rope(
            1000.0, "yarn", factor=4.0, original_max_position_embeddings=256, beta_fast=8.0, beta_slow=1.0)),
        seed=1103, config_json=tiny_layout.version_4),
    "qwen3-bias-window": Tiny(
        hf.Qwen3ForCausalLM, lambda: qwen3(**sizes(36, 4, 4, 3, 40, 262), head_dim=12, attention_bias=True,
                                           tie_word_embeddings=False, use_sliding_window=True, sliding_window=WINDOW,
                                           max_window_layers=1),
        seed=1104),
    "qwen3-bf16": Tiny(hf.Qwen3ForCausalLM, qwen3, seed=1105, dtype=torch.bfloat16, config_json=tiny_layout.version_4),
    "llama-linear-mqa": Tiny(
        hf.LlamaForCausalLM, lambda: hf.LlamaConfig(**sizes(40, 4, 1, 3, 66, 263, tie_word_embeddings=True,
                                                            rope_parameters=rope(10000.0, "linear", factor=2.5))),
        seed=1106, config_json=tiny_layout.version_4),
    "llama-dynamic-mha": Tiny(
        hf.LlamaForCausalLM, lambda: hf.LlamaConfig(**sizes(40, 5, 5, 3, 45, 260, tie_word_embeddings=False,
                                                            rope_parameters=rope(10000.0, "dynamic", factor=2.0))),
        seed=1107, config_json=tiny_layout.version_4),
    "qwen1": Tiny(
        hf.Qwen2ForCausalLM, lambda: hf.Qwen2Config(**sizes(40, 4, 4, 3, 42, 264, tie_word_embeddings=False,
                                                            rope_parameters=rope(10000.0))),
        seed=1108, config_json=tiny_layout.qwen1_config, tensors=tiny_layout.qwen1_tensors),
    # ---- Gemma: gains of 1 + w, scaled embeddings, four norms, caps, two ropes
    "gemma-mqa": Tiny(
        hf.GemmaForCausalLM, lambda: hf.GemmaConfig(**sizes(44, 4, 1, 3, 60, 263, head_dim=12, tie_word_embeddings=True,
                                                            rope_parameters=rope(10000.0))),
        seed=1111, config_json=tiny_layout.first_gemma),
    "gemma2-softcap": Tiny(hf.Gemma2ForCausalLM, gemma2, seed=1112, config_json=tiny_layout.version_4, fill=SHARP),
    "gemma2-bf16": Tiny(hf.Gemma2ForCausalLM, lambda: gemma2(**sizes(40, 4, 2, 3, 46, 263), head_dim=12), seed=1113,
                        dtype=torch.bfloat16, fill=SHARP),
    "gemma3-window": Tiny(hf.Gemma3ForCausalLM, gemma3, seed=1114, config_json=tiny_layout.first_gemma3),
    "gemma3-vision": Tiny(hf.Gemma3ForConditionalGeneration, gemma3_with_vision, seed=1115, tensors=tiny_layout.gemma3_tensors,
                          tokenizer_size=266),
    # ---- Phi-3: fused projections, longrope, partial rotation
    "phi3-short": Tiny(hf.Phi3ForCausalLM, lambda: phi3(SIX_FACTORS, 128, tie_word_embeddings=True), seed=1121,
                       config_json=tiny_layout.phi3_config),
    "phi3-long": Tiny(hf.Phi3ForCausalLM, lambda: phi3(THREE_FACTORS, 16, partial_rotary_factor=0.5, sliding_window=12),
                      seed=1122, config_json=tiny_layout.phi3_config),
    "phi3-mixed": Tiny(hf.Phi3ForCausalLM, lambda: phi3(THREE_FACTORS, 40, partial_rotary_factor=0.5), seed=1123),
    "phi3-plain": Tiny(hf.Phi3ForCausalLM, lambda: phi3(THREE_FACTORS, 512, rope_parameters=rope(10000.0),
                                                        sliding_window=WINDOW), seed=1124, config_json=tiny_layout.phi3_config),
    # ---- mixtures of experts
    "mixtral": Tiny(hf.MixtralForCausalLM, mixtral, seed=1451, config_json=tiny_layout.version_4, fill=CLASSES),
    "mixtral-bf16": Tiny(hf.MixtralForCausalLM, mixtral, seed=1332, dtype=torch.bfloat16,
                         config_json=tiny_layout.version_4, fill=CLASSES),
    "qwen2-moe": Tiny(
        hf.Qwen2MoeForCausalLM, lambda: hf.Qwen2MoeConfig(**sizes(
            40, 4, 1, 6, 14, 261, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8,
            shared_expert_intermediate_size=12, decoder_sparse_step=2, mlp_only_layers=[3], norm_topk_prob=False,
            tie_word_embeddings=False, rope_parameters=rope(1000000.0))),
        seed=1373, config_json=tiny_layout.version_4, fill=CLASSES),
    "qwen3-moe": Tiny(
        hf.Qwen3MoeForCausalLM, lambda: hf.Qwen3MoeConfig(**sizes(
            36, 4, 1, 3, 30, 260, head_dim=12, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=10,
            norm_topk_prob=True, tie_word_embeddings=False, rope_parameters=rope(1000000.0))),
        seed=3374, config_json=tiny_layout.version_4, fill=CLASSES),
}
