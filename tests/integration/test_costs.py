"""What the intervention costs: every number of costs.json against tests/oracle/costs.py, in several layouts; resuming; errors."""

import contextlib
import functools
import json
import math
import re

import pytest

import support

import costs
import generate
import plain_model
from test_job_tiny import prompts  # noqa: F401 (a fixture)

TEXTS = ["the river and the stone", "a", "paper, cloud and bread!\nTwo lines of a longer text, with 12 numbers 34.", "name cat name cat"]
QUESTIONS = [("tea is", ["hot", "a stone", "paper cloud"], 0), ("the river flows to the ", ["sea", "cat and bread road"], "B"),
             ("stone:", ["light", "heavy", "music music"], 1), ("how many lamps? ", ["one", "two"], "A")]
SUMS = [("1 + 1?", "1 + 1 = 2 #### 2"), ("2 + 1?", 3), ("2 + 2?", "it is 4")]
KL_TOKENS = 3
SECTION = {"addition": True, "items": True, "completions": {"side": "both", "kl_tokens": KL_TOKENS},
           "texts": [{"file": "texts.jsonl", "max_tokens": 12}], "choices": [{"file": "choices.jsonl", "name": "quiz"}],
           "answers": [{"file": "sums.jsonl", "max_new_tokens": 6, "pattern": "[aeiou]"}]}


def write_lines(path, objects):
    path.write_text("".join(json.dumps(o) + "\n" for o in objects), encoding="utf-8")


def write_sets(folder):
    write_lines(folder / "texts.jsonl", [{"text": text} for text in TEXTS])
    write_lines(folder / "choices.jsonl", [{"question": q, "choices": c, "answer": a} for q, c, a in QUESTIONS])
    write_lines(folder / "sums.jsonl", [{"question": q, "answer": a} for q, a in SUMS])


class Job:
    def __init__(self, folder, model, prompts, ranks, /, section=None, **changes):  # noqa: F811
        write_sets(folder)
        self.model, self.out = support.TINY / model, folder / "out"
        self.file = support.write_job(folder / "job.json", self.model, prompts, costs=section or SECTION, edit={"skip": True}, **changes)
        self.done = support.run_job(self.file, self.out, ranks)

    @functools.cached_property
    def costs(self):
        assert self.done.code == 0, self.done.text
        return support.read_json(self.out / "costs.json")

    def measurement(self, kind, name=""):
        found = [m for m in self.costs["measurements"] if m["kind"] == kind and name in m["set"]]
        assert len(found) == 1, (kind, name)
        return found[0]

    def completions(self, side):
        lines = [json.loads(line) for line in (self.out / "completions.jsonl").read_text(encoding="utf-8").splitlines()]
        return [(l["prompt"], l["response"]) for l in lines if (l["side"], l["intervention"]) == (side, "baseline")]


def values(measurement, metric):
    [found] = [m for m in measurement["metrics"] if m["metric"] == metric]
    return {v["intervention"]: v for v in found["values"]}


class Oracle:
    def __init__(self, job):
        self.model, self.tokenizer = plain_model.load_model(job.model), plain_model.load_tokenizer(job.model)
        direction, difference = plain_model.load_direction(job.out / "direction.safetensors")
        table = support.read_json(job.out / "candidates.json")
        layer = table["candidates"][table["selected"]]["layer"]
        self.interventions = {"baseline": contextlib.nullcontext,
                              "ablation": lambda: plain_model.ablated(self.model, direction),
                              "addition": lambda: plain_model.added(self.model, difference, layer)}

    def score(self, rows, kl_tokens=0):
        found, kl = costs.score(self.model, rows, list(self.interventions.values()), kl_tokens)
        return dict(zip(self.interventions, found)), dict(zip(self.interventions, kl))


LAYOUTS = [("llama-tied", 1, {}), ("llama-tied", 2, {}), ("llama-tied", 2, {"tensor_parallel": 1}), ("gemma2-softcap", 2, {}),
           ("llama-tied", 2, {"tensor_parallel": 1, "model": {"residency": "streamed"}})]


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda p: f"{p[0]}-{p[1]}-{'-'.join(map(str, p[2]))}")
def job(request, tmp_path_factory, prompts):  # noqa: F811
    model, ranks, changes = request.param
    return Job(tmp_path_factory.mktemp(f"costs-{model}"), model, prompts, ranks, **changes)


