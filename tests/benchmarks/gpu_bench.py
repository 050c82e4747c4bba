#!/usr/bin/env python3
"""The decoder on a GPU against transformers with SDPA on the same card: see scripts/bench --gpu.

Measures blocks of the shapes of Llama-3-8B and 70B with random weights (a few blocks stand for the model: every block is alike):
prefill in bfloat16 as a share of the card's own peak on square products, greedy decoding at batch 64, and candidates a second
(each through the tests induce, KL and bypass). Both sides run the same numbers of tokens, in rows of equal length.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

SHAPES = {
    "8b": {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "layers": 8},
    "70b": {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672, "layers": 4},
    "tiny": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "layers": 2},
}
WORK = {"device": "cuda", "dtype": "bfloat16", "peak_size": 8192, "prefill_rows": 64, "prefill_tokens": 64, "decode_rows": 64,
        "decode_prompt": 32, "decode_new": 65, "candidates": 32, "candidate_rows": 32, "candidate_tokens": 32, "budget": 4096,
        "repeats": 3}
DRY_WORK = {**WORK, "device": "cpu-aten", "dtype": "float32", "peak_size": 128, "prefill_rows": 2, "prefill_tokens": 8,
            "decode_rows": 2, "decode_prompt": 4, "decode_new": 5, "candidates": 2, "candidate_rows": 2, "candidate_tokens": 6,
            "repeats": 1}


def run_rates(*command):
    """gpu_rates; BEARING_LIBRARIES is where a program that was carried here finds its libraries (scripts/pack_gpu)."""
    environment = dict(os.environ)
    if "BEARING_LIBRARIES" in environment:
        environment["LD_LIBRARY_PATH"] = environment["BEARING_LIBRARIES"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)


def make_model(shape, work):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(SHAPES[shape])
    config = LlamaConfig(vocab_size=8192 if shape != "tiny" else 128, num_hidden_layers=sizes.pop("layers"),
                         max_position_embeddings=4096, tie_word_embeddings=False, attn_implementation="sdpa", **sizes)
    # No row ends by itself, on either side.
    config.eos_token_id = None
    config.bos_token_id = None
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, work["dtype"]))
    with torch.device("cuda" if work["device"] == "cuda" else "cpu"):
        model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


class Transformers:
    """Times the same work as tests/benchmarks/gpu_rates.cc."""

    def __init__(self, model, work):
        import torch

        self.torch, self.model, self.work = torch, model, work
        self.device = next(model.parameters()).device

    def ids(self, rows, tokens):
        return self.torch.randint(0, self.model.config.vocab_size, (rows, tokens), device=self.device)

    def best(self, work):
        best = float("inf")
        for i in range(self.work["repeats"] + 1):
            self.wait()
            started = time.perf_counter()
            with self.torch.inference_mode():
                work()
            self.wait()
            if i > 0:
                best = min(best, time.perf_counter() - started)
        return best

    def wait(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def prefill(self):
        ids = self.ids(self.work["prefill_rows"], self.work["prefill_tokens"])
        return {"tokens_per_s": ids.numel() / self.best(lambda: self.model.model(ids, use_cache=False))}

    def decode(self):
        ids = self.ids(self.work["decode_rows"], self.work["decode_prompt"])

        def seconds(new):
            return self.best(lambda: self.model.generate(ids, attention_mask=self.torch.ones_like(ids), do_sample=False,
                                                         min_new_tokens=new, max_new_tokens=new))

        made = ids.shape[0] * (self.work["decode_new"] - 1)
        return {"rows": ids.shape[0], "tokens_per_s": made / (seconds(self.work["decode_new"]) - seconds(1))}

    def candidates(self):
        """As the paper's reference: three forward passes a candidate, with hooks."""
        layers = self.model.model.layers
        rows, tokens = self.work["candidate_rows"], self.work["candidate_tokens"]
        positive, negative = self.ids(rows, tokens), self.ids(rows, tokens)
        directions = [self.torch.randn(self.model.config.hidden_size, device=self.device) for _ in range(self.work["candidates"])]

        def first_tokens(ids):
            return self.torch.softmax(self.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float(), -1)

        def metric(p):
            chosen = p[:, [1, 2]].sum(-1).double()
            return (self.torch.log(chosen + 1e-8) - self.torch.log(1 - chosen + 1e-8)).mean().item()

        def ablated(direction, ids):
            def hook(module, inputs, output):
                written = output[0] if isinstance(output, tuple) else output
                unit = direction.to(written.dtype)
                written = written - (written @ unit).unsqueeze(-1) * unit
                return (written, *output[1:]) if isinstance(output, tuple) else written

            modules = [self.model.model.embed_tokens] + [m for layer in layers for m in (layer.self_attn, layer.mlp)]
            hooks = [module.register_forward_hook(hook) for module in modules]
            p = first_tokens(ids)
            for handle in hooks:
                handle.remove()
            return p

        def added(direction, layer, ids):
            handle = layers[layer].register_forward_pre_hook(lambda module, inputs: (inputs[0] + direction.to(inputs[0].dtype),
                                                                                     *inputs[1:]))
            p = first_tokens(ids)
            handle.remove()
            return p

        def score():
            base = first_tokens(negative)
            metric(first_tokens(positive))
            for i, direction in enumerate(directions):
                unit = direction / direction.norm()
                metric(added(direction, i % len(layers), negative))
                p = ablated(unit, negative)
                (base * (self.torch.log(base + 1e-6) - self.torch.log(p + 1e-6))).sum(-1).double().mean().item()
                metric(ablated(unit, positive))

        return {"candidates_per_s": len(directions) / self.best(score)}


