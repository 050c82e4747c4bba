"""`bearing trace` on real models against transformers. Needs the models in BEARING_DEMO_MODELS, and is skipped without them."""

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import support

import compare
import plain_model
import trace

MODELS = os.environ.get("BEARING_DEMO_MODELS", "")
PROMPTS = ["How is tea made?", "Écris une phrase sur la mer 🌊.", "def add(a, b):\n    return a + b\n\nWhat does it do?",
           "Name three rivers, and for each of them one city on its banks."]
ADD_LAYER = 10


class Model:
    """A model, its rows, and a direction with the size that real mean differences have."""

    def __init__(self, folder, work):
        self.folder = folder
        self.prompts = support.write_json(work / "prompts.json", [{"instruction": text} for text in PROMPTS])
        model, tokenizer = plain_model.load_model(folder), plain_model.load_tokenizer(folder)
        self.rows = plain_model.token_ids(tokenizer, PROMPTS)
        self.direction = work / "direction.safetensors"
        self.oracle = {"plain": trace.trace(model, self.rows)}
        residual = self.oracle["plain"]["residual"]
        difference = (residual[1, ADD_LAYER] - residual[0, ADD_LAYER]).contiguous()
        save_file({"direction": difference / difference.norm(), "mean_difference": difference}, self.direction)
        unit, vector = plain_model.load_direction(self.direction)
        self.oracle["ablated"] = trace.trace(model, self.rows, ablate=unit)
        self.oracle["added"] = trace.trace(model, self.rows, add=vector, layer=ADD_LAYER)

    def arguments(self, kind):
        return {"plain": [], "ablated": ["--ablate", self.direction],
                "added": ["--add", self.direction, "--layer", ADD_LAYER]}[kind]

    def trace(self, out, kind, ranks, *arguments):
        done = support.bearing("trace", "--model", self.folder, "--prompts", self.prompts, "--out", out, "--ranks", ranks,
                               "--threads", 1, *self.arguments(kind), *arguments)
        assert done.code == 0, done.text
        return load_file(out)


def load(name, work):
    folder = Path(MODELS) / name
    if not MODELS or not (folder / "config.json").exists():
        pytest.skip(f"BEARING_DEMO_MODELS={MODELS or '(unset)'} does not hold {name}")
    return Model(folder, work)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    return load("smollm2-135m-instruct", tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return load("qwen2.5-coder-0.5b-instruct", tmp_path_factory.mktemp("qwen2"))


def worst(mine, oracle):
    return compare.worst(compare.compare_traces(mine, oracle))


CASES = [("plain", 1), ("plain", 2), ("plain", 4), ("ablated", 1), ("ablated", 2), ("added", 1), ("added", 2)]


@pytest.mark.parametrize("kind, ranks", CASES)
def test_smollm2_equals_transformers_in_float32(smollm2, tmp_path, kind, ranks):
    mine = smollm2.trace(tmp_path / "mine.safetensors", kind, ranks)
    entry = worst(mine, smollm2.oracle[kind])
    assert entry["error"] <= 1e-4, entry
    if kind != "plain":
        assert worst(mine, smollm2.oracle["plain"])["error"] > 0.01, "the intervention changes nothing"


@pytest.mark.parametrize("kind, ranks", [("plain", 1), ("plain", 2), ("ablated", 1)])
def test_smollm2_in_bfloat16_is_near_float32(smollm2, tmp_path, kind, ranks):
    mine = smollm2.trace(tmp_path / "mine.safetensors", kind, ranks, "--dtype", "bfloat16")
    # Against exact figures: 8 bits of mantissa over 30 layers.
    entry = compare.worst_vector("logits", mine["logits"], smollm2.oracle[kind]["logits"])
    assert entry["error"] <= 5e-2, entry


def test_token_ids_need_no_tokenizer(smollm2, tmp_path):
    ids = support.write_json(tmp_path / "ids.json", smollm2.rows)
    done = support.bearing("trace", "--model", smollm2.folder, "--token-ids", ids, "--out", tmp_path / "mine.safetensors",
                           "--threads", 1)
    assert done.code == 0, done.text
    entry = worst(load_file(tmp_path / "mine.safetensors"), smollm2.oracle["plain"])
    assert entry["error"] <= 1e-4, entry


@pytest.mark.parametrize("kind, ranks", [("plain", 1), ("ablated", 2)])
def test_qwen2_equals_transformers_in_float32(qwen2, tmp_path, kind, ranks):
    entry = worst(qwen2.trace(tmp_path / "mine.safetensors", kind, ranks), qwen2.oracle[kind])
    assert entry["error"] <= 1e-4, entry