@pytest.fixture(scope="module")
def oracle(job):
    assert job.done.code == 0, job.done.text
    return Oracle(job)


def check_ratio(measurement, metric, sizes, sums):
    """value, standard error and the paired difference's of each intervention."""
    for name, value in values(measurement, metric).items():
        want, error = costs.ratio(sizes, sums[name])
        assert value["value"] == pytest.approx(want, rel=1e-4, abs=1e-7), (metric, name)
        assert value["standard_error"] == pytest.approx(error, rel=1e-3, abs=1e-6), (metric, name)
        if "difference" in value:
            want, error = costs.ratio(sizes, [a - b for a, b in zip(sums[name], sums["baseline"])])
            assert value["difference"] == pytest.approx(want, rel=2e-3, abs=2e-5), (metric, name)
            assert value["difference_standard_error"] == pytest.approx(error, rel=2e-3, abs=2e-5), (metric, name)


@pytest.mark.parametrize("side", support.SIDES)
def test_own_completions(job, oracle, side):
    found = job.measurement("completions", side)
    rows = [costs.completion_row(oracle.tokenizer, *pair) for pair in job.completions(side) if pair[1]]
    assert found["items"] == len(rows) and found["skipped"] == len(job.completions(side)) - len(rows)
    assert found["tokens"] == sum(len(tokens) - first for tokens, first in rows) > 0
    log_likelihood, kl = oracle.score(rows, KL_TOKENS)
    sizes = [len(tokens) - first for tokens, first in rows]
    check_ratio(found, "cross_entropy", sizes, {name: [-v for v in sums] for name, sums in log_likelihood.items()})
    compared = [min(KL_TOKENS, size) for size in sizes]
    for name, value in values(found, "kl").items():
        want, error = costs.ratio(compared, [sum(row) for row in kl[name]])
        assert want > 1e-3, "the intervention changes nothing"
        assert value["value"] == pytest.approx(want, rel=1e-3), name
        assert value["standard_error"] == pytest.approx(error, rel=1e-2, abs=1e-6), name
        by_token = [[row[t] for row in kl[name] if len(row) > t] for t in range(max(compared))]
        assert found["kl_by_token"][name] == pytest.approx([sum(t) / len(t) for t in by_token], rel=1e-3), name
    perplexity = values(found, "perplexity")
    for name, value in values(found, "cross_entropy").items():
        assert perplexity[name]["value"] == pytest.approx(math.exp(value["value"]), rel=1e-9)


def test_texts(job, oracle):
    found = job.measurement("texts")
    rows = [row for row in (costs.text_row(oracle.tokenizer, text, 12) for text in TEXTS) if len(row[0]) > 1]
    assert (found["items"], found["skipped"]) == (len(rows), len(TEXTS) - len(rows))
    assert found["shortened"] == sum(len(oracle.tokenizer(text)["input_ids"]) > 12 for text in TEXTS) > 0
    log_likelihood, _ = oracle.score(rows)
    check_ratio(found, "cross_entropy", [len(tokens) - 1 for tokens, _ in rows],
                {name: [-v for v in sums] for name, sums in log_likelihood.items()})


