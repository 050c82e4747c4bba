"""The edited checkpoint under lm-evaluation-harness gives the figures that the cost stage gave under ablation. Skipped where
scripts/get_lm_eval has not been run. Questions are our own; the task is a file, nothing is fetched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import support

import plain_model
from test_costs import values, write_lines
from test_job_tiny import prompts  # noqa: F401 (a fixture)

PYTHON = Path(os.environ.get("BEARING_LM_EVAL", Path(sys.executable).parents[2] / "lm_eval/bin/python"))
MODELS = os.environ.get("BEARING_DEMO_MODELS", "")
TOPICS = ["river", "stone", "paper", "bread", "winter", "lamp", "music", "garden"]


def question(i, a, b, c):
    choices = [f"a {c}", f"the {a} and the {c} of a long {b}", c.upper(), f"{b}, as {a}"]
    return {"question": f"Question: What goes with {a} and {b}?\nAnswer:", "choices": choices[i % 4:] + choices[:i % 4], "answer": i // 3 % 4}


TRIPLES = [(a, b, c) for a in TOPICS for b in TOPICS[:4] for c in TOPICS[4:6] if len({a, b, c}) == 3]
QUESTIONS = [question(i, *triple) for i, triple in enumerate(TRIPLES)]
TASK = """task: bearing_quiz
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}, {{metric: acc_norm, aggregation: mean, higher_is_better: true}}]
"""
RUN = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
folder, model, out = sys.argv[1:]
found = lm_eval.simple_evaluate(model="hf", model_args={"pretrained": model, "dtype": "float32"}, tasks=["bearing_quiz"], device="cpu",
                                batch_size=4, task_manager=TaskManager(include_path=folder, include_defaults=False), log_samples=True,
                                bootstrap_iters=2)
samples = sorted(found["samples"]["bearing_quiz"], key=lambda s: s["doc_id"])
json.dump({"results": {k: v for k, v in found["results"]["bearing_quiz"].items() if isinstance(v, float)},
           "log_likelihoods": [[float(r[0][0]) for r in s["resps"]] for s in samples]}, open(out, "w"))
"""


def harness(folder, model):
    (folder / "quiz.yaml").write_text(TASK.format(data=folder / "quiz.jsonl"))
    out = folder / "found.json"
    settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([PYTHON, "-c", RUN, folder, model, out], env={**support.environment(), **settings}, capture_output=True,
                          text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return support.read_json(out)


def compare(tmp_path, model, prompts, questions, **changes):  # noqa: F811
    write_lines(tmp_path / "quiz.jsonl", questions)
    job = support.write_job(tmp_path / "job.json", model, prompts, evaluate={"skip": True},
                            costs={"items": True, "choices": [{"file": "quiz.jsonl"}]}, **changes)
    done = support.bearing("run", job, "--out", tmp_path / "out", "--ranks", 2, "--threads", 1, timeout=600)
    assert done.code == 0, done.text
    [measured] = support.read_json(tmp_path / "out/costs.json")["measurements"]
    lines = [json.loads(line) for line in (tmp_path / "out/costs.jsonl").read_text().splitlines()]
    for name, folder in (("ablation", tmp_path / "out/checkpoint"), ("baseline", model)):
        found = harness(tmp_path, folder)
        for theirs, line in zip(found["log_likelihoods"], lines, strict=True):
            assert line["log_likelihoods"][name] == pytest.approx(theirs, rel=1e-4, abs=1e-3)
        print(f"{model.name}: {name}: {len(lines)} questions, harness {found['results']}")
        for metric in ("acc", "acc_norm"):
            mine = values(measured, metric)[name]
            assert mine["value"] == pytest.approx(found["results"][f"{metric},none"], abs=1e-9), (name, metric)
            assert mine["standard_error"] == pytest.approx(found["results"][f"{metric}_stderr,none"], abs=1e-6)


pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="lm-evaluation-harness is not installed (scripts/get_lm_eval)")


def test_tiny_model(tmp_path, prompts):  # noqa: F811
    compare(tmp_path, support.TINY / "qwen2-untied", prompts, QUESTIONS)


@pytest.mark.skipif(not (Path(MODELS) / "smollm2-135m-instruct").exists(), reason="BEARING_DEMO_MODELS has no smollm2-135m-instruct")
def test_smollm2(tmp_path, prompts):  # noqa: F811
    """In float32, so that the edit is not rounded to the bfloat16 that the model is stored in."""
    source, model = Path(MODELS) / "smollm2-135m-instruct", tmp_path / "smollm2"
    plain_model.load_model(source).save_pretrained(model)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, model)
    compare(tmp_path, model, prompts, QUESTIONS, select={"layers": [10], "positions": [-1]})
