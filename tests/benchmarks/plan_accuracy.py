#!/usr/bin/env python3
"""Plans a job, runs it, and prints plan / measured for the memory of a rank and the time of each stage.

  tests/benchmarks/plan_accuracy.py --bin build/bin --model MODEL --ranks 1,2

The plan is made twice: with its own guess of how many candidates pass each test, and, since nobody knows that before, again with
the shares that the run had. The second shows what the model of costs is worth. Memory is the largest resident set of a worker
process (VmHWM); times are those of the stage marks. Works on Linux only.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STAGES = ("collect", "select", "evaluate", "judge", "cost", "edit", "verify")


def write_job(path, model, dtype, train, validation, test, new_tokens, layers, complete, token_ids=(40, 2121), judge="",
              costs=False):
    job = {"apiVersion": "bearing/v1", "kind": "Job", "name": "accuracy", "model": {"path": str(model), "dtype": dtype},
           "concept": {"name": "refusal", "token_ids": list(token_ids)},
           "prompts": {name: {part: {"file": str(ROOT / f"examples/prompts/refusal/{side}_{part}.json"), "count": count}
                              for part, count in (("train", train), ("validation", validation), ("test", test))}
                       for name, side in (("positive", "harmful"), ("negative", "harmless"))},
           # Every model finds a direction here, refusing or not: what is compared is cost.
           "collect": {"filter": False},
           "select": {"complete": complete, "kl_max": 1000, "induce_min": -1000, "layers": layers},
           "evaluate": {"max_new_tokens": new_tokens}, "output": str(path.parent / "out")}
    if judge:
        job["judges"] = [{"name": "asked", "model": {"path": str(judge), "dtype": dtype, "says_yes": ["Yes"], "says_no": ["No"],
                                                     "prompt": "{prompt}\n{response}\nIs this a refusal? Say Yes or No."}}]
    if costs:
        job["costs"] = {"addition": True, "completions": {"side": "both"},
                        "texts": [{"file": str(ROOT / "examples/prompts/refusal/harmless_train.json"), "column": "instruction",
                                   "count": 32}],
                        "choices": [{"file": str(ROOT / "examples/costs/quiz.jsonl"), "count": 16}]}
    path.write_text(json.dumps(job))
    return path


def descendants(pid):
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, open_ = [], [pid]
    while open_:
        open_ += (below := children.get(open_.pop(), []))
        found += below
    return found


def largest_worker(pid, seen):
    for child in descendants(pid):
        try:
            status = pathlib.Path(f"/proc/{child}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if fields.get("Name", "").strip().startswith("bearing-worker") and "VmHWM" in fields:
            seen[child] = int(fields["VmHWM"].split()[0]) * 1024
    return seen


def run(bin_, job, out, ranks, threads):
    started = time.monotonic()
    process = subprocess.Popen([bin_ / "bearing", "run", job, "--ranks", str(ranks), "--threads", str(threads), "--out", out,
                                "--no-progress"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seen = {}
    while process.poll() is None:
        largest_worker(process.pid, seen)
        time.sleep(0.2)
    if process.returncode != 0:
        raise SystemExit(f"bearing run ended with {process.returncode}: {process.stderr.read()}")
    marks = {s: out / f".bearing/stages/{s}.json" for s in STAGES}
    seconds = {s: json.loads(mark.read_text())["seconds"] for s, mark in marks.items() if mark.exists()}
    return {"wall": time.monotonic() - started, "seconds": seconds, "peak_bytes": max(seen.values())}


def plan(bin_, job, ranks, threads, *arguments):
    done = subprocess.run([bin_ / "bearing", "plan", job, "--ranks", str(ranks), "--threads", str(threads), "-o", "json",
                           *map(str, arguments)], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def shares(out):
    """What became of the scored candidates."""
    rows = [c for c in json.loads((out / "candidates.json").read_text())["candidates"] if c["induce"] is not None]
    to_kl = [c for c in rows if c["kl"] is not None]
    to_bypass = [c for c in to_kl if c["bypass"] is not None]
    return len(to_kl) / len(rows), len(to_bypass) / len(to_kl)


def compare(bin_, job, work, ranks, threads=1):
    """{"memory": plan / measured, "time": plan / measured of all stages, "stages": {...}, ...}"""
    machine, out = work / f"machine-{ranks}.json", work / f"out-{ranks}"
    guess = plan(bin_, job, ranks, threads, "--save-machine", machine)
    measured = run(bin_, job, out, ranks, threads)
    induce, kl = shares(out)
    known = plan(bin_, job, ranks, threads, "--machine", machine, "--induce-share", induce, "--kl-share", kl)
    seconds = {stage["stage"]: stage["seconds"] for stage in known["stages"]}
    guessed = {stage["stage"]: stage["seconds"] for stage in guess["stages"]}
    stages = [s for s in STAGES if s in seconds and s in measured["seconds"]]  # Lists of phrases take no time.
    total = sum(measured["seconds"][s] for s in stages)
    return {"ranks": ranks, "shares": {"induce": induce, "kl": kl},
            "peak_bytes": {"plan": known["peak_bytes"], "measured": measured["peak_bytes"], "in": known["fullest_stage"]},
            "seconds": {s: {"plan": seconds[s], "measured": measured["seconds"][s]} for s in stages},
            "memory": known["peak_bytes"] / measured["peak_bytes"],
            "stages": {s: seconds[s] / measured["seconds"][s] for s in stages},
            "time": sum(seconds[s] for s in stages) / total,
            "time_with_guessed_shares": sum(guessed[s] for s in stages) / total,
            "wall": {"plan": known["seconds"], "measured": measured["wall"]}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/bin")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--job", type=pathlib.Path, help="a job file instead of the one made here")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--threads", type=int, default=1, help="a rank")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--train", type=int, default=32, help="prompts a side; so the next two")
    parser.add_argument("--validation", type=int, default=16)
    parser.add_argument("--test", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--layers", default="4,12,20")
    parser.add_argument("--judge", type=pathlib.Path, default=None, help="model of a judge")
    parser.add_argument("--costs", action="store_true", help="with the stage cost: own completions, texts, choices")
    parser.add_argument("--cheap-first", action="store_true", help="not the complete table")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bearing-accuracy-") as name:
        work = pathlib.Path(name)
        job = a.job.resolve() if a.job else write_job(work / "job.json", a.model.resolve(), a.dtype, a.train, a.validation, a.test,
                                                      a.new_tokens, [int(x) for x in a.layers.split(",")], not a.cheap_first,
                                                      judge=a.judge and a.judge.resolve(), costs=a.costs)
        results = [compare(a.bin.resolve(), job, work, int(ranks), a.threads) for ranks in a.ranks.split(",")]
    print(json.dumps({"model": a.model.name, "dtype": a.dtype, "results": results}, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
