"""`bearing search` on a finished job of a tiny model: its scores against transformers, layouts, resumption, and points as weights."""

import json
import math
import shutil

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

import support  # noqa: E402

import plain_model  # noqa: E402

MODEL = support.TINY / "qwen2-untied"
SMALL = ("--population", "4", "--screen", "2", "--points", "3", "--max-new-tokens", "4", "--kl-cap", "100")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    prompts = support.write_prompts(folder / "prompts", counts=(8, 6, 2))
    job = support.write_job(folder / "job.json", MODEL, prompts, edit={"skip": True})
    done = support.run_job(job, folder / "out")
    assert done.code == 0, done.text
    return folder / "out"


def search(run, out, *arguments, ranks=1, trials=14):
    return support.bearing("search", run, "--out", out, "--ranks", ranks, "--threads", 1, "--trials", trials, *SMALL, *arguments)


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("search") / "out"
    done = search(run, out)
    assert done.code == 0, done.text
    assert "search.json" in done.out
    return out


def points_of(document):
    return [trial["point"] for trial in document["trials"]]


def direction_of(run, trial, position):
    """The formula of docs/search.md, from the run's means."""
    means = load_file(run / "means.safetensors")
    difference, mean = means["mean_difference"][position], means["negative_mean"][position]
    layer = math.floor(trial["layer"])
    share = trial["layer"] - layer
    unit = difference / difference.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    last = min(layer + 1, len(unit) - 1)
    r = (1 - share) * unit[layer] + share * unit[last]
    m = (1 - share) * mean[layer] + share * mean[last]
    return r - trial["projected"] * (r @ m) / (m @ m) * m


def strength_of(trial):
    return lambda component, layer: trial[component] * trial["layer_strengths"][layer]


def first_token(model, rows):
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1].double().softmax(-1) for row in rows])


@torch.inference_mode()
def test_scores_are_those_of_transformers(run, found):
    document = support.read_json(found / "search.json")
    spec = support.read_json(run / ".bearing/job.json")["spec"]
    spec = json.loads(spec) if isinstance(spec, str) else spec
    model, tokenizer = plain_model.load_model(MODEL), plain_model.load_tokenizer(MODEL)
    rows = {}
    for side in support.SIDES:
        texts = plain_model.load_instructions(spec["prompts"][side]["validation"]["file"])
        rows[side] = plain_model.token_ids(tokenizer, texts)
    tokens = [token["id"] for token in support.read_json(run / "collect.json")["metric_tokens"]]
    before = first_token(model, rows["negative"])
    assert document["settings"]["position"] in range(-20, 0)
    checked = 0
    for trial in document["trials"]:
        if trial["score"] is None:
            continue
        direction = direction_of(run, trial, document["settings"]["position"]).float()
        with plain_model.removed_by_strength(model, direction, strength_of(trial)):
            probability = first_token(model, rows["positive"])[:, tokens].sum(-1)
            after = first_token(model, rows["negative"])
        metric = (torch.log(probability + 1e-8) - torch.log(1 - probability + 1e-8)).mean().item()
        kl = (before * (torch.log(before + 1e-6) - torch.log(after + 1e-6))).sum(-1).mean().item()
        assert trial["score"]["metric"] == pytest.approx(metric, abs=1e-4)
        assert trial["score"]["probability"] == pytest.approx(probability.mean().item(), abs=1e-5)
        assert trial["score"]["kl"] == pytest.approx(kl, abs=1e-5)
        checked += 1
    assert checked == document["trials_completed"] >= 4
    assert max(trial["score"]["kl"] for trial in document["trials"] if trial["score"]) > 1e-3


def test_trial_0_is_the_choice_of_the_run(run, found):
    table = support.read_json(run / "candidates.json")
    chosen = table["candidates"][table["selected"]]
    document = support.read_json(found / "search.json")
    trial = document["trials"][0]
    assert trial["layer"] == chosen["layer"] and document["settings"]["position"] == chosen["position"]
    assert trial["score"]["metric"] == pytest.approx(chosen["bypass"], abs=1e-4)
    assert trial["score"]["kl"] == pytest.approx(chosen["kl"], abs=1e-5)
    assert 0 in [point["trial"] for point in document["points"]]


