"""Collect and select on prompt sets of every size: one prompt, equal prompts, many, short beside very long; and where the
concept's tokens come from."""

import random
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import support

import geometry
import plain_model
import refusal_direction

ONLY_DIRECTION = {"evaluate": {"skip": True}, "edit": {"skip": True}}
TOKEN_PROMPTS = 256  # kTokenPrompts of sharding/memory_rules.h


def write_set(folder, name, prompts):
    return support.write_json(folder / f"{name}.json", prompts)


def write_sets(folder, **sets):
    """Small sets, where `sets` has none; test prompts are not needed."""
    support.write_prompts(folder)
    for name, prompts in sets.items():
        write_set(folder, name, prompts)
    return folder


def texts(seed, count, words=(2, 5), begin=""):
    draw = random.Random(seed)
    return [f"{begin}{i} " + " ".join(draw.choice(support.WORDS) for _ in range(draw.randint(*words))) for i in range(count)]


def run(tmp_path, model, prompts, ranks=1, **changes):
    file = support.write_job(tmp_path / "job.json", model, prompts, **{**ONLY_DIRECTION, **changes})
    return support.run_job(file, tmp_path / "out", ranks), tmp_path / "out"


def test_one_prompt_a_set(tmp_path):
    prompts = write_sets(tmp_path, **{f"{side}_{name}": [f"{side} {name}"] for side in support.SIDES
                                      for name in ("train", "validation")})
    done, out = run(tmp_path, support.TINY / "llama-tied", prompts, ranks=2)
    assert done.code == 0, done.text
    found = support.read_json(out / "geometry.json")
    assert [found["positive"], found["negative"]] == [[0], [0]]
    assert all(layer["silhouette"] == 0 for layer in found["layers"])
    assert all(layer["pc1_share"] == pytest.approx(1) for layer in found["layers"][1:])


def test_equal_prompts_count_each(tmp_path):
    once, often = ["loud"], ["loud"] * 40
    differences = []
    for name, train in (("once", once), ("often", often)):
        folder = tmp_path / name
        folder.mkdir()
        done, out = run(folder, support.TINY / "llama-tied", write_sets(folder, positive_train=train, negative_train=["a b"] * 3))
        assert done.code == 0, done.text
        differences.append(load_file(out / "means.safetensors")["mean_difference"])
        assert support.read_json(out / "collect.json")["prompt_sets"]["positive train"]["given"] == len(train)
    assert (differences[0] - differences[1]).abs().max() <= 1e-5 * differences[0].abs().max()


def longer_model(folder, positions):
    """A tiny model that takes so many positions."""
    shutil.copytree(support.TINY / "llama-tied", folder)
    config = support.read_json(folder / "config.json")
    config["max_position_embeddings"] = positions
    support.write_json(folder / "config.json", config)
    return folder


def test_long_prompts_beside_short_ones(tmp_path):
    model = longer_model(tmp_path / "model", 9000)
    long = " ".join(["tea"] * 2100)  # A token a character: about 8,400.
    prompts = write_sets(tmp_path, positive_train=["short", long, "another short"], negative_validation=["b", long[:-1], "c d e"])
    done, out = run(tmp_path, model, prompts, ranks=2, select={"complete": False, "layers": [1], "positions": [-1], "kl_max": 1000,
                                                               "induce_min": -1000, "prune_layers": 0})
    assert done.code == 0, done.text
    loaded, tokenizer = plain_model.load_model(model), plain_model.load_tokenizer(model)
    rows = plain_model.token_ids(tokenizer, ["short", long, "another short"])
    assert len(rows[1]) > 8000
    runner = refusal_direction.Runner(loaded, tokenizer.pad_token_id, batch_size=1)
    want = runner.mean_inputs(rows, plain_model.num_positions(tokenizer))
    got = load_file(out / "means.safetensors")["positive_mean"]
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()


def test_a_prompt_longer_than_the_context_is_named(tmp_path):
    prompts = write_sets(tmp_path, negative_train=["b", "word " * 200])
    done, out = run(tmp_path, support.TINY / "llama-tied", prompts)
    assert done.code == 1 and "INVALID_INPUT" in done.err, done.text
    assert "longer than the model's context" in done.err and "prompt=2" in done.err and "context=512" in done.err
    assert not (out / "means.safetensors").exists()


def test_too_many_prompts_are_refused(tmp_path):
    prompts = write_sets(tmp_path, positive_train=[f"p {i}" for i in range(200001)])
    done, _ = run(tmp_path, support.TINY / "llama-tied", prompts)
    assert done.code == 2 and "200000" in done.err.replace(",", ""), done.text


