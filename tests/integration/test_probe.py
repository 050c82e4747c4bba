"""`bearing probe` against transformers, closed forms and numpy: projections, what heads and MLPs write, quantiles, the page."""

import json
import os
import re
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import support

import plain_model
import probe
from test_job_tiny import Page

TINY = support.TINY


def second_direction(folder, model, path):
    d = json.loads((TINY / model / "config.json").read_text()).get("hidden_size")
    torch.manual_seed(5)
    save_file({"direction": torch.randn(d or 32)}, path, metadata={"concept": "noise", "layer": "1", "position": "-1"})
    return path


def run_probe(model, out, *arguments, ranks=1):
    return support.bearing("probe", "--model", TINY / model, "--out", out, "--ranks", ranks, "--threads", 1, *arguments)


def token_ids(model):
    return TINY / f"token_ids/{model}.json"


def close(got, want, tolerance, what):
    worst = (got.double() - want).abs().max().item()
    assert worst <= tolerance * max(1.0, want.abs().max().item()), (what, worst)


CASES = [("llama-tied", 1), ("llama-tied", 2), ("qwen3-bias-window", 2), ("gemma2-softcap", 2), ("gemma-mqa", 3), ("mixtral", 2),
         ("phi3-plain", 1), ("qwen1", 1), ("gemma3-window", 1)]


@pytest.mark.parametrize("model, ranks", CASES)
def test_numbers_equal_transformers_and_add_up(tmp_path, model, ranks):
    directions = [TINY / f"directions/{model}.safetensors", second_direction(tmp_path, model, tmp_path / "noise.safetensors")]
    done = run_probe(model, tmp_path / "out", "--token-ids", token_ids(model), "--direction", directions[0], "--direction",
                     directions[1], "--token-prompts", 2, ranks=ranks)
    assert done.code == 0, done.text
    got = load_file(tmp_path / "out/probe.safetensors")
    rows = json.loads(token_ids(model).read_text())
    want = probe.probe(plain_model.load_model(TINY / model), rows, probe.unit_directions(directions))
    for name in ("projection", "norm", "attention", "mlp", "heads"):
        close(got[f"first.{name}"], want[name], 1e-4, name)
    for row in range(2):
        close(got[f"first.tokens.{row}.projection"], want[f"tokens.{row}"], 1e-4, "tokens")
        assert got[f"first.tokens.{row}.ids"].tolist() == rows[row]
    assert "first.tokens.2.ids" not in got

    # The embedding and the writes are all there is; the heads and the bias are all that attention writes.
    projection, attention = got["first.projection"].double(), got["first.attention"].double()
    total = projection[..., 0] + attention.sum(-1) + got["first.mlp"].double().sum(-1)
    close(total, projection[..., -1], 1e-4, "closure")
    assert support.read_json(tmp_path / "out/probe.json")["largest_remainder"] <= 1e-5
    if not json.loads((TINY / model / "config.json").read_text()).get("attention_bias"):
        close(got["first.heads"].double().sum(-1), attention, 1e-4, "heads")


