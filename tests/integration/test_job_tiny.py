"""Whole jobs on the tiny models: every artifact is there, is right, and does not depend on how the work was cut or saved."""

import contextlib
import functools
import html.parser
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import support

import check_checkpoint
import compare
import generate
import geometry
import plain_model
import refusal_direction

ARTIFACTS = ["candidates.json", "collect.json", "completions.jsonl", "direction.safetensors", "evaluation.json",
             "geometry.json", "means.safetensors", "report.html", "report.json", "verify.json"]
CHECKPOINT = ["README.md", "bearing.json", "chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json",
              "tokenizer_config.json"]


class Job:
    """A finished job and where its pieces are."""

    def __init__(self, folder, model, prompts, ranks, /, **changes):
        self.model, self.prompts, self.out = support.TINY / model, prompts, folder / "out"
        self.file = support.write_job(folder / "job.json", self.model, prompts, **changes)
        self.done = support.run_job(self.file, self.out, ranks)

    @property
    def table(self):
        return support.read_json(self.out / "candidates.json")

    @property
    def selected(self):
        return self.table["candidates"][self.table["selected"]]


class Oracle:
    """Candidates and means of the plain implementation, on the prompts of the jobs."""

    def __init__(self, model, prompts, token_ids=(7, 40, 100)):
        self.model, self.tokenizer = plain_model.load_model(support.TINY / model), plain_model.load_tokenizer(support.TINY / model)
        self.rows = {name: plain_model.token_ids(self.tokenizer, plain_model.load_instructions(prompts / f"{name}.json"))
                     for name in (f"{side}_{kind}" for side in support.SIDES for kind in support.SETS)}
        runner = refusal_direction.Runner(self.model, self.tokenizer.pad_token_id)
        positions = plain_model.num_positions(self.tokenizer)
        self.means = refusal_direction.collect(runner, self.rows["positive_train"], self.rows["negative_train"], positions)
        self.table = {"num_layers": len(plain_model.blocks_of(self.model)), "num_positions": positions}
        self.table["candidates"] = refusal_direction.select(
            runner, self.means["mean_difference"], self.rows["positive_validation"], self.rows["negative_validation"],
            list(token_ids))
        # Directly after the instruction nothing has been read yet: the difference is rounding, not a direction.
        largest = max(c["norm"] for c in self.table["candidates"])
        self.usable = [c for c in self.table["candidates"] if c["norm"] > 1e-5 * largest]

    def best(self, **rule):
        return refusal_direction.best(self.usable, self.table["num_layers"], **rule)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return support.write_prompts(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, prompts):
    """Runs each (model, ranks) once, when it is first asked for."""
    found = {}

    def get(model, ranks):
        if (model, ranks) not in found:
            found[model, ranks] = Job(tmp_path_factory.mktemp(f"{model}-{ranks}"), model, prompts, ranks)
        job = found[model, ranks]
        assert job.done.code == 0, job.done.text
        return job

    return get


@pytest.fixture(scope="module")
def oracles(prompts):
    return functools.cache(lambda model: Oracle(model, prompts))


CASES = [("llama-tied", 1), ("llama-tied", 2), ("qwen2-untied", 2), ("llama-sharded", 1)]
all_cases = pytest.mark.parametrize("model, ranks", CASES)


@all_cases
def test_writes_every_artifact_and_a_true_manifest(jobs, model, ranks):
    job = jobs(model, ranks)
    files = support.files_below(job.out)
    weights = [f"checkpoint/{path.name}" for path in job.model.glob("model*")]
    assert files == sorted(ARTIFACTS + [f"checkpoint/{name}" for name in CHECKPOINT] + weights)
    manifest = support.read_json(job.out / "manifest.json")
    assert sorted(entry["name"] for entry in manifest["files"]) == files
    for entry in manifest["files"]:
        path = job.out / entry["name"]
        assert (path.stat().st_size, support.sha256(path)) == (entry["size"], entry["sha256"]), entry["name"]
    given = manifest["provenance"]["prompts"]
    assert given["positive train"]["sha256"] == support.sha256(job.prompts / "positive_train.json")
    assert manifest["provenance"]["model"]["name"] == model
    assert str(job.out) not in (job.out / "manifest.json").read_text(), "the manifest names a folder of this machine"


@all_cases
def test_means_equal_the_oracle(jobs, oracles, model, ranks):
    found = compare.compare_means(load_file(jobs(model, ranks).out / "means.safetensors"), oracles(model).means)
    assert compare.worst(found)["error"] <= 1e-4, compare.worst(found)


@all_cases
def test_every_candidate_equals_the_oracle(jobs, oracles, model, ranks):
    table, oracle = jobs(model, ranks).table, oracles(model)
    found = compare.compare_candidates(table, oracle.table)
    assert compare.worst(found)["error"] <= 1e-3, compare.worst(found)
    scored = {(c["position"], c["layer"]) for c in table["candidates"] if None not in (c["induce"], c["kl"], c["bypass"])}
    assert scored == {(c["position"], c["layer"]) for c in oracle.usable}, "every usable candidate is scored, no other"
    assert len(found) == 3 * len(scored)