def peaked_model(folder):
    """A tiny model that is sure of what it says first, and says different things."""
    shutil.copytree(support.TINY / "qwen2-untied", folder)
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] * 200
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("ranks, tensor_parallel", [(1, 1), (2, 2), (2, 1)])
def test_tokens_come_from_the_first_prompts(tmp_path, ranks, tensor_parallel):
    """And everything else from all of them: the filter, the means, the probabilities that are shown."""
    model = peaked_model(tmp_path / "model")
    sets = {"positive_train": texts(1, 300, begin="DO "), "negative_train": texts(2, 270, begin="how ")}
    sets |= {"positive_validation": texts(3, 30, begin="DO it "), "negative_validation": texts(4, 20, begin="how so ")}
    prompts = write_sets(tmp_path, **sets)
    file = support.write_job(tmp_path / "job.json", model, prompts, concept={"token_ids": []}, collect={"filter": True},
                             select={"layers": [1], "positions": [-1]}, tensor_parallel=tensor_parallel, **ONLY_DIRECTION)
    done = support.run_job(file, tmp_path / "out", ranks)
    assert done.code == 0, done.text
    found = support.read_json(tmp_path / "out/collect.json")

    loaded, tokenizer = plain_model.load_model(model), plain_model.load_tokenizer(model)
    runner = refusal_direction.Runner(loaded, tokenizer.pad_token_id)
    rows = {name: plain_model.token_ids(tokenizer, prompts) for name, prompts in sets.items()}
    p = {name: runner.last_logits(of).softmax(-1) for name, of in rows.items()}
    positive, negative = (p[f"{side}_train"][:TOKEN_PROMPTS].mean(0) for side in support.SIDES)
    passing = (positive - negative >= 0.02) & (positive >= 2 * negative)
    want = sorted(torch.nonzero(passing).flatten().tolist(), key=lambda v: (negative[v] - positive[v]).item())[:8]
    assert found["metric_tokens_derived"] and [t["id"] for t in found["metric_tokens"]] == want
    for token in found["metric_tokens"]:
        for side in support.SIDES:
            assert token[f"{side}_probability"] == pytest.approx(p[f"{side}_train"][:, token["id"]].mean().item(), abs=1e-4)
    means = load_file(tmp_path / "out/means.safetensors")
    for side, sign in (("positive", 1), ("negative", -1)):
        for name in ("train", "validation"):
            of = p[f"{side}_{name}"][:, want].sum(-1)
            metric = torch.log(of + 1e-8) - torch.log(1 - of + 1e-8)
            kept = found["prompt_sets"][f"{side} {name}"]["kept"]
            # A prompt at the very border may fall on either side.
            border = set(torch.nonzero(metric.abs() < 1e-3).flatten().tolist())
            assert set(kept) ^ set(torch.nonzero(sign * metric > 0).flatten().tolist()) <= border
            if name == "train":
                assert 0 < len(kept) < len(rows[f"{side}_train"]), "the filter has something to do"
                mean = runner.mean_inputs([rows[f"{side}_train"][i] for i in kept], plain_model.num_positions(tokenizer))
                assert (means[f"{side}_mean"] - mean).abs().max() <= 1e-4 * mean.abs().max()


@pytest.mark.parametrize("ranks, tensor_parallel", [(1, 1), (2, 2), (2, 1)])
def test_dump_and_cosines_equal_the_oracle(tmp_path, ranks, tensor_parallel):
    prompts = write_sets(tmp_path)
    done, out = run(tmp_path, support.TINY / "llama-tied", prompts, ranks, collect={"dump": True}, tensor_parallel=tensor_parallel)
    assert done.code == 0, done.text
    assert "activations.safetensors" in [f["name"] for f in support.read_json(out / "manifest.json")["files"]]
    loaded, tokenizer = plain_model.load_model(support.TINY / "llama-tied"), plain_model.load_tokenizer(support.TINY / "llama-tied")
    runner = refusal_direction.Runner(loaded, tokenizer.pad_token_id)
    dumped = load_file(out / "activations.safetensors")
    for side in support.SIDES:
        rows = plain_model.token_ids(tokenizer, plain_model.load_instructions(prompts / f"{side}_train.json"))
        want = geometry.last_inputs(runner, rows)
        assert np.abs(dumped[side].double().numpy() - want).max() <= 1e-4 * np.abs(want).max()

    difference = load_file(out / "means.safetensors")["mean_difference"].numpy()
    norms = np.linalg.norm(difference, axis=2)
    with np.errstate(invalid="ignore"):
        unit = np.where((norms > 1e-5 * norms.max())[..., None], difference / norms[..., None], np.nan)
    found = support.read_json(out / "geometry.json")["direction_cosines"]
    for got, want in ((found["layers"], np.einsum("pld,pmd->plm", unit, unit)), (found["positions"], np.einsum("pld,qld->lpq", unit, unit))):
        got = np.array([[[np.nan if v is None else v for v in row] for row in matrix] for matrix in got], dtype=float)
        assert got.shape == want.shape and np.array_equal(np.isnan(got), np.isnan(want))
        assert np.isfinite(got).any() and np.nanmax(np.abs(got - want)) <= 1e-4
    report = support.read_json(out / "report.json")["direction_cosines"]
    chosen = support.read_json(out / "candidates.json")
    chosen = chosen["candidates"][chosen["selected"]]
    assert report == {"layers": found["layers"][chosen["position"]], "positions": found["positions"][chosen["layer"]]}


