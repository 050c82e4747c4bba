"""Whatever is wrong with a job is said in one line that names it, at once, and nothing is left that looks finished."""

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

import support

MODEL = support.TINY / "llama-tied"
INVALID, FAILED = 2, 1
SECONDS = 20  # Generous: a loaded machine needs a few seconds to start a program.


@pytest.fixture
def model(tmp_path):
    """A copy of a tiny model, to be damaged."""
    return shutil.copytree(MODEL, tmp_path / "model")


def assert_refused(done, out, *names, code=INVALID):
    """One line on standard error that names each of `names`."""
    assert done.code == code, done.text
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("bearing: "), done.text
    for name in names:
        assert str(name) in lines[0], f"does not name {name!r}: {lines[0]}"
    assert done.seconds < SECONDS, done.text
    assert_nothing_finished(out)


def assert_nothing_finished(out):
    assert not (out / "manifest.json").exists() and not (out / "checkpoint").exists() and not (out / "report.html").exists()


def refused(tmp_path, prompts, *names, folder=MODEL, **changes):
    """`run` and `validate` both refuse the job, and `run` leaves no folder."""
    job = support.write_job(tmp_path / "job.json", folder, prompts, **changes)
    assert_refused(support.run_job(job, tmp_path / "out"), tmp_path / "out", *names)
    assert not (tmp_path / "out").exists()
    assert_refused(support.bearing("validate", "-f", job, "--set", f"output={tmp_path}/out"), tmp_path / "out", *names)


# The job file.

def test_no_such_job_file(tmp_path):
    done = support.run_job(tmp_path / "none.yaml", tmp_path / "out")
    assert_refused(done, tmp_path / "out", "none.yaml")


def test_not_yaml(tmp_path):
    (tmp_path / "job.yaml").write_text("apiVersion: bearing/v1\nkind: [Job\n")
    assert_refused(support.run_job(tmp_path / "job.yaml", tmp_path / "out"), tmp_path / "out", "job.yaml")


@pytest.mark.parametrize("changes, names", [
    ({"select": {"kl_maks": 0.2}}, ["select.kl_maks", "did you mean", "kl_max"]),
    ({"selekt": {}}, ["selekt", "did you mean", "select"]),
    ({"model": {"pth": "x"}}, ["pth", "did you mean", "path"]),
    ({"select": {"kl_max": -1}}, ["select.kl_max"]),
    ({"select": {"kl_max": "much"}}, ["kl_max", "much"]),
    ({"select": {"prune_layers": 1.5}}, ["select.prune_layers"]),
    ({"select": {"when_none_passes": "guess"}}, ["select.when_none_passes", "guess", "relax_kl"]),
    ({"model": {"dtype": "float8"}}, ["model.dtype", "float8", "bfloat16"]),
    ({"evaluate": {"max_new_tokens": -4}}, ["evaluate.max_new_tokens"]),
    ({"apiVersion": "bearing/v9"}, ["apiVersion", "bearing/v9", "bearing/v1"]),
    ({"kind": "Pod"}, ["kind", "Job"]),
], ids=json.dumps)
def test_wrong_field(tmp_path, prompts, changes, names):
    refused(tmp_path, prompts, *names, **changes)


def test_wrong_set_option(tmp_path, prompts):
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    done = support.run_job(job, tmp_path / "out", 1, "--set", "select.kl_maxx=1")
    assert_refused(done, tmp_path / "out", "select.kl_maxx", "did you mean")


def test_more_ranks_than_heads(tmp_path, prompts):
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    assert_refused(support.run_job(job, tmp_path / "out", 10), tmp_path / "out", "ranks", "10", "9")


# Prompts.

def test_missing_prompt_section(tmp_path, prompts):
    spec = support.job_spec(MODEL, prompts)
    del spec["prompts"]["negative"]["train"]
    done = support.run_job(support.write_json(tmp_path / "job.json", spec), tmp_path / "out")
    assert_refused(done, tmp_path / "out", "prompts.negative.train")


