#!/usr/bin/env python3
"""Makes tiny random chat models and their golden traces, the same from the same seed and versions.

    make_tiny_models.py --out tests/golden/tiny [--only NAME ...]

Writes, for each model of tiny_families.py, a Hugging Face folder OUT/NAME; OUT/traces/NAME.{plain,ablated,added}.safetensors
from transformers in float32 (and NAME-bfloat16.* for models stored in bfloat16); OUT/directions/NAME.safetensors and
OUT/token_ids/NAME.json; and OUT/prompts.json and OUT/prompts_long.json.
"""

import argparse
import contextlib
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
from transformers import PreTrainedTokenizerFast

import plain_model
import trace
from tiny_families import TINY

ADD_LAYER = 1
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
CORPUS = ["the cat sat on the mat and the dog ran over the hill", "what is the name of the river that runs through the town",
          "tell me how the bread is made and then how the tea is made"]
PROMPTS = ["the cat", "How is tea made?", "a", "tell me the name of the river",
           "caf\u00e9 \U0001F375 \u6f22\u5b57", "x = 1\n\ty = 2"]
PROMPTS_LONG = ["the cat sat on the mat and the dog ran over the hill", "a", "How is the bread made, and then the tea?",
                "caf\u00e9 \U0001F375 x = 1\n\ty = 2"]
PROMPT_FILES = {"prompts.json": PROMPTS, "prompts_long.json": PROMPTS_LONG}
# A mixture of experts jumps where two experts are equally probable; the traces must stay away from there.
SMALLEST_GAP = 1e-3


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
def fill(model, generator, query_gain=1.0, token_classes=False):
    """Random weights whose activations keep their size and whose logits have a standard deviation of about 2.

    `query_gain` spreads the attention scores. `token_classes` gives every token one of E classes and every router a ranking of
    its E experts for each class, so that small differences do not change which experts run.
    """
    hidden = model.config.get_text_config().hidden_size
    gemma = model.config.model_type.startswith("gemma")  # its gains are 1 + w
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            value = 0.3 * noise if gemma else 1 + 0.1 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
            value = noise * 2 / math.sqrt(hidden)
        else:
            value = noise / math.sqrt(parameter.shape[-1])
        if name.endswith("q_proj.weight"):
            value *= query_gain
        parameter.copy_(value)
    if token_classes:
        separate_classes(model)


def separate_classes(model):
    """Token t has class t mod E, marked in coordinate t mod E of its embedding, where the routers look for it."""
    routers = [p for name, p in sorted(model.named_parameters()) if name.endswith(".mlp.gate.weight")]
    experts = len(routers[0])
    embedding = model.get_input_embeddings().weight
    embedding[torch.arange(len(embedding)), torch.arange(len(embedding)) % experts] += 10.0
    ranking = torch.linspace(1.0, -1.0, experts) * (experts - 1) / 12
    for router in routers:
        router *= 0.2
        for token_class in range(experts):
            router[:, token_class] += ranking.roll(token_class)


def make_model(name, folder, seed):
    tiny = TINY[name]
    config = tiny.config()
    text = config.get_text_config()
    tokenizer = make_tokenizer(tiny.tokenizer_size or text.vocab_size)
    for c in (config, text):
        c.bos_token_id, c.eos_token_id, c.pad_token_id = None, tokenizer.eos_token_id, tokenizer.pad_token_id
    model = tiny.model_class(config).eval()
    fill(model, torch.Generator().manual_seed(seed), **tiny.fill)
    model.generation_config = transformers.GenerationConfig(eos_token_id=tokenizer.eos_token_id,
                                                            pad_token_id=tokenizer.pad_token_id)
    model.to(tiny.dtype).save_pretrained(folder, **({"max_shard_size": tiny.shard_size} if tiny.shard_size else {}))
    tokenizer.save_pretrained(folder)
    publish(tiny, model, folder)


