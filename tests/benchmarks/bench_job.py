"""Collect and select of a job: Bearing against the plain implementation on transformers, on the same candidates, and what each
of Bearing's savings brings."""

import json
import os
import subprocess
import sys

import measure
from measure import PROMPTS, ROOT

HERE = ROOT / "tests/benchmarks"
COLUMNS = ["model", "dtype", "candidates", "work", "transformers logits", "bearing s", "transformers s", "ratio"]


def add_arguments(parser):
    parser.add_argument("--layers", default="6,12,18")
    parser.add_argument("--positions", default="-1,-2")
    parser.add_argument("--train", type=int, default=32, help="prompts a side")
    parser.add_argument("--validation", type=int, default=16, help="prompts a side")
    parser.add_argument("--logits", default="all,last", help="what the baseline computes: every position's logits, or the last's")
    parser.add_argument("--token-ids", default="40,2121")
    parser.add_argument("--induce-min", type=float, default=0, help="lower it for a model that does not refuse")
    parser.add_argument("--baseline-layers", help="the baseline scores these only, and its time counts times all / these: its passes "
                        "cost the same for every candidate")
    parser.add_argument("--baseline-positions", help="the same")
    parser.add_argument("--no-complete", action="store_true", help="leave out Bearing's complete table")
    parser.add_argument("--tensor-parallel", type=int, help="ranks of a copy of the model; the rest are copies")
    parser.add_argument("--prune-layers", type=float, default=0.2, help="last share of the layers that cannot be chosen")


def merged_prompts(folder, side, a):
    """train + validation in one list, as the baseline wants them."""
    path = folder / f"{side}.json"
    rows = []
    for part, count in (("train", a.train), ("validation", a.validation)):
        rows += json.loads((PROMPTS / f"{side}_{part}.json").read_text())[:count]
    path.write_text(json.dumps(rows))
    return path


def bearing(a, model, folder, complete):
    out = folder / f"out-{complete}"
    job = {"apiVersion": "bearing/v1", "kind": "Job", "name": "bench", "model": {"path": str(model), "dtype": a.dtype},
           "concept": {"name": "refusal", "token_ids": [int(t) for t in a.token_ids.split(",")]},
           "prompts": {name: {part: {"file": str(PROMPTS / f"{side}_{part}.json"), "count": count}
                              for part, count in (("train", a.train), ("validation", a.validation), ("test", 1))}
                       for name, side in (("positive", "harmful"), ("negative", "harmless"))},
           "collect": {"filter": False},
           "select": {"complete": complete, "layers": [int(x) for x in a.layers.split(",")],
                      "positions": [int(x) for x in a.positions.split(",")], "prune_layers": 0},
           "evaluate": {"skip": True}, "edit": {"skip": True}, "output": str(out), "ranks": a.threads}
    if a.tensor_parallel:
        job["tensor_parallel"] = a.tensor_parallel
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
                    "--validation-count", str(a.validation), f"--layers={a.baseline_layers or a.layers}",
                    f"--positions={a.baseline_positions or a.positions}",
                    "--dtype", a.dtype, "--threads", str(a.threads), "--batch-sizes", a.batch_sizes, "--phases", "collect,select",
                    "--logits", a.logits,
                    "--out", out], check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def savings(context, model):
    rows = measure.write_json(context.work / "rows.json", measure.chat_rows(model, min(16, context.prompts), *context.lengths))
    env = dict(os.environ, OMP_NUM_THREADS=str(context.threads))
    done = subprocess.run([context.bin / "savings", model, rows, "3"], check=True, stdout=subprocess.PIPE, env=env)
    return json.loads(done.stdout)


def choice(candidates, kl_max, a, num_layers):
    """The paper's rule on a complete table."""
    passing = [c for c in candidates if c["kl"] is not None and c["bypass"] is not None and c["kl"] <= kl_max
               and c["induce"] >= a.induce_min and c["layer"] < int(num_layers * (1 - a.prune_layers))]
    best = min(passing, key=lambda c: c["bypass"], default=None)
    return best and {"layer": best["layer"], "position": best["position"]}


def run(context):
    table = measure.Table("job", COLUMNS)
    for folder in context.models:
        for dtype in context.dtypes:
            for row in compare(context, folder, dtype):
                table.add(**row)
    return [table]


def compare(context, model, dtype):
    a, folder = context.job, context.work / f"job-{model.name}-{dtype}"
    folder.mkdir()
    a.threads, a.dtype, a.bin, a.batch_sizes = context.threads, dtype, context.bin, ",".join(map(str, context.batch_sizes))
    plain = baseline(a, model, folder)
    cheap, fast = bearing(a, model, folder, False)
    every, full = (None, fast) if a.no_complete else bearing(a, model, folder, True)
    phases = plain["phases"]
    ours = {(c["position"], c["layer"]): c for c in full["candidates"]}
    kl_max = fast["rule"]["kl_max"]
    scored = len(phases["select"]["candidates"])
    times = len(ours) / scored
    pick = fast["candidates"][fast["selected"]]
    shared = {"model": model.name, "dtype": dtype, "candidates": len(full["candidates"]), "train": a.train,
              "validation": a.validation, "kl_max": kl_max,
              "scored by transformers": scored,
              "chosen": {"transformers": choice(phases["select"]["candidates"], kl_max, a, full["num_layers"]),
                         "complete": every and choice(full["candidates"], kl_max, a, full["num_layers"]),
                         "cheap tests first": {"layer": pick["layer"], "position": pick["position"]}},
              "largest score difference": max(abs(p[k] - ours[p["position"], p["layer"]][k])
                                              for p in phases["select"]["candidates"] for k in ("induce", "kl", "bypass")
                                              if ours[p["position"], p["layer"]][k] is not None)}
    for logits in a.logits.split(","):
        collect, select = phases["collect"][logits]["seconds"], phases["select"][logits]["seconds"] * times
        for work, seconds, theirs in (("collect", cheap["collect"], collect), ("select complete", every and every["select"], select),
                                      ("select, cheap tests first", cheap["select"], select),
                                      ("collect and select", cheap["collect"] + cheap["select"], collect + select)):
            if seconds is None:
                continue
            yield shared | {"work": work, "transformers logits": logits, "bearing s": seconds, "transformers s": theirs,
                            "ratio": theirs / seconds}


def run_savings(context):
    table = measure.Table("savings", ["model", "saving", "without it"])
    for folder in context.models:
        for name, times in savings(context, folder).items():
            if isinstance(times, float) and name != "ablation_seconds":
                table.add(**{"model": folder.name, "saving": name.replace("_", " "), "without it": times})
    return [table]
