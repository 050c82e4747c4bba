#!/usr/bin/env python3
"""A plain implementation, with transformers, of the collect and select phases of Arditi et al. 2024 (arXiv 2406.11717).

    refusal_direction.py --model DIR --positive-train F --negative-train F --positive-validation F --negative-validation F
        --token-ids 40,2121 [--train-count 128] [--validation-count 32] [--dtype float32] [--layers 10-18] [--positions=-1,-2]
        [--no-filter] [--out DIR]

Prints JSON with the seconds of each phase and, with --out, writes candidates.json ({"num_layers", "num_positions",
"candidates": [{"position", "layer", "norm", "induce", "kl", "bypass"}]}) and means.safetensors (positive_mean, negative_mean,
mean_difference [P, L, d], float64).
"""

import argparse
import json
import math
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import plain_model


class Runner:
    """Forward passes over left-padded batches of one model."""

    def __init__(self, model, pad_id, batch_size=32, last_logits_only=False):
        self.model = model
        self.pad_id = pad_id
        self.batch_size = batch_size
        self.keep = {"logits_to_keep": 1} if last_logits_only else {}

    def forward(self, batch):
        ids, mask = plain_model.left_padded(batch, self.pad_id)
        return self.model(input_ids=ids, attention_mask=mask, use_cache=False, **self.keep).logits

    @torch.inference_mode()
    def last_logits(self, rows):
        return torch.cat([self.forward(batch)[:, -1].double() for batch in plain_model.batches(rows, self.batch_size)])

    @torch.inference_mode()
    def mean_inputs(self, rows, positions):
        """Mean over rows of every block's input at the last positions: [P, L, d], summed in float64."""
        blocks = plain_model.blocks_of(self.model)
        sums = torch.zeros(positions, len(blocks), self.model.config.hidden_size, dtype=torch.float64)

        def keep(layer):
            def hook(_, args):  # Returns nothing: what a hook returns would replace the input.
                sums[:, layer] += args[0][:, -positions:].double().sum(0)
            return hook

        with plain_model.hooked([b.register_forward_pre_hook(keep(i)) for i, b in enumerate(blocks)]):
            for batch in plain_model.batches(rows, self.batch_size):
                self.forward(batch)
        return sums / len(rows)


def metric(logits, token_ids):
    """log P(tokens) - log(1 - P(tokens)) of each row, stored as float32."""
    p = logits.softmax(-1)[:, token_ids].sum(-1)
    return (torch.log(p + 1e-8) - torch.log(1 - p + 1e-8)).float()


def divergence(baseline, changed):
    """KL of each row, with the paper's epsilon."""
    a, b = baseline.softmax(-1), changed.softmax(-1)
    return (a * (torch.log(a + 1e-6) - torch.log(b + 1e-6))).sum(-1)


def keep_right_side(runner, rows, token_ids, sign):
    """The filter: positive prompts with metric > 0 (sign 1), negative ones with metric < 0 (sign -1)."""
    values = metric(runner.last_logits(rows), token_ids).tolist()
    return [row for row, value in zip(rows, values) if sign * value > 0]


def collect(runner, positive, negative, positions):
    positive_mean = runner.mean_inputs(positive, positions)
    negative_mean = runner.mean_inputs(negative, positions)
    return {"positive_mean": positive_mean, "negative_mean": negative_mean, "mean_difference": positive_mean - negative_mean}


def score(runner, direction, layer, positive, negative, negative_baseline, token_ids):
    """One candidate: bypass and KL under ablation, induce under addition at its layer."""
    with plain_model.ablated(runner.model, direction):
        bypass = metric(runner.last_logits(positive), token_ids).mean().item()
        kl = divergence(negative_baseline, runner.last_logits(negative)).mean().item()
    with plain_model.added(runner.model, direction, layer):
        induce = metric(runner.last_logits(negative), token_ids).mean().item()
    return {"induce": induce, "kl": kl, "bypass": bypass}


def select(runner, differences, positive, negative, token_ids, positions=None, layers=None, progress=None):
    """Scores of every candidate, in table order: positions -P..-1, layers 0..L-1 within each."""
    num_positions, num_layers, _ = differences.shape
    negative_baseline = runner.last_logits(negative)
    wanted = [(p, l) for p in range(-num_positions, 0) for l in range(num_layers)
              if (not positions or p in positions) and (not layers or l in layers)]
    candidates = []
    for position, layer in wanted:
        direction = differences[position, layer]
        entry = {"position": position, "layer": layer, "norm": direction.norm().item()}
        entry |= score(runner, direction, layer, positive, negative, negative_baseline, token_ids)
        candidates.append(entry)
        if progress:
            progress(entry)
    return candidates


