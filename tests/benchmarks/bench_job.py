#!/usr/bin/env python3
"""Runs Bearing and the plain transformers baseline on the same work in turn and prints the ratios. See scripts/bench."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, help="default: the refusing demo model, else SmolLM2")
    parser.add_argument("--layers", default="6,12,18")
    parser.add_argument("--positions", default="-1,-2")
    parser.add_argument("--train", type=int, default=32, help="prompts a side")
    parser.add_argument("--validation", type=int, default=16, help="prompts a side")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--logits", default="all,last", help="what the baseline computes: every position's logits, or the last's only")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-sizes", default="16,32")
    parser.add_argument("--token-ids", default="40,2121")
    parser.add_argument("--induce-min", type=float, default=0, help="lower it for a model that does not refuse")
    parser.add_argument("--prune-layers", type=float, default=0.2, help="last share of the layers that cannot be chosen")
    parser.add_argument("--skip-savings", action="store_true")
    return parser.parse_args()


def merged_prompts(folder, side, a):
    """train + validation in one list, as the baseline wants them."""
    path = folder / f"{side}.json"
    rows = []
    for part, count in (("train", a.train), ("validation", a.validation)):
        rows += json.loads((ROOT / f"examples/prompts/refusal/{side}_{part}.json").read_text())[:count]
    path.write_text(json.dumps(rows))
    return path


def bearing(a, model, folder, complete):
    out = folder / f"out-{complete}"
    job = {"apiVersion": "bearing/v1", "kind": "Job", "name": "bench", "model": {"path": str(model), "dtype": a.dtype},
           "concept": {"name": "refusal", "token_ids": [int(t) for t in a.token_ids.split(",")]},
           "prompts": {name: {part: {"file": str(ROOT / f"examples/prompts/refusal/{side}_{part}.json"), "count": count}
                              for part, count in (("train", a.train), ("validation", a.validation), ("test", 1))}
                       for name, side in (("positive", "harmful"), ("negative", "harmless"))},
           "collect": {"filter": False},
           "select": {"complete": complete, "layers": [int(x) for x in a.layers.split(",")],
                      "positions": [int(x) for x in a.positions.split(",")], "prune_layers": 0},
           "evaluate": {"skip": True}, "edit": {"skip": True}, "output": str(out), "ranks": a.threads}
    if complete:
        job["select"].update(kl_max=100, induce_min=-100)
    else:
        job["select"].update(when_none_passes="relax_kl", induce_min=a.induce_min, prune_layers=a.prune_layers)
    file = folder / f"job-{complete}.json"
    file.write_text(json.dumps(job))
    subprocess.run([a.bin / "bearing", "run", file, "--ranks", str(a.threads), "--threads", "1", "--no-progress"], check=True,
                   stdout=subprocess.DEVNULL)
    seconds = {s: json.loads((out / f".bearing/stages/{s}.json").read_text())["seconds"] for s in ("collect", "select")}
    return seconds, json.loads((out / "candidates.json").read_text())


def baseline(a, model, folder):
    out = folder / "plain.json"
    subprocess.run([sys.executable, HERE / "plain_transformers.py", "--model", model, "--positive", merged_prompts(folder, "harmful", a),
                    "--negative", merged_prompts(folder, "harmless", a), f"--token-ids={a.token_ids}", "--train-count", str(a.train),
                    "--validation-count", str(a.validation), f"--layers={a.layers}", f"--positions={a.positions}",
                    "--dtype", a.dtype, "--threads", str(a.threads), "--batch-sizes", a.batch_sizes, "--phases", "collect,select",
                    "--logits", a.logits,
                    "--out", out], check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def savings(a, model, folder):
    ids = folder / "ids.json"
    sys.path.insert(0, str(HERE.parent / "oracle"))
    import plain_model
    tokenizer = plain_model.load_tokenizer(str(model))
    prompts = plain_model.load_instructions(str(ROOT / "examples/prompts/refusal/harmless_validation.json"))[:a.validation]
    ids.write_text(json.dumps([list(map(int, row)) for row in plain_model.token_ids(tokenizer, prompts, None)]))
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    done = subprocess.run([a.bin / "savings", model, ids, "3"], check=True, stdout=subprocess.PIPE, env=env)
    return json.loads(done.stdout)


def choice(candidates, kl_max, a, num_layers):
    """The paper's rule on a complete table."""
    passing = [c for c in candidates if c["kl"] is not None and c["bypass"] is not None and c["kl"] <= kl_max
               and c["induce"] >= a.induce_min and c["layer"] < int(num_layers * (1 - a.prune_layers))]
    best = min(passing, key=lambda c: c["bypass"], default=None)
    return best and {"layer": best["layer"], "position": best["position"]}


def main():
    a = arguments()
    demo = a.models / "qwen2.5-coder-0.5b-instruct"
    model = (a.model or (demo if demo.exists() else a.models / "smollm2-135m-instruct")).resolve()
    with tempfile.TemporaryDirectory(prefix="bearing-bench-") as name:
        folder = pathlib.Path(name)
        plain = baseline(a, model, folder)
        every, full = bearing(a, model, folder, True)
        cheap, fast = bearing(a, model, folder, False)
        saved = None if a.skip_savings else savings(a, model, folder)
    phases = plain["phases"]
    ratios = {}
    for logits in a.logits.split(","):
        ratios[f"collect, plain with {logits} logits"] = phases["collect"][logits]["seconds"] / every["collect"]
        ratios[f"select complete, plain with {logits} logits"] = phases["select"][logits]["seconds"] / every["select"]
        ratios[f"select cheap first, plain with {logits} logits"] = phases["select"][logits]["seconds"] / cheap["select"]
    ours = {(c["position"], c["layer"]): c for c in full["candidates"]}
    kl_max = fast["rule"]["kl_max"]
    pick = fast["candidates"][fast["selected"]]
    result = {"model": model.name, "dtype": a.dtype, "threads": a.threads, "processor": plain["processor"], "versions": plain["versions"],
              "candidates": len(full["candidates"]), "train": a.train, "validation": a.validation,
              "seconds": {"bearing": every, "bearing cheap first": cheap,
                          "plain": {p: {k: phases[p][k]["seconds"] for k in a.logits.split(",")} for p in ("collect", "select")}},
              "times_as_fast": ratios, "savings": saved, "kl_max": kl_max,
              "chosen": {"plain": choice(phases["select"]["candidates"], kl_max, a, full["num_layers"]), "bearing complete": choice(full["candidates"], kl_max, a, full["num_layers"]),
                         "bearing cheap first": {"layer": pick["layer"], "position": pick["position"]}},
              "largest_score_difference": max(abs(p[k] - ours[p["position"], p["layer"]][k]) for p in phases["select"]["candidates"]
                                              for k in ("induce", "kl", "bypass") if ours[p["position"], p["layer"]][k] is not None)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
