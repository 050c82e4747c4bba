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
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-sizes", default="16,32")
    parser.add_argument("--token-ids", default="40,2121")
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
    sets = [f"model.dtype={a.dtype}", "evaluate.skip=true", "edit.skip=true", "collect.filter=false", f"select.complete={complete}",
            f"select.layers={a.layers}", f"select.positions={a.positions}", "select.kl_max=100", "select.induce_min=-100",
            "select.prune_layers=0", f"concept.token_ids={a.token_ids}"]
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
        job["select"]["when_none_passes"] = "relax_kl"
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
    result = {"model": model.name, "dtype": a.dtype, "threads": a.threads, "plain": plain, "bearing": every, "bearing_cheap_first": cheap,
              "savings": saved, "selected_complete": full["candidates"][full["selected"]],
              "selected_cheap_first": fast["candidates"][fast["selected"]]}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
