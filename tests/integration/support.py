"""What the integration tests share: prompt files, job files, and running the programs."""

import copy
import dataclasses
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/golden/tiny"
BIN = Path(os.environ.get("BEARING_BIN", ROOT / "build/bin"))
SIDES, SETS = ("positive", "negative"), ("train", "validation", "test")
WORDS = "tea river name cat stone light paper cloud bread road music lamp garden winter table glass".split()
# Marks every process of this session, and of one run, in their environment.
MARK = "BEARING_TEST_RUN"
SESSION = uuid.uuid4().hex

sys.path.insert(0, str(ROOT / "tests/oracle"))


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_prompts(folder, counts=(12, 6, 4), words=(2, 5)):
    """SIDE_SET.json for both sides: orders in capitals against questions. All prompts differ."""
    draw, seen = random.Random(7), set()
    for side, begin, change in (("positive", "DO ", str.upper), ("negative", "how is ", str)):
        for name, count in zip(SETS, counts):
            found = []
            while len(found) < count:
                text = begin + change(" ".join(draw.choice(WORDS) for _ in range(draw.randint(*words))))
                if text not in seen:
                    seen.add(text)
                    found.append({"instruction": text, "category": "words"})
            write_json(folder / f"{side}_{name}.json", found)
    return folder


def job_spec(folder, prompts, **changes):
    """A small complete job. Every candidate that can be scored passes. `changes` replace whole sections or add to them."""
    spec = {
        "apiVersion": "bearing/v1", "kind": "Job", "name": "tiny", "ranks": 1,
        "model": {"path": str(folder)},
        "concept": {"name": "loudness", "token_ids": [7, 40, 100], "markers": ["e"]},
        "prompts": {side: {name: {"file": str(prompts / f"{side}_{name}.json")} for name in SETS} for side in SIDES},
        "collect": {"filter": False},
        "select": {"complete": True, "kl_max": 1000, "induce_min": -1000, "prune_layers": 0},
        "evaluate": {"max_new_tokens": 4},
    }
    for key, value in copy.deepcopy(changes).items():
        if isinstance(value, dict) and key in spec:
            spec[key].update(value)
        else:
            spec[key] = value
    return spec


def write_job(path, folder, prompts, **changes):
    return write_json(path, job_spec(folder, prompts, **changes))


def stage_lines(text):
    """What a run says at the end of each stage, by the stage."""
    return {found.group(1): found.group(0) for found in re.finditer(r"^([a-z]+) +[0-9.]+ s\b.*$", text, re.MULTILINE)}


def environment(run=""):
    return {**os.environ, MARK: SESSION + run, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclasses.dataclass
class Finished:
    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self):
        return f"exit code {self.code} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


def bearing(*arguments, timeout=180):
    started = time.monotonic()
    done = subprocess.run([BIN / "bearing", *map(str, arguments)], env=environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout)
    return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def run_job(job, out, ranks=1, *arguments):
    return bearing("run", job, "--out", out, "--ranks", ranks, "--threads", 1, *arguments)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def completions(folder):
    """The lines of completions.jsonl."""
    return [json.loads(line) for line in (Path(folder) / "completions.jsonl").read_text(encoding="utf-8").splitlines()]


def same_completions(folder, other):
    """Are texts and verdicts the same, and the measures up to what rounding in another layout of ranks does to them?"""
    def measures(line):
        return [line.pop("metric"), *(said.pop("score", None) for said in line["verdicts"].values())]

    lines, others = completions(folder), completions(other)
    for line, theirs in zip(lines, others):
        for a, b in zip(measures(line), measures(theirs), strict=True):
            if a != b and (a is None or b is None or abs(a - b) > 2e-3):
                return False
    return lines == others


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def files_below(folder):
    """Names of the artifacts of an output folder, without the manifest and Bearing's own records."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(".bearing/") and name != "manifest.json")


@dataclasses.dataclass
class Process:
    pid: int
    program: str
    command: str
    rank: int | None

    def kill(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def processes(mark):
    """Living processes whose environment carries a mark that starts with `mark`, this one excepted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(v.split("=", 1) for v in (folder / "environ").read_text(errors="replace").split("\0") if "=" in v)
            command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
            program = os.path.basename(os.readlink(folder / "exe"))
        except OSError:
            continue
        if variables.get(MARK, "").startswith(mark) and int(folder.name) != os.getpid() and command:
            rank = variables.get("OMPI_COMM_WORLD_RANK")
            found.append(Process(int(folder.name), program, command, None if rank is None else int(rank)))
    return found


def wait_until_gone(mark, seconds=15):
    deadline = time.monotonic() + seconds
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
