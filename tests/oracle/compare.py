#!/usr/bin/env python3
"""Compares two files of the same kind and prints the worst entry as JSON; exit code 1 when it is out of tolerance.

    compare.py trace A.safetensors B.safetensors [--relative 1e-4]
    compare.py means A.safetensors B.safetensors [--relative 1e-4]
    compare.py candidates A.json B.json [--absolute 1e-3]

The relative error of a vector is max|a - b| / max|b|. Candidates that one side did not score (null) are not compared.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCORES = ("induce", "kl", "bypass")


def relative_errors(a, b):
    """One error per vector (all axes but the last)."""
    a, b = a.double(), b.double()
    difference, scale = (a - b).abs().amax(-1), b.abs().amax(-1)
    # A vector of zeros must be met exactly; a NaN anywhere counts as infinitely wrong.
    errors = torch.where(difference == 0, torch.zeros_like(difference), difference / scale)
    return torch.nan_to_num(errors, nan=math.inf, posinf=math.inf)


def worst_vector(name, a, b):
    if a.shape != b.shape:
        return {"tensor": name, "error": math.inf, "reason": f"shape {list(a.shape)} against {list(b.shape)}"}
    errors = relative_errors(a, b)
    index = int(errors.argmax())
    return {"tensor": name, "error": errors.flatten()[index].item(),
            "at": [int(i) for i in torch.unravel_index(torch.tensor(index), errors.shape)] if errors.ndim else []}


def rows_of_tokens(tensors):
    """Token lists of a trace: padded rows [n, T] or all tokens in one row [sum], with lengths [n]."""
    ids, lengths = tensors["token_ids"].long(), tensors["lengths"].tolist()
    if ids.ndim == 1:
        return [row.tolist() for row in ids.split(lengths)]
    return [row[:length].tolist() for row, length in zip(ids, lengths)]


def compare_traces(a, b):
    found = []
    mine, theirs = rows_of_tokens(a), rows_of_tokens(b)
    if mine != theirs:
        row = next((i for i, (x, y) in enumerate(zip(mine, theirs)) if x != y), f"count: {len(mine)} against {len(theirs)}")
        found.append({"tensor": "token_ids", "error": math.inf, "reason": f"token ids differ, first in row {row}"})
    return found + [worst_vector(name, a[name], b[name]) for name in ("residual", "logits")]


def compare_means(a, b):
    """Differences are small against the means they come from, so their error counts against the means' scale."""
    found = [worst_vector(name, a[name], b[name]) for name in ("positive_mean", "negative_mean")]
    scale = b["positive_mean"].double().abs().amax(-1, keepdim=True)
    difference = (a["mean_difference"].double() - b["mean_difference"].double()).abs() / scale
    found.append({"tensor": "mean_difference", "error": torch.nan_to_num(difference, nan=math.inf).max().item()})
    return found


def compare_candidates(a, b):
    found = [{"field": key, "error": math.inf, "reason": f"{a[key]} against {b[key]}"}
             for key in ("num_layers", "num_positions") if a[key] != b[key]]
    theirs = {(c["position"], c["layer"]): c for c in b["candidates"]}
    compared = 0
    for mine in a["candidates"]:
        other = theirs.get((mine["position"], mine["layer"]))
        for score in SCORES if other else ():
            if mine.get(score) is None or other.get(score) is None:
                continue
            compared += 1
            error = abs(mine[score] - other[score])
            found.append({"position": mine["position"], "layer": mine["layer"], "score": score, "a": mine[score],
                          "b": other[score], "error": math.inf if math.isnan(error) else error})
    if compared == 0:
        found.append({"error": math.inf, "reason": "no candidate is scored in both files"})
    return found


def worst(found):
    return max(found, key=lambda entry: entry["error"])


def compare_files(kind, a, b):
    if kind == "candidates":
        return compare_candidates(*(json.loads(Path(path).read_text()) for path in (a, b)))
    return {"trace": compare_traces, "means": compare_means}[kind](load_file(a), load_file(b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["trace", "means", "candidates"])
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--relative", type=float, default=1e-4)
    parser.add_argument("--absolute", type=float, default=1e-3)
    arguments = parser.parse_args()
    found = compare_files(arguments.kind, arguments.a, arguments.b)
    tolerance = arguments.absolute if arguments.kind == "candidates" else arguments.relative
    entry = worst(found)
    within = entry["error"] <= tolerance
    print(json.dumps({"within": within, "tolerance": tolerance, "worst": entry, "compared": len(found),
                      "errors": {e["tensor"]: e["error"] for e in found if "tensor" in e}}))
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