def test_ranks_give_the_same(tmp_path):
    found = []
    for ranks in (1, 2, 3):
        out = tmp_path / f"{ranks}.safetensors"
        done = run_probe("llama-tied", out, "--token-ids", token_ids("llama-tied"), "--direction",
                         TINY / "directions/llama-tied.safetensors", ranks=ranks)
        assert done.code == 0, done.text
        found.append(load_file(out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors", "3.safetensors"]
    for other in found[1:]:
        for name, tensor in found[0].items():
            close(other[name], tensor.double(), 1e-4, name)


@pytest.fixture(scope="module")
def suffixed(tmp_path_factory):
    """The same prompts with and without a suffix."""
    folder = tmp_path_factory.mktemp("suffix")
    prompts = support.write_prompts(folder) / "positive_train.json"
    done = run_probe("llama-tied", folder / "out", "--prompts", prompts, "--suffix", " <end> now", "--direction",
                     TINY / "directions/llama-tied.safetensors", ranks=2)
    assert done.code == 0, done.text
    return folder, prompts, done


def test_a_suffix_makes_the_second_set(suffixed):
    folder, prompts, done = suffixed
    tokenizer = plain_model.load_tokenizer(TINY / "llama-tied")
    instructions = plain_model.load_instructions(prompts)
    got = load_file(folder / "out/probe.safetensors")
    report = support.read_json(folder / "out/probe.json")
    basis = probe.unit_directions([TINY / "directions/llama-tied.safetensors"])
    assert [s["label"] for s in report["sets"]] == ["positive_train.json", "positive_train.json + suffix"]
    for name, suffix in (("first", ""), ("second", " <end> now")):
        rows = plain_model.token_ids(tokenizer, [i + suffix for i in instructions])
        want = probe.probe(plain_model.load_model(TINY / "llama-tied"), rows, basis)
        close(got[f"{name}.projection"], want["projection"], 1e-4, name)
        close(got[f"{name}.heads"], want["heads"], 1e-4, name)
    difference = (got["second.heads"].double().mean(0) - got["first.heads"].double().mean(0))[0]
    close(torch.tensor(report["difference"][0]["heads"]), difference, 1e-6, "difference")
    texts = report["sets"][0]["token_texts"]
    assert len(texts) == 4 and [t["prompt"] for t in texts] == [0, 1, 2, 3]
    assert [len(t["tokens"]) for t in texts] == [len(r) for r in plain_model.token_ids(tokenizer, instructions)[:4]]
    assert "positive_train.json + suffix, 12 prompts: projection" in done.out


def test_means_and_quantiles_equal_numpy(suffixed):
    folder, _, _ = suffixed
    got, report = load_file(folder / "out/probe.safetensors"), support.read_json(folder / "out/probe.json")
    for s, name in enumerate(("first", "second")):
        projection, norm = got[f"{name}.projection"].double().numpy(), got[f"{name}.norm"].double().numpy()
        of = report["sets"][s]["directions"][0]
        for key, values in (("projection", projection[:, 0]), ("cosine", projection[:, 0] / norm)):
            assert np.allclose(of[key]["mean"], values.mean(0), atol=1e-9)
            for quantile, share in (("q10", 0.1), ("q25", 0.25), ("median", 0.5), ("q75", 0.75), ("q90", 0.9)):
                assert np.allclose(of[key][quantile], np.quantile(values, share, axis=0), atol=1e-9), (key, quantile)
        assert np.allclose(report["sets"][s]["norm"], norm.mean(0), rtol=1e-6)
        for key in ("attention", "mlp"):
            assert np.allclose(of[key], got[f"{name}.{key}"].double().numpy().mean(0)[0], atol=1e-7)


def test_the_page_is_self_contained(suffixed):
    folder, _, _ = suffixed
    text = (folder / "out/probe.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.problems == [] and page.open == []
    assert "script" not in page.tags and [r for r in page.references if not r.startswith("#")] == []
    assert page.tags.count("svg") == 2 + 1 + 1 + 4, "by layer, writes, heads, two maps of tokens a set"
    assert str(folder) not in text and str(support.ROOT) not in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_a_second_file_makes_the_second_set(tmp_path):
    ids = json.loads(token_ids("llama-tied").read_text())
    other = support.write_json(tmp_path / "other.json", [row[::-1] for row in ids[:1]])
    done = run_probe("llama-tied", tmp_path / "out", "--token-ids", token_ids("llama-tied"), "--compare", other, "--direction",
                     TINY / "directions/llama-tied.safetensors", "--token-prompts", 0)
    assert done.code == 0, done.text
    got = load_file(tmp_path / "out/probe.safetensors")
    assert (len(got["first.norm"]), len(got["second.norm"])) == (len(ids), 1)
    assert not [name for name in got if ".tokens." in name]


def test_wrong_input_is_named(tmp_path):
    direction = TINY / "directions/llama-tied.safetensors"
    wide = tmp_path / "wide.safetensors"
    save_file({"direction": torch.ones(5)}, wide)
    zero = tmp_path / "zero.safetensors"
    save_file({"direction": torch.zeros(72)}, zero)
    long = support.write_json(tmp_path / "long.json", [[1, 2], [3] * 513])
    outside = support.write_json(tmp_path / "outside.json", [[1, 2], [3, 999999]])
    ids = token_ids("llama-tied")
    for arguments, words in [
            (("--token-ids", ids, "--direction", wide), ["another size", "wide.safetensors", "want=72", "got=5"]),
            (("--token-ids", ids, "--direction", zero), ["zero", "zero.safetensors"]),
            (("--token-ids", long, "--direction", direction), ["longer than the model's context", "prompt=2", "tokens=513"]),
            (("--token-ids", outside, "--direction", direction), ["outside the vocabulary", "row=2", "id=999999"]),
            (("--token-ids", ids, "--direction", direction, "--suffix", "x"), ["--suffix needs --prompts"])]:
        done = run_probe("llama-tied", tmp_path / "out", *arguments)
        assert done.code == 2, done.text
        assert all(word in done.err for word in words), done.err
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def peak_memory(command):
    """Exit code and peak resident memory in MiB of a program."""
    child = subprocess.Popen(list(map(str, command)), env=support.environment(), stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def test_memory_does_not_grow_with_the_prompts(tmp_path):
    peaks = []
    for count in (500, 20000):
        rows = [[1 + (i * 7 + j * j) % 250 for j in range(6 + i % 5)] for i in range(count)]
        ids = support.write_json(tmp_path / f"{count}.json", rows)
        code, peak = peak_memory([support.BIN / "bearing", "probe", "--model", TINY / "llama-tied", "--token-ids", ids, "--direction",
                                  TINY / "directions/llama-tied.safetensors", "--out", tmp_path / f"out-{count}", "--threads", 1])
        assert code == 0
        peaks.append(peak)
    with safe_open(tmp_path / "out-20000/probe.safetensors", "pt") as file:
        assert file.get_slice("first.projection").get_shape()[0] == 20000
    # What each prompt costs is its token ids (about 100 bytes) and what reading the JSON takes for a moment.
    assert peaks[1] < peaks[0] + 64, peaks
