#!/usr/bin/env python3
"""Bearing against transformers on published models: token ids under the chat template, fp32 residuals of every layer, logits.

    real_models.py --bin build/bin --models DIR [--only NAME ...] [--ranks 1,2]

Prints the table of docs/parity.md: the worst relative error (max|a - b| / max|b| of a vector) over all prompts, layers and
positions read. The models are those of scripts/make_demo_model.py.
"""

import os

# Before torch is loaded: its threads must not spin on cores that the programs under test need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

import compare
import plain_model
import trace

NAMES = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "gemma3-270m-base")
TOLERANCE = 1e-4
LONG = "Count the steps and then say which one comes last. " + " ".join(f"Step {i}: fold the paper {i + 2} times." for i in range(60))
PROMPTS = ["How is tea made?", "\u00c9cris une phrase sur la mer \U0001F30A.", "x = 12345\n\tprint(x)  # what is shown?",
           "\u6f22\u5b57\u3092\u4e09\u3064\u66f8\u3044\u3066\u304f\u3060\u3055\u3044\u3002", LONG]
# For a base model, which has none: so that its tokenizer is compared too. Of the form of its instructed sisters.
TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\\n' + message['content'] | trim"
            " + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}")


def with_template(folder, work):
    """The folder, or links to its files with a template beside them."""
    if (folder / "chat_template.jinja").exists() or "chat_template" in (folder / "tokenizer_config.json").read_text():
        return folder
    linked = work / folder.name
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file.resolve())
    (linked / "chat_template.jinja").write_text(TEMPLATE)
    return linked


class RealModel:
    """A model's traces from transformers, made once; transformers' copy of the weights is gone when Bearing runs."""

    def __init__(self, folder, work, bin_):
        self.folder, self.work, self.bin = with_template(Path(folder), work), work, bin_
        self.prompts = work / "prompts.json"
        self.prompts.write_text(json.dumps(PROMPTS))
        model, tokenizer = plain_model.load_model(self.folder), plain_model.load_tokenizer(self.folder)
        rows = plain_model.token_ids(tokenizer, PROMPTS)
        plain = trace.trace(model, rows)
        # A direction of the size that real mean differences have.
        layer = model.config.num_hidden_layers // 2
        difference = (plain["residual"][1, layer] - plain["residual"][0, layer]).contiguous()
        self.direction = work / "direction.safetensors"
        save_file({"direction": difference / difference.norm(), "mean_difference": difference}, self.direction)
        self.expected = {"plain": plain, "ablated": trace.trace(model, rows, ablate=plain_model.load_direction(self.direction)[0])}

    def trace(self, kind, ranks):
        out = self.work / f"{kind}-{ranks}.safetensors"
        arguments = ["--ablate", self.direction] if kind == "ablated" else []
        subprocess.run([self.bin / "bearing", "trace", "--model", self.folder, "--prompts", self.prompts, "--out", out, "--ranks",
                        str(ranks), "--threads", "1", *arguments], check=True, capture_output=True, text=True)
        return load_file(out)

    def errors(self, kind, ranks):
        """{"residual": worst relative error, "logits": ...}; token ids that differ make it infinite."""
        found = compare.compare_traces(self.trace(kind, ranks), self.expected[kind])
        return {entry["tensor"]: entry["error"] for entry in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--ranks", default="1,2")
    a = parser.parse_args()
    print("| model | layers | longest prompt | ranks | residuals | logits | residuals, ablated | logits, ablated |\n" + "|---" * 8 + "|")
    for name in a.only:
        if not (a.models / name / "config.json").exists():
            print(f"| {name} | not in {a.models} |" + " |" * 6)
            continue
        with tempfile.TemporaryDirectory(prefix="bearing-parity-") as work:
            model = RealModel(a.models / name, Path(work), a.bin.resolve())
            plain = model.expected["plain"]
            for ranks in map(int, a.ranks.split(",")):
                plain_error, ablated = model.errors("plain", ranks), model.errors("ablated", ranks)
                cells = [name, plain["residual"].shape[1] - 1, plain["lengths"].max().item(), ranks,
                         *(f"{e:.1e}" for e in (plain_error["residual"], plain_error["logits"], ablated["residual"],
                                                ablated["logits"]))]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
