"""test_costs on a real model. Needs BEARING_DEMO_MODELS, and is skipped without it."""

import os
from pathlib import Path

import pytest

from test_costs import Job, oracle, test_answers, test_choices, test_own_completions, test_texts  # noqa: F401
from test_job_tiny import prompts  # noqa: F401 (a fixture)

MODELS = os.environ.get("BEARING_DEMO_MODELS", "")


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def job(request, tmp_path_factory, prompts):  # noqa: F811
    model = Path(MODELS) / "smollm2-135m-instruct"
    if not MODELS or not model.exists():
        pytest.skip("BEARING_DEMO_MODELS has no smollm2-135m-instruct")
    return Job(tmp_path_factory.mktemp("costs-smollm2"), model, prompts, request.param, select={"layers": [12], "positions": [-1]})
