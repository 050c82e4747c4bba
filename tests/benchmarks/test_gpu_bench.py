"""scripts/bench --gpu at a tiny size on the CPU, and what it says where no GPU is."""

import json
import os
import pathlib
import subprocess
import sys

BIN = pathlib.Path(os.environ["BEARING_BIN"])
BENCH = pathlib.Path(__file__).resolve().parent / "gpu_bench.py"


def bench(*arguments):
    return subprocess.run([sys.executable, BENCH, "--bin", BIN, *arguments], capture_output=True, text=True)


def test_dry_run_measures_everything():
    run = bench("--dry-run")
    assert run.returncode == 0, run.stderr
    *table, last = run.stdout.strip().splitlines()
    assert [line.split()[1] for line in table[1:]] == ["prefill", "decode", "candidates/s", "prefill"]
    (result,) = json.loads(last)
    for side in ("bearing", "transformers"):
        assert result[side]["prefill"]["tokens_per_s"] > 0
        assert result[side]["candidates"]["candidates_per_s"] > 0
    assert 0 < result["bearing"]["prefill"]["share_of_peak"] < 2
    assert result["bearing"]["peak_flops_per_s"] > 1e8


def test_says_that_no_gpu_is_here():
    check = subprocess.run([BIN / "gpu_rates", "check"], capture_output=True, text=True)
    if check.returncode == 0:
        return  # There is one: scripts/bench --gpu uses it.
    run = bench()
    assert run.returncode == 1
    assert run.stderr.startswith("no GPU here: ") and check.stdout.strip() in run.stderr