def test_choices(job, oracle):
    found = job.measurement("choices")
    lines = [json.loads(line) for line in (job.out / "costs.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["set"] == "quiz"]
    rows = [costs.choice_rows(oracle.tokenizer, question, choices) for question, choices, _ in QUESTIONS]
    log_likelihood, _ = oracle.score([row for of_question in rows for row in of_question])
    assert [line["item"] for line in lines] == list(range(len(QUESTIONS)))
    acc, acc_norm, of_answer = ({name: [] for name in oracle.interventions} for _ in range(3))
    for name in oracle.interventions:
        left = iter(log_likelihood[name])
        for (_, choices, answer), line in zip(QUESTIONS, lines):
            scores = [next(left) for _ in choices]
            assert line["log_likelihoods"][name] == pytest.approx(scores, rel=1e-4)
            right = answer if isinstance(answer, int) else "AB".index(answer)
            normalized = [score / len(choice) for score, choice in zip(scores, choices)]
            assert line["choice"][name] == scores.index(max(scores))
            assert line["choice_by_length"][name] == normalized.index(max(normalized))
            acc[name].append(float(scores.index(max(scores)) == right))
            acc_norm[name].append(float(normalized.index(max(normalized)) == right))
            of_answer[name].append(scores[right])
    for metric, sums in (("acc", acc), ("acc_norm", acc_norm), ("log_likelihood", of_answer)):
        check_ratio(found, metric, [1] * len(QUESTIONS), sums)


def test_answers(job, oracle):
    """A tiny random model gives no numbers, so its vowels are what is looked for; numbers are tested in costs_test."""
    lines = [json.loads(line) for line in (job.out / "costs.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["set"] == "sums"]
    rows = plain_model.token_ids(oracle.tokenizer, [question for question, _ in SUMS])
    for name, steered in oracle.interventions.items():
        with steered():
            texts = [oracle.tokenizer.decode(ids, skip_special_tokens=True)
                     for ids in generate.generate(oracle.model, oracle.tokenizer, rows, 6)]
        assert [line["response"][name] for line in lines] == texts, name
        assert [line["found"][name] for line in lines] == [(re.findall("[aeiou]", text) or [""])[-1] for text in texts], name
    matches = [float(line["found"]["baseline"] == line["answer"]) for line in lines]
    assert values(job.measurement("answers"), "exact_match")["baseline"]["value"] == pytest.approx(sum(matches) / len(matches))


def test_report_shows_the_table(job):
    report = support.read_json(job.out / "report.json")
    text = (job.out / "report.html").read_text(encoding="utf-8")
    assert "What it costs" in text and "Perplexity" in text and str(support.ROOT) not in text
    assert {(row["kind"], row["metric"]) for row in report["costs"]} >= {
        ("completions", "kl"), ("texts", "cross_entropy"), ("choices", "acc_norm"), ("answers", "exact_match")}
    manifest = support.read_json(job.out / "manifest.json")
    assert manifest["provenance"]["prompts"]["costs quiz"]["sha256"] == support.sha256(job.file.parent / "choices.jsonl")
    assert str(job.file.parent) not in json.dumps(manifest)
    assert not (job.out / ".bearing/costs").exists(), "the journal is done with"
    assert "costs.json" in support.files_below(job.out) and "costs.jsonl" in support.files_below(job.out)


def test_an_interrupted_stage_goes_on_with_the_next_measure(tmp_path, prompts):  # noqa: F811
    """The last set fails when its turn comes (a question longer than the context): the others are kept, and not run again."""
    section = {"texts": [{"file": "texts.jsonl"}], "choices": [{"file": "choices.jsonl"}]}
    write_sets(tmp_path)
    job = support.write_job(tmp_path / "job.json", support.TINY / "llama-tied", prompts, costs=section, edit={"skip": True},
                            evaluate={"skip": True})
    write_lines(tmp_path / "choices.jsonl", [{"question": "tea " * 20000, "choices": ["x", "y"], "answer": 0}])
    out = tmp_path / "out"
    done = support.run_job(job, out)
    assert done.code != 0 and "longer than the model's context" in done.err, done.text
    kept = out / ".bearing/costs/texts-0.json"
    assert kept.exists() and not (out / "costs.json").exists()
    # What is kept is taken as it is.
    measured = support.read_json(kept)
    measured["measurement"]["items"] = 12345
    kept.write_text(json.dumps(measured))
    done = support.run_job(job, out)
    assert done.code != 0 and "longer than the model's context" in done.err, done.text
    assert support.read_json(kept)["measurement"]["items"] == 12345
    # Unless the direction is another.
    measured["inputs"] = "other"
    kept.write_text(json.dumps(measured))
    support.run_job(job, out)
    assert support.read_json(kept)["measurement"]["items"] == 4 - sum(len(t) < 2 for t in TEXTS)


@pytest.mark.parametrize("section, message", [
    ({"choices": [{"file": "none.jsonl"}]}, "costs.choices[0].file"),
    ({"texts": [{"file": "choices.jsonl"}]}, 'no key "text", found answer, choices, question'),
    ({}, "costs: nothing to measure"),
    ({"answers": [{"file": "sums.jsonl", "pattern": "("}]}, "costs.answers[0].pattern: not a regular expression"),
])
def test_mistakes_are_found_before_anything_runs(tmp_path, prompts, section, message):  # noqa: F811
    job = Job(tmp_path, "llama-tied", prompts, 1, section={**section} or {"addition": True})
    assert job.done.code == 2 and message in job.done.err, job.done.text
    assert not (job.out / "collect.json").exists()