# Writes down which process the worker is, and becomes it.
WRAPPER = """#!/bin/sh
echo $$ > {pid}
exec {worker} "$@"
"""

# Freed blocks of this size and more go back to the kernel at once. What malloc keeps in pieces instead differs from run to run
# by tens of MiB, more than what these tests look for.
UNPOOLED = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}


def run_with_peak(folder, file):
    """The job on one rank: the peak in MiB of what its worker holds. Its group is ended with the job, so that nobody can wait for
    its usage: the peak so far is read while it runs."""
    wrapper, pid = folder / "worker", folder / "pid"
    wrapper.write_text(WRAPPER.format(worker=support.BIN / "bearing-worker", pid=pid))
    wrapper.chmod(0o755)
    peaks, done = [0], threading.Event()

    def watch():
        while not done.wait(0.05):
            try:
                status = Path("/proc", pid.read_text().strip(), "status").read_text()
            except OSError:
                continue
            if (found := re.search(r"Name:\s+bearing-worker.*VmHWM:\s+(\d+)", status, re.DOTALL)) is not None:
                peaks.append(int(found.group(1)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        finished = subprocess.run([support.BIN / "bearing", "run", file, "--out", folder / "out", "--ranks", "1", "--threads", "1"],
                                  env={**support.environment(), **UNPOOLED, "BEARING_WORKER": str(wrapper)},
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    finally:
        done.set()
        watcher.join()
    assert finished.returncode == 0, finished.stderr
    return max(peaks) / 1024


def collect_peak(folder, model, count):
    folder.mkdir()
    prompts = write_sets(folder, positive_train=texts(5, count, begin="DO "), negative_train=texts(6, count, begin="how "),
                         positive_validation=texts(3, 30, begin="DO it "), negative_validation=texts(4, 20, begin="how so "))
    file = support.write_job(folder / "job.json", model, prompts, concept={"token_ids": []}, collect={"filter": True},
                             select={"layers": [1], "positions": [-1]}, **ONLY_DIRECTION)
    return run_with_peak(folder, file)


def test_memory_of_collect_does_not_grow_with_the_prompts(tmp_path):
    """While the tokens are to be derived, too."""
    model = peaked_model(tmp_path / "model")
    few, many = (collect_peak(tmp_path / str(count), model, count) for count in (1500, 6000))
    # Texts while they are tokenized, then token ids; not residuals, nor anything of a batch that is done.
    assert few > 50 and many < few + 25, (few, many)


def test_memory_of_costs_does_not_grow_with_the_items(tmp_path):
    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        prompts = write_sets(folder)
        write_set(folder, "items", [{"text": text} for text in texts(7, count, words=(3, 12))])
        file = support.write_job(folder / "job.json", support.TINY / "llama-tied", prompts, select={"layers": [1], "positions": [-1]},
                                 costs={"texts": [{"file": str(folder / "items.json")}]}, **ONLY_DIRECTION)
        return run_with_peak(folder, file)

    few, many = peak(1500), peak(6000)
    assert few > 50 and many < few + 25, (few, many)


def test_memory_of_evaluate_judge_and_report_does_not_grow_with_the_prompts(tmp_path):
    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        prompts = write_sets(folder, positive_test=texts(8, count, begin="DO "), negative_test=texts(9, count, begin="how "))
        file = support.write_job(folder / "job.json", support.TINY / "llama-tied", prompts, edit={"skip": True},
                                 select={"layers": [1], "positions": [-1]}, evaluate={"max_new_tokens": 3})
        found = run_with_peak(folder, file)
        report = support.read_json(folder / "out/report.json")
        assert all(rate["n"] == count for rate in report["rates"])
        assert {c["prompts"] for c in report["completions_shown"]} == {count}
        return found, (folder / "out/report.html").stat().st_size + (folder / "out/report.json").stat().st_size

    few, many = peak(250), peak(2000)
    assert few[0] > 50 and many[0] < few[0] + 30 and many[1] < 1.1 * few[1], (few, many)