def test_what_a_search_leaves(found):
    document = support.read_json(found / "search.json")
    assert len(document["trials"]) == 14 and document["trials_completed"] + document["trials_screened_out"] == 14
    assert 1 <= len(document["points"]) <= 4
    kls = [point["kl"] for point in document["points"]]
    assert kls == sorted(kls)
    front = [(p["refusals"], p["kl"]) for p in document["points"] if p["on_front"]]
    assert front
    for p in document["points"]:
        beaten = any(r <= p["refusals"] and k <= p["kl"] and (r, k) != (p["refusals"], p["kl"]) for r, k in front)
        assert beaten != p["on_front"]
    lines = [json.loads(line) for line in (found / "completions.jsonl").read_text().splitlines()]
    for p in document["points"]:
        mine = [line for line in lines if line["point"] == p["point"]]
        assert len(mine) == p["answers"] == 6
        assert sum("e" in line["response"].lower() for line in mine) == p["shown"]
    assert len([line for line in lines if line["point"] is None]) == 6
    directions = load_file(found / "search.safetensors")["direction"]
    assert list(directions.shape) == [len(document["points"]), support.read_json(MODEL / "config.json")["hidden_size"]]
    assert support.sha256(found / "search.safetensors") == document["directions"]["sha256"]
    page = (found / "search.html").read_text(encoding="utf-8")
    assert "<svg" in page and "<script" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_in_the_runs_folder_it_is_a_section_of_the_report(run, found, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    assert "search-front" not in (folder / "report.html").read_text(encoding="utf-8")
    shutil.copytree(found, folder / "search")
    done = support.bearing("report", folder)
    assert done.code == 0, done.text
    page, document = (folder / "report.html").read_text(encoding="utf-8"), support.read_json(folder / "search/search.json")
    assert '<section id="search-front"' in page and "<script" not in page
    assert support.read_json(folder / "report.json")["search"]["points"] == document["points"]
    support.write_json(folder / "search/search.json", {**document, "model_digest": "0" * 64})
    done = support.bearing("report", folder)
    assert done.code != 0 and "of another model" in done.err, done.text
    assert (folder / "report.html").read_text(encoding="utf-8") == page


def test_the_same_seed_asks_the_same_whatever_the_layout(run, found, tmp_path):
    want = support.read_json(found / "search.json")
    for name, ranks, more in (("tp", 2, ()), ("replicas", 2, ("--tensor-parallel", "1"))):
        done = search(run, tmp_path / name, *more, ranks=ranks)
        assert done.code == 0, done.text
        got = support.read_json(tmp_path / name / "search.json")
        assert points_of(got) == points_of(want), name
        for a, b in zip(got["trials"], want["trials"]):
            assert (a["score"] is None) == (b["score"] is None)
            if a["score"]:
                assert a["score"]["metric"] == pytest.approx(b["score"]["metric"], abs=1e-4)
                assert a["score"]["kl"] == pytest.approx(b["score"]["kl"], abs=1e-5)
        assert [p["trial"] for p in got["points"]] == [p["trial"] for p in want["points"]]
    done = search(run, tmp_path / "other", "--seed", "2")
    assert points_of(support.read_json(tmp_path / "other/search.json")) != points_of(want)


def without_times(document):
    return {k: v for k, v in document.items() if k not in ("seconds", "trial_seconds", "trials_resumed")}


def test_an_interrupted_search_goes_on(run, found, tmp_path):
    want = support.read_json(found / "search.json")
    lines = (found / "trials.jsonl").read_text().splitlines(keepends=True)
    # Killed while the third generation was written: two whole ones, one trial, a torn line.
    out = tmp_path / "out"
    out.mkdir()
    (out / "trials.jsonl").write_text("".join(lines[:1 + 4 + 4 + 1]) + lines[10][:20])
    done = search(run, out)
    assert done.code == 0, done.text
    got = support.read_json(out / "search.json")
    assert got["trials_resumed"] == 8
    assert without_times(got) == without_times(want)
    # Finished: nothing is run again, not even the answers.
    again = search(run, out)
    assert again.code == 0 and support.read_json(out / "search.json")["trials_resumed"] == 14
    # More trials go on from there.
    more = search(run, out, trials=20)
    assert more.code == 0, more.text
    longer = support.read_json(out / "search.json")
    assert len(longer["trials"]) == 20 and points_of(longer)[:12] == points_of(want)[:12]


def test_a_point_becomes_weights(run, found, tmp_path):
    document = support.read_json(found / "search.json")
    ids = support.TINY / "token_ids" / f"{MODEL.name}.json"
    rows = json.loads(ids.read_text())
    model = plain_model.load_model(MODEL)
    for point in document["points"]:
        out = tmp_path / f"point-{point['point']}"
        done = support.bearing("edit", "--model", MODEL, "--search", found / "search.json", "--point", point["point"], "--out", out)
        assert done.code == 0, done.text
        traced = tmp_path / "trace.safetensors"
        done = support.bearing("trace", "--model", out, "--token-ids", ids, "--out", traced, "--threads", 1)
        assert done.code == 0, done.text
        direction = direction_of(run, point, point["position"]).float()
        with torch.inference_mode(), plain_model.removed_by_strength(model, direction, strength_of(point)):
            want = torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])
        assert (load_file(traced)["logits"] - want).abs().max() < 1e-3
        record = support.read_json(out / "bearing.json")
        assert record["direction"][0]["metadata"]["search_point"] == str(point["point"])
    adapter = support.bearing("edit", "--model", MODEL, "--search", found / "search.json", "--point", 0, "--form", "lora", "--out",
                              tmp_path / "adapter")
    assert adapter.code == 0, adapter.text
    assert (tmp_path / "adapter/adapter_model.safetensors").exists()