def publish(tiny, model, folder):
    """Replaces what transformers saved by what is published, where the two differ, and sees that it means the same."""
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    published = tiny.config_json(saved)
    if published is not saved:
        path.write_text(json.dumps(published, indent=2) + "\n")
    tensors = model.state_dict()
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    renamed = tiny.tensors(tensors)
    if renamed is not tensors:
        renamed = {name: tensor.contiguous() for name, tensor in renamed.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    back, meant = plain_model.load_model(folder, "float32"), tiny.model_class(tiny.config()).eval()
    meant.load_state_dict(model.state_dict())
    meant.set_attn_implementation(back.config._attn_implementation)
    if tiny.fill.get("token_classes"):
        meant.set_experts_implementation("eager")
    row = torch.arange(60)[None] * 4
    with torch.inference_mode():
        difference = (meant(input_ids=row).logits - back(input_ids=row).logits).abs().max().item()
    if difference > 1e-6:
        raise SystemExit(f"{folder}: read back, its logits differ by {difference}")


def make_direction(path, hidden, seed):
    generator = torch.Generator().manual_seed(seed)
    mean_difference = torch.randn(hidden, generator=generator)
    save_file({"direction": mean_difference / mean_difference.norm(), "mean_difference": mean_difference}, path,
              metadata={"format": "pt"})


def traces_of(model, rows, direction_path):
    """The three traces that are kept of a model, by kind."""
    direction, vector = plain_model.load_direction(direction_path)[0], plain_model.addition_vector(direction_path)
    return {"plain": trace.trace(model, rows),
            "ablated": trace.trace(model, rows, ablate=direction),
            "added": trace.trace(model, rows, add=vector, layer=ADD_LAYER)}


def write_traces(model, rows, direction_path, prefix):
    """Returns the smallest gap between the last expert chosen and the first one not, None without experts."""
    with router_gaps(model) as gaps:
        for kind, traced in traces_of(model, rows, direction_path).items():
            save_file(traced, f"{prefix}.{kind}.safetensors")
    return min(gaps, default=None)


@contextlib.contextmanager
def router_gaps(model):
    """A list that fills with the smallest gap of router probabilities of every forward pass of every router."""
    gaps = []

    def keep(router, _, output):
        probabilities = output[0].float().softmax(-1).sort(descending=True).values
        gaps.append((probabilities[:, router.top_k - 1] - probabilities[:, router.top_k]).min().item())

    routers = [module for module in model.modules() if type(module).__name__.endswith("TopKRouter")]
    with plain_model.hooked([router.register_forward_hook(keep) for router in routers]):
        yield gaps


def make(name, out, base_seed):
    """One model with its direction, token ids and traces. Returns its entry of generator.json."""
    tiny, folder, direction = TINY[name], out / name, out / "directions" / f"{name}.safetensors"
    shutil.rmtree(folder, ignore_errors=True)
    make_model(name, folder, base_seed + tiny.seed)
    rows = plain_model.token_ids(plain_model.load_tokenizer(folder), PROMPT_FILES[tiny.prompts])
    model = plain_model.load_model(folder, "float32")
    make_direction(direction, model.config.get_text_config().hidden_size, base_seed + 100 + tiny.seed)
    gaps = [write_traces(model, rows, direction, out / "traces" / name)]
    if tiny.dtype == torch.bfloat16:
        model = plain_model.load_model(folder, "bfloat16")
        gaps.append(write_traces(model, rows, direction, out / "traces" / f"{name}-bfloat16"))
    (out / "token_ids" / f"{name}.json").write_text(json.dumps(rows) + "\n")
    logits = load_file(out / "traces" / f"{name}.plain.safetensors")["logits"]
    entry = {"logits_std": round(logits.std().item(), 3), "rows": len(rows), "tokens": sum(map(len, rows))}
    if tiny.prompts != "prompts.json":
        entry |= {"seed": base_seed + tiny.seed, "prompts": tiny.prompts}
    if gaps[0] is not None:
        entry["smallest_router_gap"] = round(min(gaps), 5)
        if min(gaps) < SMALLEST_GAP:
            raise SystemExit(f"{name}: two experts are {min(gaps)} apart; choose another seed")
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20240617)
    parser.add_argument("--only", nargs="+", choices=list(TINY), metavar="NAME", help="make these and leave the others alone")
    arguments = parser.parse_args()
    # One thread: sums in the same order on every machine with the same vector unit.
    torch.set_num_threads(1)
    out, record_path = arguments.out, arguments.out / "generator.json"
    for name in ("traces", "directions", "token_ids"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for name, prompts in PROMPT_FILES.items():
        (out / name).write_text(json.dumps([{"instruction": p} for p in prompts], indent=1, ensure_ascii=False) + "\n")
    entries = json.loads(record_path.read_text())["models"] if arguments.only and record_path.exists() else {}
    for name in arguments.only or TINY:
        entries[name] = make(name, out, arguments.seed)
        print(name, json.dumps(entries[name]), flush=True)
    versions = {p: version(p) for p in ("torch", "transformers", "tokenizers", "safetensors")}
    versions["python"] = platform.python_version()
    record = {"seed": arguments.seed, "add_layer": ADD_LAYER, "versions": versions,
              "models": {name: entries[name] for name in TINY if name in entries}}
    record_path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
