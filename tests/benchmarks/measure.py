"""What the sections of scripts/bench share: prompts, rounds in turn, medians, tables, and facts about the machine."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/oracle"))

PROMPTS = ROOT / "examples/prompts/refusal"


class Table:
    """Rows as they are measured, for people and for programs."""

    def __init__(self, title, columns):
        self.title, self.columns, self.rows = title, columns, []

    def add(self, **row):
        """`row` may hold more than the columns: JSON gets all of it."""
        self.rows.append(row)
        shown = ", ".join(f"{name} {cell(row[name])}" for name in self.columns)
        print(f"{self.title}: {shown}", file=sys.stderr, flush=True)

    def markdown(self):
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(cell(row[name]) for name in self.columns) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def json(self):
        return {"title": self.title, "rows": self.rows}


def cell(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def in_turn(rounds, *works):
    """Each of `works` once a round, one after the other, so that a change of the machine's pace meets all. Lists of results."""
    results = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, results):
            found.append(work())
    return results


def median_seconds(results, clock="seconds"):
    return statistics.median(result[clock] for result in results)


def ratio(ours, theirs, clock="seconds"):
    """How many times as fast the first is. On a machine that others use too, `cpu_seconds` of one thread say more than the wall
    clock; of several threads they count what waiting threads spin away."""
    return median_seconds(theirs, clock) / median_seconds(ours, clock)


def timed(work):
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu, "result": result}


def chat_rows(folder, count, shortest, longest):
    """Token ids of the first `count` demo prompts, harmful and harmless in turn, whose length under the model's template lies
    within the bounds."""
    import plain_model
    sides = [[text for part in ("train", "validation", "test")
              for text in plain_model.load_instructions(PROMPTS / f"{side}_{part}.json")] for side in ("harmful", "harmless")]
    texts = [text for pair in zip(*sides) for text in pair]
    rows = plain_model.token_ids(plain_model.load_tokenizer(folder), texts)
    rows = [row for row in rows if shortest <= len(row) <= longest][:count]
    if len(rows) < count:
        raise SystemExit(f"{folder}: {len(rows)} demo prompts have {shortest} to {longest} tokens, expected {count}")
    return rows


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def first_line(path, key):
    for line in Path(path).read_text().splitlines() if Path(path).exists() else ():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return ""


def machine():
    def git(*arguments):
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    flags = first_line("/proc/cpuinfo", "flags").split()
    return {"processor": first_line("/proc/cpuinfo", "model name") or platform.processor(), "cores": os.cpu_count(),
            "instructions": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
            "memory": first_line("/proc/meminfo", "MemTotal"), "commit": git("rev-parse", "--short", "HEAD"),
            "changed_since": bool(git("status", "--porcelain", "--untracked-files=no")), "load": os.getloadavg()[0],
            "date": time.strftime("%Y-%m-%d"),
            "versions": {"python": platform.python_version()} | {p: version(p) for p in ("torch", "transformers")}}