def measure(shape, work, rates, folder):
    model = make_model(shape, work)
    path = pathlib.Path(folder) / shape
    model.save_pretrained(path)
    baseline = Transformers(model, work)
    plain = {name: getattr(baseline, name)() for name in ("prefill", "decode", "candidates")}
    del baseline, model
    if work["device"] == "cuda":
        import torch
        torch.cuda.empty_cache()
    ours = run_rates(rates, path, json.dumps(work))
    ours.check_returncode()
    return {"shape": shape, "layers": SHAPES[shape]["layers"], "work": work, "bearing": json.loads(ours.stdout), "transformers": plain}


def table(results):
    lines = ["shape  measure               bearing       transformers  ratio"]
    for r in results:
        b, t = r["bearing"], r["transformers"]
        for label, part, key in (("prefill tokens/s", "prefill", "tokens_per_s"), ("decode tokens/s", "decode", "tokens_per_s"),
                                 ("candidates/s", "candidates", "candidates_per_s")):
            ours, theirs = b[part][key], t[part][key]
            lines.append(f"{r['shape']:6} {label:20} {ours:12.1f} {theirs:15.1f} {ours / theirs:8.2f}")
        lines.append(f"{r['shape']:6} prefill is {100 * b['prefill']['share_of_peak']:.1f} % of the measured peak of "
                     f"{b['peak_flops_per_s'] / 1e12:.2f} TFLOP/s ({b['device']}, {b['dtype']}, {r['layers']} blocks)")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--shapes", default="8b,70b", help="of: " + ", ".join(SHAPES))
    parser.add_argument("--dry-run", action="store_true", help="the same at a tiny size on the CPU: shows that it runs, measures nothing")
    a = parser.parse_args()
    rates = a.bin / "gpu_rates"
    if not a.dry_run:
        found = run_rates(rates, "check")
        if found.returncode != 0:
            sys.exit(f"no GPU here: {found.stdout.strip()}")
    shapes = ["tiny"] if a.dry_run else a.shapes.split(",")
    unknown = [shape for shape in shapes if shape not in SHAPES]
    if unknown:
        parser.error(f"--shapes: {unknown[0]} is none of {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(shape, DRY_WORK if a.dry_run else WORK, rates, folder) for shape in shapes]
    print(table(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
