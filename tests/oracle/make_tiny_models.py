#!/usr/bin/env python3
"""Makes tiny random chat models and their golden traces, the same from the same seed and versions.

    make_tiny_models.py --out tests/golden/tiny

Writes, for each model, a Hugging Face folder OUT/NAME; OUT/traces/NAME.{plain,ablated,added}.safetensors from transformers in
float32 (and bfloat16 for the bfloat16 model); OUT/directions/NAME.safetensors, OUT/token_ids/NAME.json and OUT/prompts.json.
"""

import argparse
import json
import math
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import plain_model
import trace

ADD_LAYER = 1
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
CORPUS = ["the cat sat on the mat and the dog ran over the hill", "what is the name of the river that runs through the town",
          "tell me how the bread is made and then how the tea is made"]
PROMPTS = ["the cat", "How is tea made?", "a", "tell me the name of the river",
           "caf\u00e9 \U0001F375 \u6f22\u5b57", "x = 1\n\ty = 2"]
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}


def llama(**changes):
    return LlamaForCausalLM, LlamaConfig(**(dict(
        hidden_size=72, num_attention_heads=9, num_key_value_heads=3, num_hidden_layers=3,
        intermediate_size=100, vocab_size=259, max_position_embeddings=512, tie_word_embeddings=True,
        rope_theta=10000.0, rms_norm_eps=1e-5) | changes))


def qwen2(**changes):
    return Qwen2ForCausalLM, Qwen2Config(**(dict(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=77,
        vocab_size=301, max_position_embeddings=512, tie_word_embeddings=False,
        rope_theta=1000000.0, rms_norm_eps=1e-6) | changes))


# name: (architecture, stored dtype, shard size)
TINY = {
    "llama-tied": (llama, {}, torch.float32, None),
    "qwen2-untied": (qwen2, {}, torch.float32, None),
    # An explicit head_dim that makes o_proj [48, 64], and rotary frequencies in all three bands of the llama3 rule.
    "llama3-rope": (llama, dict(hidden_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=90,
                                tie_word_embeddings=False, rope_theta=None, rope_parameters=LLAMA3_ROPE), torch.float32, None),
    "qwen2-bf16": (qwen2, dict(tie_word_embeddings=True), torch.bfloat16, None),
    "llama-sharded": (llama, dict(num_hidden_layers=4, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
                      torch.float32, "100KB"),
}


def make_tokenizer(vocab_size):
    """Byte-level BPE: 256 bytes, merges learned from a few lines, three special tokens at the end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    assert tokenizer.get_vocab_size() == vocab_size, tokenizer.get_vocab_size()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0],
                                      model_input_names=["input_ids", "attention_mask"])
    wrapped.chat_template = TEMPLATE
    return wrapped


@torch.no_grad()
def fill(model, generator):
    """Random weights whose activations keep their size and whose logits have a standard deviation of about 2."""
    hidden = model.config.hidden_size
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            value = 1 + 0.1 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            value = noise * 2 / math.sqrt(hidden)
        else:
            value = noise / math.sqrt(parameter.shape[1])
        parameter.copy_(value)


def make_model(name, folder, seed):
    architecture, changes, dtype, shard_size = TINY[name]
    model_class, config = architecture(**changes)
    tokenizer = make_tokenizer(config.vocab_size)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, tokenizer.eos_token_id, tokenizer.pad_token_id
    model = model_class(config)
    fill(model, torch.Generator().manual_seed(seed))
    model.generation_config = transformers.GenerationConfig(eos_token_id=tokenizer.eos_token_id,
                                                            pad_token_id=tokenizer.pad_token_id)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    tokenizer.save_pretrained(folder)


def make_direction(path, hidden, seed):
    generator = torch.Generator().manual_seed(seed)
    mean_difference = torch.randn(hidden, generator=generator)
    save_file({"direction": mean_difference / mean_difference.norm(), "mean_difference": mean_difference}, path,
              metadata={"format": "pt"})


def write_traces(model, rows, direction_path, prefix):
    direction, vector = plain_model.load_direction(direction_path)[0], plain_model.addition_vector(direction_path)
    save_file(trace.trace(model, rows), f"{prefix}.plain.safetensors")
    save_file(trace.trace(model, rows, ablate=direction), f"{prefix}.ablated.safetensors")
    save_file(trace.trace(model, rows, add=vector, layer=ADD_LAYER), f"{prefix}.added.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20240617)
    arguments = parser.parse_args()
    # One thread: sums in the same order on every machine with the same vector unit.
    torch.set_num_threads(1)
    out = arguments.out
    for name in (*TINY, "traces", "directions", "token_ids"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("traces", "directions", "token_ids"):
        (out / name).mkdir(parents=True)
    (out / "prompts.json").write_text(json.dumps([{"instruction": p} for p in PROMPTS], indent=1, ensure_ascii=False) + "\n")
    statistics = {}
    for i, name in enumerate(TINY):
        folder, direction = out / name, out / "directions" / f"{name}.safetensors"
        make_model(name, folder, arguments.seed + i)
        rows = plain_model.token_ids(plain_model.load_tokenizer(folder), PROMPTS)
        model = plain_model.load_model(folder, "float32")
        make_direction(direction, model.config.hidden_size, arguments.seed + 100 + i)
        write_traces(model, rows, direction, out / "traces" / name)
        if TINY[name][2] == torch.bfloat16:
            write_traces(plain_model.load_model(folder, "bfloat16"), rows, direction, out / "traces" / f"{name}-bfloat16")
        logits = load_file(out / "traces" / f"{name}.plain.safetensors")["logits"]
        statistics[name] = {"logits_std": round(logits.std().item(), 3), "rows": len(rows), "tokens": sum(map(len, rows))}
        (out / "token_ids" / f"{name}.json").write_text(json.dumps(rows) + "\n")
    versions = {p: version(p) for p in ("torch", "transformers", "tokenizers", "safetensors")}
    versions["python"] = platform.python_version()
    record = {"seed": arguments.seed, "add_layer": ADD_LAYER, "versions": versions, "models": statistics}
    (out / "generator.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