def best(candidates, num_layers, kl_max=0.1, induce_min=0.0, prune_layers=0.2):
    """The paper's rule; None when nothing passes."""
    kept = [c for c in candidates
            if not any(map(math.isnan, (c["induce"], c["kl"], c["bypass"])))
            and c["layer"] < int(num_layers * (1 - prune_layers)) and c["kl"] <= kl_max and c["induce"] >= induce_min]
    return min(kept, key=lambda c: c["bypass"]) if kept else None


def numbers(text):
    """"3,5-7,-1" -> [3, 5, 6, 7, -1]"""
    found = []
    for part in text.split(","):
        begin, dash, end = part.partition("-") if not part.startswith("-") else (part, "", "")
        found += range(int(begin), int(end) + 1) if dash else [int(begin)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    for name in ("positive-train", "negative-train", "positive-validation", "negative-validation"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--train-count", type=int, default=0, help="0 = all")
    parser.add_argument("--validation-count", type=int, default=0, help="0 = all")
    parser.add_argument("--system")
    parser.add_argument("--token-ids", type=numbers, required=True, help="tokens of the metric, e.g. 40,2121")
    parser.add_argument("--no-filter", action="store_true")
    parser.add_argument("--layers", type=numbers)
    parser.add_argument("--positions", type=numbers)
    parser.add_argument("--dtype", choices=list(plain_model.DTYPES), default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--last-logits-only", action="store_true", help="compute logits at the last position only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model, tokenizer = plain_model.load_model(arguments.model, arguments.dtype), plain_model.load_tokenizer(arguments.model)
    runner = Runner(model, tokenizer.pad_token_id, arguments.batch_size, arguments.last_logits_only)

    def rows(file, count):
        return plain_model.token_ids(tokenizer, plain_model.load_instructions(file, count), arguments.system)

    train = [rows(arguments.positive_train, arguments.train_count), rows(arguments.negative_train, arguments.train_count)]
    validation = [rows(arguments.positive_validation, arguments.validation_count),
                  rows(arguments.negative_validation, arguments.validation_count)]
    started = time.perf_counter()
    if not arguments.no_filter:
        train = [keep_right_side(runner, side, arguments.token_ids, sign) for side, sign in zip(train, (1, -1))]
        validation = [keep_right_side(runner, side, arguments.token_ids, sign) for side, sign in zip(validation, (1, -1))]
    counts = {"train": list(map(len, train)), "validation": list(map(len, validation))}
    if not all(map(len, train + validation)):
        raise SystemExit(f"the filter left nothing on one side: {counts}")
    filtered = time.perf_counter()
    positions = plain_model.num_positions(tokenizer, arguments.system)
    means = collect(runner, *train, positions)
    collected = time.perf_counter()
    progress = None if arguments.quiet else lambda c: print(json.dumps(c), file=sys.stderr, flush=True)
    candidates = select(runner, means["mean_difference"], *validation, arguments.token_ids, arguments.positions,
                        arguments.layers, progress)
    selected = time.perf_counter()
    num_layers = len(plain_model.blocks_of(model))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        table = {"num_layers": num_layers, "num_positions": positions, "candidates": candidates}
        (arguments.out / "candidates.json").write_text(json.dumps(table, indent=1) + "\n")
        save_file(means, arguments.out / "means.safetensors", metadata={"format": "pt"})
    baseline = {name: metric(runner.last_logits(side), arguments.token_ids).mean().item()
                for name, side in zip(("positive", "negative"), validation)}
    print(json.dumps({
        "dtype": arguments.dtype, "threads": torch.get_num_threads(), "batch_size": arguments.batch_size,
        "last_logits_only": arguments.last_logits_only, "num_layers": num_layers, "num_positions": positions, "kept": counts,
        "baseline_metric": baseline, "num_candidates": len(candidates), "best": best(candidates, num_layers),
        "seconds": {"filter": filtered - started, "collect": collected - filtered, "select": selected - collected},
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