@all_cases
def test_selects_what_the_paper_selects(jobs, oracles, model, ranks):
    job = jobs(model, ranks)
    expected = oracles(model).best(kl_max=1000, induce_min=-1000, prune_layers=0)
    assert (job.selected["position"], job.selected["layer"]) == (expected["position"], expected["layer"])


@all_cases
def test_direction_is_the_normalised_mean_difference(jobs, model, ranks):
    job = jobs(model, ranks)
    chosen = job.selected
    with safe_open(job.out / "direction.safetensors", "pt") as file:
        metadata, direction, difference = file.metadata(), file.get_tensor("direction"), file.get_tensor("mean_difference")
    expected = load_file(job.out / "means.safetensors")["mean_difference"][chosen["position"], chosen["layer"]]
    assert direction.dtype == difference.dtype == torch.float32
    assert direction.double().norm().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(difference, expected.float())
    assert torch.allclose(direction.double(), expected / expected.norm(), atol=1e-6)
    assert (int(metadata["layer"]), int(metadata["position"])) == (chosen["layer"], chosen["position"])
    assert metadata["model_digest"] == support.read_json(job.out / "manifest.json")["model_digest"]
    for score in compare.SCORES:
        assert float(metadata[score]) == pytest.approx(chosen[score], rel=1e-6)


@all_cases
def test_checkpoint_is_the_source_without_the_direction(jobs, oracles, model, ranks):
    job = jobs(model, ranks)
    report = check_checkpoint.check(job.model, job.out / "checkpoint", job.out / "direction.safetensors",
                                    rows=oracles(model).rows["negative_validation"], max_logit_difference=1e-3)
    assert report["ok"], report["problems"]
    assert report["unedited_logit_difference"] > 0.1, "the edit changes nothing, so the check means nothing"
    was_tied = support.read_json(job.model / "config.json")["tie_word_embeddings"]
    assert report["untied"] == was_tied
    assert support.read_json(job.out / "checkpoint/config.json")["tie_word_embeddings"] is False
    verified = support.read_json(job.out / "verify.json")
    assert verified["edited_tensors"] == report["edited_tensors"]
    assert verified["logits"]["max_logit_difference_to_ablation"] <= 1e-3


@all_cases
def test_completions_equal_the_oracle(jobs, oracles, model, ranks):
    job, oracle = jobs(model, ranks), oracles(model)
    direction, difference = plain_model.load_direction(job.out / "direction.safetensors")
    lines = support.completions(job.out)
    assert len(lines) == 5 * 4
    for side in support.SIDES:
        steered = {"baseline": {}, "ablation": {"ablate": direction}}
        if side == "negative":
            steered["addition"] = {"add": difference, "layer": job.selected["layer"]}
        for intervention, how in steered.items():
            mine = [line["response"] for line in lines if (line["side"], line["intervention"]) == (side, intervention)]
            assert mine == completions(oracle, oracle.rows[f"{side}_test"], **how), (side, intervention)


def completions(oracle, rows, ablate=None, add=None, layer=None):
    with contextlib.ExitStack() as hooks:
        if ablate is not None:
            hooks.enter_context(plain_model.ablated(oracle.model, ablate))
        if add is not None:
            hooks.enter_context(plain_model.added(oracle.model, add, layer))
        found = generate.generate(oracle.model, oracle.tokenizer, rows, 4)
    return [oracle.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]


def test_select_chooses_again_without_running(jobs, tmp_path):
    job = jobs("llama-tied", 1)
    direction = tmp_path / "direction.safetensors"
    done = support.bearing("select", "--from", job.out, "-o", "json", "--direction-out", direction)
    assert done.code == 0, done.text
    again = json.loads(done.out)
    assert again["selected"] == {key: job.selected[key] for key in ("layer", "position", "bypass", "induce", "kl")}
    assert [again[key] for key in ("considered", "kept", "discarded")] == [job.table[k] for k in ("considered", "kept", "discarded")]
    for name, tensor in load_file(direction).items():
        assert torch.allclose(tensor, load_file(job.out / "direction.safetensors")[name], rtol=1e-6, atol=0), name
    # Another rule, another choice: the oracle's.
    best = min(c["kl"] for c in job.table["candidates"] if c["kl"] is not None)
    done = support.bearing("select", "--from", job.out, "--kl-max", best, "-o", "json")
    assert done.code == 0 and json.loads(done.out)["selected"]["kl"] == best, done.text
    done = support.bearing("select", "--from", job.out, "--kl-max", best - 1, "-o", "json")
    assert done.code == 1 and json.loads(done.out)["selected"] is None and "kl_max" in done.err, done.text