@pytest.mark.parametrize("name", ["llama-tied", "gemma2-bf16", "mixtral-bf16", "qwen3-bf16"])
def test_strengths_of_a_trace_are_those_of_hooks(name, tmp_path):
    model_folder = support.TINY / name
    direction = support.TINY / "directions" / f"{name}.safetensors"
    ids = support.TINY / "token_ids" / f"{name}.json"
    done = support.bearing("trace", "--model", model_folder, "--token-ids", ids, "--out", tmp_path / "t.safetensors", "--ablate",
                           direction, "--strength", "0.9", "--strength", "attention=0.5", "--strength", "mlp=1.5", "--strength",
                           "embedding=0.3", "--layer-strength", "1=0.4", "--threads", 1)
    assert done.code == 0, done.text
    factor = {"embedding": 0.3, "attention": 0.5, "mlp": 1.5}
    model = plain_model.load_model(model_folder)
    unit = plain_model.load_direction(direction)[0].float()
    with torch.inference_mode(), plain_model.removed_by_strength(
            model, unit, lambda component, layer: 0.9 * factor[component] * (0.4 if layer == 1 else 1)):
        want = torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in json.loads(ids.read_text())])
    got = load_file(tmp_path / "t.safetensors")["logits"]
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


def test_wrong_input_is_named(run, found, tmp_path):
    def refused(*words, arguments):
        done = support.bearing(*arguments)
        assert done.code in (2, 3, 6), done.text
        for word in words:
            assert word in done.err, done.text

    refused("manifest.json", str(tmp_path), arguments=["search", tmp_path, "--out", tmp_path / "out"])
    refused("--positive", arguments=["search", run, "--out", tmp_path / "out", "--positive", MODEL / "config.json"])
    refused("--layers", "layers=", arguments=["search", run, "--out", tmp_path / "out", "--last-layer", 99])
    refused("--position", arguments=["search", run, "--out", tmp_path / "out", "--position", -99])
    refused("not that of the run", arguments=["search", run, "--out", tmp_path / "out", "--model", support.TINY / "llama-tied"])
    refused("another search", "seed", arguments=["search", run, "--out", found, *SMALL, "--seed", "5"])
    refused("finished run", arguments=["search", run, "--out", run])
    edit = ["edit", "--model", MODEL, "--out", tmp_path / "edited"]
    refused("--direction", arguments=edit)
    refused("--point", arguments=[*edit, "--search", found / "search.json"])
    refused("point=99", arguments=[*edit, "--search", found / "search.json", "--point", 99])
    refused("--strength", arguments=[*edit, "--search", found / "search.json", "--point", 0, "--strength", "0.5"])
    refused("another model", arguments=["edit", "--model", support.TINY / "qwen2-bf16", "--search", found / "search.json", "--point",
                                        0, "--out", tmp_path / "edited"])
    # A changed artifact of the run, and directions of another search.
    changed = shutil.copytree(run, tmp_path / "run")
    (changed / "collect.json").write_text((changed / "collect.json").read_text() + " ")
    done = support.bearing("search", changed, "--out", tmp_path / "out")
    assert done.code == 1 and "collect.json" in done.err, done.text
    mixed = shutil.copytree(found, tmp_path / "mixed")
    bytes_before = (mixed / "search.safetensors").read_bytes()
    (mixed / "search.safetensors").write_bytes(bytes_before[:-8] + bytes(8))
    done = support.bearing(*edit, "--search", mixed / "search.json", "--point", 0)
    assert done.code != 0 and "not those of this search" in done.err, done.text
    assert not (tmp_path / "edited").exists()
