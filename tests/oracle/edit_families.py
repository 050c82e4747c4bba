"""Tiny random models of families that Bearing edits and cannot run, and what an edit must do to them, by transformers.

Each row makes a model; `writes` names the modules whose output is added to the residual stream. Where the intermediate size
equals the hidden size, a wrong orientation of fused experts shows in no shape.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as hf

SPECIAL = dict(pad_token_id=None, bos_token_id=None, eos_token_id=None)


def sizes(**changes):
    return dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=24,
                vocab_size=67, max_position_embeddings=64) | SPECIAL | changes


def deepseek(**more):
    return sizes(num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=12,
                 first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
                 n_group=1, topk_group=1) | more


def llama4_text():
    # Experts are square.
    return hf.Llama4TextConfig(**sizes(intermediate_size=32, head_dim=8, intermediate_size_mlp=20, num_local_experts=4,
                                       interleave_moe_layer_step=2))


def llama4():
    vision = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vision_output_dim=16,
                  image_size=28, patch_size=14, projector_input_dim=16, projector_output_dim=16)
    return hf.Llama4Config(text_config=llama4_text().to_dict(), vision_config=vision)


def qwen3_vl_moe():
    text = sizes(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12,
                 rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]})
    vision = dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=20, out_hidden_size=32, patch_size=14,
                  num_position_embeddings=16, deepstack_visual_indexes=[0])
    return hf.Qwen3VLMoeConfig(text_config=text, vision_config=vision)


def attention_and_mlp(layer):
    mlp = next(m for n in ("mlp", "feed_forward", "block_sparse_moe") if (m := getattr(layer, n, None)) is not None)
    return [layer.self_attn, mlp]


def olmo2_norms(layer):
    return [layer.post_attention_layernorm, layer.post_feedforward_layernorm]


def glm4_norms(layer):
    return [layer.post_self_attn_layernorm, layer.post_mlp_layernorm]


@dataclass(frozen=True)
class Family:
    model_class: type
    config: Callable
    writes: Callable = attention_and_mlp  # a decoder layer -> the modules that write
    post_norms: bool = False
    transposed: tuple = ()  # endings of tensors that published files hold with their last two axes swapped


FAMILIES = {
    "cohere2": Family(hf.Cohere2ForCausalLM, lambda: hf.Cohere2Config(**sizes())),  # tied
    "olmo2": Family(hf.Olmo2ForCausalLM, lambda: hf.Olmo2Config(**sizes()), olmo2_norms, post_norms=True),
    "glm4": Family(hf.Glm4ForCausalLM, lambda: hf.Glm4Config(**sizes(head_dim=8)), glm4_norms, post_norms=True),
    "glm4_moe": Family(hf.Glm4MoeForCausalLM, lambda: hf.Glm4MoeConfig(**sizes(
        head_dim=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, first_k_dense_replace=1,
        n_shared_experts=1, n_group=1, topk_group=1))),
    "granite": Family(hf.GraniteForCausalLM, lambda: hf.GraniteConfig(**sizes(
        embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=2.0, attention_multiplier=0.3, attention_bias=True,
        mlp_bias=True, tie_word_embeddings=True))),
    "phimoe": Family(hf.PhimoeForCausalLM, lambda: hf.PhimoeConfig(**sizes(
        num_local_experts=4, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True))),
    "deepseek_v2": Family(hf.DeepseekV2ForCausalLM, lambda: hf.DeepseekV2Config(**deepseek(n_shared_experts=2))),
    "deepseek_v3": Family(hf.DeepseekV3ForCausalLM, lambda: hf.DeepseekV3Config(**deepseek(n_shared_experts=1))),
    "gpt_oss": Family(hf.GptOssForCausalLM, lambda: hf.GptOssConfig(**sizes(
        intermediate_size=32, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8))),
    "llama4_text": Family(hf.Llama4ForCausalLM, llama4_text),
    "llama4": Family(hf.Llama4ForConditionalGeneration, llama4),
    "qwen3_vl_moe": Family(hf.Qwen3VLMoeForConditionalGeneration, qwen3_vl_moe),
    "qwen3_vl_moe-published": Family(hf.Qwen3VLMoeForConditionalGeneration, qwen3_vl_moe,
                                     transposed=("mlp.experts.down_proj", "mlp.experts.gate_up_proj")),
}


@torch.no_grad()
def make(name, seed=11):
    """A model with every parameter random, gains and biases included."""
    family = FAMILIES[name]
    model = family.model_class(family.config()).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter_name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        gain = "norm" in parameter_name and parameter_name.endswith("weight")
        parameter.copy_(1 + 0.2 * noise if gain else 0.3 * noise)
    return model


def decoder_of(model):
    """The module that holds `layers` and `embed_tokens` of the text model."""
    return next(m for m in model.modules() if hasattr(m, "layers") and hasattr(m, "embed_tokens"))


def written(module, output):
    return output[0] if isinstance(output, tuple) else output


def writers_of(name, model):
    decoder = decoder_of(model)
    return [decoder.embed_tokens] + [module for layer in decoder.layers for module in FAMILIES[name].writes(layer)]


@torch.no_grad()
def logits(model, rows, hooks=()):
    try:
        return model(input_ids=rows).logits
    finally:
        for hook in hooks:
            hook.remove()


def ablated_logits(name, model, rows, direction):
    """Every write to the residual stream loses its component along `direction`."""
    def ablate(module, _, output):
        x = written(module, output)
        x = x - (x @ direction)[..., None] * direction
        return (x,) + output[1:] if isinstance(output, tuple) else x

    return logits(model, rows, [module.register_forward_hook(ablate) for module in writers_of(name, model)])


def largest_component(name, model, rows, direction):
    """Over all writes: |write . direction| / |write|, the largest."""
    seen = []

    def measure(module, _, output):
        x = written(module, output)
        seen.append(((x @ direction).abs() / x.norm(dim=-1).clamp_min(1e-12)).max().item())

    result = logits(model, rows, [module.register_forward_hook(measure) for module in writers_of(name, model)])
    return max(seen), len(seen), result
