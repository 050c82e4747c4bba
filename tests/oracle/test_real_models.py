"""Published models against transformers (real_models.py), where BEARING_DEMO_MODELS holds them; skipped where it does not."""

import os
from pathlib import Path

import pytest

import real_models

MODELS = os.environ.get("BEARING_DEMO_MODELS", "")


@pytest.fixture(scope="module", params=real_models.NAMES)
def model(request, tmp_path_factory):
    folder = Path(MODELS) / request.param
    if not MODELS or not (folder / "config.json").exists():
        pytest.skip(f"BEARING_DEMO_MODELS={MODELS or '(unset)'} does not hold {request.param}")
    return real_models.RealModel(folder, tmp_path_factory.mktemp(request.param), Path(os.environ["BEARING_BIN"]))


@pytest.mark.parametrize("kind, ranks", [("plain", 1), ("plain", 2), ("ablated", 2)])
def test_equals_transformers_in_float32(model, kind, ranks):
    errors = model.errors(kind, ranks)
    assert max(errors.values()) <= real_models.TOLERANCE, errors
    # A prompt longer than Gemma's window of 512 tokens is among them.
    assert model.expected["plain"]["lengths"].max() > 512