def test_missing_prompt_file(tmp_path, prompts):
    (prompts / "positive_validation.json").unlink()
    refused(tmp_path, prompts, "prompts.positive.validation.file", "positive_validation.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_forbidden_prompt_file(tmp_path, prompts):
    (prompts / "positive_train.json").chmod(0)
    refused(tmp_path, prompts, "prompts.positive.train.file", "positive_train.json")


def test_folder_for_a_prompt_file(tmp_path, prompts):
    (prompts / "positive_train.json").unlink()
    (prompts / "positive_train.json").mkdir()
    refused(tmp_path, prompts, "prompts.positive.train.file", "positive_train.json")


@pytest.mark.parametrize("content, names", [
    ("[]", ["no prompts"]),
    ("", []),
    ('[{"instruction": "a"}, ', []),
    ('[{"text": "a"}]', ["instruction"]),
    ('[{"instruction": ""}]', []),
    (b"\xff\xfe\x00", ["UTF-8"]),
], ids=repr)
def test_unusable_prompt_file(tmp_path, prompts, content, names):
    path = prompts / "negative_train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path, prompts, "prompts.negative.train.file", "negative_train.json", *names)


def test_more_prompts_wanted_than_there_are(tmp_path, prompts):
    spec = support.job_spec(MODEL, prompts)
    spec["prompts"]["positive"]["train"]["count"] = 13
    done = support.run_job(support.write_json(tmp_path / "job.json", spec), tmp_path / "out")
    assert_refused(done, tmp_path / "out", "prompts.positive.train", "12", "13")


def test_sets_that_share_a_prompt(tmp_path, prompts):
    shutil.copy(prompts / "positive_train.json", prompts / "positive_test.json")
    refused(tmp_path, prompts, "prompts.positive.test", "prompts.positive.train", "shares")


# The model.

def test_missing_model(tmp_path, prompts):
    refused(tmp_path, prompts, "no-such-model", folder=tmp_path / "no-such-model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_model_file(tmp_path, prompts, model, name):
    (model / name).unlink()
    refused(tmp_path, prompts, name.split(".")[0], folder=model)


def test_missing_tensor(tmp_path, prompts, model):
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, prompts, "model.layers.1.mlp.down_proj.weight", folder=model)


def test_tensor_that_is_not_understood(tmp_path, prompts, model):
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.extra.weight"] = tensors["model.norm.weight"].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, prompts, "model.layers.1.mlp.extra.weight", folder=model)


def test_tensor_of_another_shape(tmp_path, prompts, model):
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.weight"] = tensors["model.layers.0.self_attn.o_proj.weight"][:, :64].contiguous()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, prompts, "model.layers.0.self_attn.o_proj.weight", "72", "64", folder=model)


@pytest.mark.parametrize("size", [-1000, 100, 0])
def test_truncated_weights(tmp_path, prompts, model, size):
    path = model / "model.safetensors"
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    refused(tmp_path, prompts, "model.safetensors", folder=model)


def test_truncated_shard(tmp_path, prompts):
    model = shutil.copytree(support.TINY / "llama-sharded", tmp_path / "model")
    shard = model / "model-00003-of-00009.safetensors"
    os.truncate(shard, shard.stat().st_size // 2)
    refused(tmp_path, prompts, shard.name, folder=model)


def test_missing_shard(tmp_path, prompts):
    model = shutil.copytree(support.TINY / "llama-sharded", tmp_path / "model")
    (model / "model-00003-of-00009.safetensors").unlink()
    refused(tmp_path, prompts, "model-00003-of-00009.safetensors", folder=model)


@pytest.mark.parametrize("changes, names", [
    ({"model_type": "mystery", "architectures": ["MysteryForCausalLM"]}, ["mystery", "llama", "qwen2"]),
    ({"hidden_act": "tanh"}, ["hidden_act", "tanh"]),
    ({"num_hidden_layers": 4}, ["model.layers.3"]),
    ({"hidden_size": "big"}, ["hidden_size"]),
], ids=json.dumps)
def test_unsupported_config(tmp_path, prompts, model, changes, names):
    support.write_json(model / "config.json", support.read_json(model / "config.json") | changes)
    refused(tmp_path, prompts, *names, folder=model)


def test_no_chat_template(tmp_path, prompts, model):
    (model / "chat_template.jinja").unlink()
    refused(tmp_path, prompts, "chat template", folder=model)


def test_broken_chat_template(tmp_path, prompts, model):
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message")
    refused(tmp_path, prompts, "template", folder=model)


def test_template_that_refuses_the_conversation(tmp_path, prompts, model):
    (model / "chat_template.jinja").write_text("{{ raise_exception('no system prompts here') }}")
    refused(tmp_path, prompts, "no system prompts here", folder=model)


# The concept.

def test_text_of_several_tokens(tmp_path, prompts):
    refused(tmp_path, prompts, "concept.tokens", "zebra", concept={"token_ids": [], "tokens": ["zebra"]})


def test_token_outside_the_vocabulary(tmp_path, prompts):
    refused(tmp_path, prompts, "concept.token_ids", "259", concept={"token_ids": [7, 259]})


# The output folder.

def test_output_with_other_files(tmp_path, prompts):
    note = tmp_path / "out/thesis.txt"
    note.parent.mkdir()
    note.write_text("years of work")
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    assert_refused(support.run_job(job, tmp_path / "out"), tmp_path / "out", "output", "thesis.txt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"] and note.read_text() == "years of work"


def test_output_that_is_a_file(tmp_path, prompts):
    (tmp_path / "out").write_text("a file")
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    assert_refused(support.run_job(job, tmp_path / "out"), tmp_path / "out", "output")


# What only the worker can find out. These jobs start and fail.

def failed(tmp_path, job, *names, code=FAILED):
    """The line of the error is the last but the one that names the log."""
    out = tmp_path / "out"
    done = support.run_job(job, out)
    assert done.code == code, done.text
    lines = [line for line in done.err.splitlines() if line.startswith("bearing: ")]
    assert len(lines) == 1, done.text
    for name in names:
        assert str(name) in lines[0], f"does not name {name!r}: {lines[0]}"
    assert done.seconds < 3 * SECONDS
    assert_nothing_finished(out)
    return done


def test_no_candidate_passes_then_another_job_wants_the_folder(tmp_path, prompts):
    out = tmp_path / "out"
    job = support.write_job(tmp_path / "job.json", MODEL, prompts, select={"complete": False, "induce_min": 5})
    done = failed(tmp_path, job, "select", "no candidate passes", "induce", "select.induce_min is 5", "when_none_passes")
    assert "worker.log" in done.err
    assert (out / ".bearing/stages/collect.json").exists() and not (out / "candidates.json").exists()
    # Other settings do not continue what these began, and do not touch it.
    means = support.sha256(out / "means.safetensors")
    other = support.write_job(tmp_path / "other.json", MODEL, prompts, select={"complete": False, "induce_min": -1000})
    assert_refused(support.run_job(other, out), out, "output", "another job")
    assert support.sha256(out / "means.safetensors") == means


def test_the_filter_leaves_nothing(tmp_path, prompts):
    job = support.write_job(tmp_path / "job.json", MODEL, prompts, collect={"filter": True})
    failed(tmp_path, job, "the filter left no prompt", "positive train", "collect.filter")