@pytest.mark.parametrize("model,ranks", [("llama-tied", 1), ("llama-tied", 2), ("gemma2-softcap", 2)])
def test_geometry_equals_the_rows(jobs, oracles, model, ranks):
    oracle, found = oracles(model), support.read_json(jobs(model, ranks).out / "geometry.json")
    runner = refusal_direction.Runner(oracle.model, oracle.tokenizer.pad_token_id)
    sides = [geometry.last_inputs(runner, oracle.rows[f"{side}_train"]) for side in support.SIDES]
    assert [found["positive"], found["negative"]] == [list(range(len(side))) for side in sides]
    assert len(found["layers"]) == sides[0].shape[1]
    for layer, got in enumerate(found["layers"]):
        want = geometry.of_layer(*(side[:, layer] for side in sides))
        # In layer 0 all last tokens are the same: what is measured there is rounding.
        if want["difference_norm"] < 1e-5 * want["positive_norm"]:
            assert got["difference_norm"] < 1e-5 * got["positive_norm"]
            continue
        assert {k: got[k] for k in want if k != "projections"} == pytest.approx(
            {k: v for k, v in want.items() if k != "projections"}, rel=2e-3, abs=2e-4), layer
        assert got["projections"] == pytest.approx(want["projections"].tolist(), rel=1e-3, abs=1e-3), layer


def test_two_ranks_equal_one(jobs):
    one, two = jobs("llama-tied", 1), jobs("llama-tied", 2)
    found = compare.compare_candidates(two.table, one.table)
    assert compare.worst(found)["error"] <= 1e-4, compare.worst(found)
    found = compare.compare_means(*(load_file(job.out / "means.safetensors") for job in (two, one)))
    assert compare.worst(found)["error"] <= 1e-5, compare.worst(found)
    assert one.table["selected"] == two.table["selected"]
    assert support.read_json(two.out / "manifest.json")["provenance"]["ranks"] == 2
    assert support.same_completions(one.out, two.out)


class Page(html.parser.HTMLParser):
    """Are all elements closed in order? Which ones are there, and what do they refer to?"""

    VOID = {"meta", "link", "br", "hr", "img", "input", "col"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.problems = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        self.problems += [name for name, _ in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()


def test_report_is_a_self_contained_page(jobs):
    job = jobs("llama-tied", 2)
    text = (job.out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.problems == [] and page.open == []
    assert "script" not in page.tags and "iframe" not in page.tags
    assert [reference for reference in page.references if not reference.startswith("#")] == []
    assert "svg" in page.tags and "loudness" in text and str(support.ROOT) not in text
    numbers = support.read_json(job.out / "report.json")
    assert len(numbers["selection"]["candidates"]) == len(job.table["candidates"])


def test_cheap_tests_first_select_the_same(jobs, oracles, prompts, tmp_path):
    usable = sorted((c for c in oracles("llama-tied").usable if c["layer"] < 2), key=lambda c: c["kl"])
    # Bounds in the middle of the field, between two candidates: some fail each test and some pass all.
    middle = len(usable) * 2 // 3
    induce = sorted(c["induce"] for c in usable)
    bounds = {"kl_max": (usable[middle]["kl"] + usable[middle + 1]["kl"]) / 2,
              "induce_min": (induce[len(induce) // 4] + induce[len(induce) // 4 + 1]) / 2, "prune_layers": 0.2}
    expected = oracles("llama-tied").best(**bounds)
    job = Job(tmp_path, "llama-tied", prompts, 1, select={"complete": False, **bounds}, evaluate={"skip": True},
              edit={"skip": True})
    assert job.done.code == 0, job.done.text
    assert (job.selected["position"], job.selected["layer"]) == (expected["position"], expected["layer"])
    found = compare.compare_candidates(job.table, jobs("llama-tied", 1).table)
    assert compare.worst(found)["error"] <= 1e-4, compare.worst(found)
    unscored = [c for c in job.table["candidates"] if c["norm"] and c["bypass"] is None]
    assert len(unscored) > 5, "the bounds save no work"
    assert not (job.out / "checkpoint").exists() and not (job.out / "completions.jsonl").exists()


def test_a_tied_model_stays_tied_when_asked(prompts, tmp_path):
    job = Job(tmp_path, "llama-tied", prompts, 2, edit={"keep_tied": True}, evaluate={"skip": True})
    assert job.done.code == 0, job.done.text
    report = check_checkpoint.check(job.model, job.out / "checkpoint", job.out / "direction.safetensors")
    assert report["ok"] and not report["untied"], report
    assert support.read_json(job.out / "checkpoint/config.json")["tie_word_embeddings"] is True


def test_a_finished_folder_is_not_written_again(jobs, tmp_path):
    job = jobs("llama-tied", 1)
    out = shutil.copytree(job.out, tmp_path / "out")
    before = {name: support.sha256(out / name) for name in [*support.files_below(out), "manifest.json"]}
    done = support.run_job(job.file, out)
    assert done.code == 2 and "finished run" in done.err, done.text
    assert {name: support.sha256(out / name) for name in [*support.files_below(out), "manifest.json"]} == before
