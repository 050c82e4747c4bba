"""`bearing plan` against the job it planned, on SmolLM2. Bounds are wide: the processors of a test machine are shared.
tests/benchmarks/plan_accuracy.py prints the figures."""

import os
import sys
from pathlib import Path

import pytest

import support

sys.path.insert(0, str(support.ROOT / "tests/benchmarks"))
import plan_accuracy

MODELS = os.environ.get("BEARING_DEMO_MODELS", "")


@pytest.fixture
def job(tmp_path):
    model = Path(MODELS) / "smollm2-135m-instruct"
    if not MODELS or not (model / "config.json").exists():
        pytest.skip(f"BEARING_DEMO_MODELS={MODELS or '(unset)'} does not hold smollm2-135m-instruct")
    return plan_accuracy.write_job(tmp_path / "job.json", model, "float32", train=16, validation=8, test=8, new_tokens=8,
                                   layers=[6, 18], complete=True)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_plan_is_near_the_run(job, tmp_path, ranks):
    got = plan_accuracy.compare(support.BIN, job, tmp_path, ranks)
    assert 0.75 < got["memory"] < 1.35, got
    assert 0.4 < got["time"] < 2.5, got
    # The plan writes nothing of the job's.
    assert (tmp_path / f"out-{ranks}/manifest.json").exists(), got
