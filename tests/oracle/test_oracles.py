"""The oracles on the tiny models: against hand-written arithmetic, and against files that are wrong on purpose."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "golden" / "tiny"
sys.path.insert(0, str(HERE))
import check_checkpoint
import compare
import plain_model
import refusal_direction
import trace

TOLERANCE = 1e-4
# The models are far too small for more.
torch.set_num_threads(1)


def rows_of(name):
    return json.loads((TINY / "token_ids" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "llama3-rope", "qwen2-bf16", "llama-sharded"])
@pytest.mark.parametrize("kind", ["plain", "ablated", "added"])
def test_golden_traces_are_reproduced(name, kind):
    path = TINY / "directions" / f"{name}.safetensors"
    options = {"plain": {}, "ablated": {"ablate": plain_model.load_direction(path)[0]},
               "added": {"add": plain_model.addition_vector(path), "layer": 1}}[kind]
    found = trace.trace(plain_model.load_model(TINY / name), rows_of(name), **options)
    worst = compare.worst(compare.compare_traces(found, load_file(TINY / "traces" / f"{name}.{kind}.safetensors")))
    assert worst["error"] <= TOLERANCE, worst


def test_ablation_leaves_nothing_of_the_direction_and_addition_starts_behind_its_layer():
    direction = load_file(TINY / "directions" / "llama-tied.safetensors")["direction"]
    plain, ablated, added = (load_file(TINY / "traces" / f"llama-tied.{kind}.safetensors")
                             for kind in ("plain", "ablated", "added"))
    assert (ablated["residual"] @ direction).abs().max() < 1e-5
    assert (plain["residual"] @ direction).abs().max() > 0.1
    assert torch.equal(plain["residual"][:, :2], added["residual"][:, :2])
    assert not torch.allclose(plain["residual"][:, 2], added["residual"][:, 2], atol=1e-2)


def test_prompts_become_the_golden_token_ids():
    tokenizer = plain_model.load_tokenizer(TINY / "qwen2-untied")
    assert plain_model.token_ids(tokenizer, plain_model.load_instructions(TINY / "prompts.json")) == rows_of("qwen2-untied")
    # "<|im_end|>\n<|im_start|>assistant\n" behind the instruction, counted by hand.
    after = rows_of("llama-tied")[2][-plain_model.num_positions(plain_model.load_tokenizer(TINY / "llama-tied")):]
    assert after[0] == 258 and after[2] == 257 and len(after) == 13


def test_padding_does_not_change_scores():
    model, rows = plain_model.load_model(TINY / "qwen2-untied"), rows_of("qwen2-untied")
    batched = refusal_direction.Runner(model, 298, batch_size=32)
    single = refusal_direction.Runner(model, 298, batch_size=1, last_logits_only=True)
    assert torch.allclose(batched.last_logits(rows), single.last_logits(rows), atol=1e-4)
    assert torch.allclose(batched.mean_inputs(rows, 3), single.mean_inputs(rows, 3), atol=1e-4)


def test_metric_and_divergence_against_the_formulas():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], dtype=torch.float64)
    p = [(1 + 2.718281828459045) / (1 + 2.718281828459045 + 7.38905609893065), (20.085536923187668 + 1) / 22.085536923187668]
    expected = torch.tensor([torch.log(torch.tensor(x)) - torch.log(torch.tensor(1 - x)) for x in p])
    assert torch.allclose(refusal_direction.metric(logits, [0, 1]), expected, atol=1e-5)
    assert refusal_direction.divergence(logits, logits).abs().max() == 0
    assert (refusal_direction.divergence(logits, logits.flip(-1)) > 0).all()


def test_rule_prunes_late_layers_and_breaks_ties_by_table_order():
    def entry(position, layer, bypass, kl=0.05, induce=1.0):
        return {"position": position, "layer": layer, "bypass": bypass, "kl": kl, "induce": induce}

    table = [entry(-2, 7, -1.0), entry(-2, 8, -9.0), entry(-1, 3, -1.0), entry(-1, 4, -5.0, kl=0.2),
             entry(-1, 5, -5.0, induce=-0.1), entry(-1, 6, float("nan"))]
    assert refusal_direction.best(table, 10) is table[0]
    assert refusal_direction.best(table[3:], 10) is None


def test_numbers():
    assert refusal_direction.numbers("3,5-7,-1") == [3, 5, 6, 7, -1]


def test_candidates_cover_the_grid_and_compare(tmp_path):
    prompts, done = TINY / "prompts.json", tmp_path / "done"
    sides = [f"--{side}-{part}={prompts}" for side in ("positive", "negative") for part in ("train", "validation")]
    subprocess.run([sys.executable, HERE / "refusal_direction.py", "--model", TINY / "llama-tied", *sides, "--token-ids", "1,2",
                    "--no-filter", "--threads", "1", "--quiet", "--out", done], check=True, capture_output=True)
    table = json.loads((done / "candidates.json").read_text())
    assert len(table["candidates"]) == table["num_layers"] * table["num_positions"] == 3 * 13
    means = load_file(done / "means.safetensors")
    assert means["mean_difference"].shape == (13, 3, 72) and means["mean_difference"].dtype == torch.float64
    assert compare.worst(compare.compare_files("means", done / "means.safetensors", done / "means.safetensors"))["error"] == 0
    assert compare.worst(compare.compare_candidates(table, table))["error"] == 0
    other = copy.deepcopy(table)
    other["candidates"][5]["kl"] += 0.01
    other["candidates"][6]["kl"] = None
    worst = compare.worst(compare.compare_candidates(other, table))
    assert worst["score"] == "kl" and worst["error"] == pytest.approx(0.01)


def test_compare_sees_nan_shape_and_token_differences():
    golden = load_file(TINY / "traces" / "llama-tied.plain.safetensors")
    changed = {name: tensor.clone() for name, tensor in golden.items()}
    changed["residual"][2, 1, 0] = float("nan")
    assert compare.worst(compare.compare_traces(changed, golden))["at"] == [2, 1]
    changed = golden | {"logits": golden["logits"][:, :-1]}
    assert "shape" in compare.worst(compare.compare_traces(changed, golden))["reason"]
    ids = golden["token_ids"].clone()
    ids[3, 0] += 1
    assert "row 3" in compare.worst(compare.compare_traces(golden | {"token_ids": ids}, golden))["reason"]


def edit(name, folder, untie=True):
    """A plain edit of a tiny model, as the checkpoint under test."""
    shutil.copytree(TINY / name, folder)
    direction = load_file(TINY / "directions" / f"{name}.safetensors")["direction"].double()
    direction /= direction.norm()
    source = check_checkpoint.Tensors(TINY / name)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for key, tensor in tensors.items():
            if check_checkpoint.WRITERS.search(key):
                tensors[key] = check_checkpoint.without(direction, key, tensor).to(tensor.dtype)
        if untie and path.name == "model.safetensors" and "lm_head.weight" not in source.files:
            tensors["lm_head.weight"] = source["model.embed_tokens.weight"].clone()
        save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if untie:
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


def check(name, folder, **limits):
    return check_checkpoint.check(TINY / name, folder, TINY / "directions" / f"{name}.safetensors", rows_of(name), **limits)


@pytest.mark.parametrize("name", ["llama-tied", "qwen2-untied", "llama-sharded"])
def test_an_edited_checkpoint_passes(name, tmp_path):
    edit(name, tmp_path / "edited")
    report = check(name, tmp_path / "edited")
    assert report["ok"], report
    assert report["max_logit_difference"] < 1e-4 < 0.1 < report["unedited_logit_difference"]


def test_a_bfloat16_edit_is_rounded_once(tmp_path):
    edit("qwen2-bf16", tmp_path / "edited")
    report = check("qwen2-bf16", tmp_path / "edited", max_logit_difference=0.3)
    assert report["ok"] and report["max_ulp"] <= 1, report


def test_an_edit_in_place_of_tied_embeddings_is_found(tmp_path):
    edit("llama-tied", tmp_path / "edited", untie=False)
    assert any("logits differ" in p for p in check("llama-tied", tmp_path / "edited")["problems"])


def break_tensor(folder, name, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors, name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name, change, words", [
    ("model.layers.1.mlp.gate_proj.weight", lambda t, n: t[n].view(-1)[3].mul_(1.0001), "bytes differ"),
    ("model.layers.1.mlp.down_proj.weight", lambda t, n: t[n].view(-1)[3].add_(0.01), "of its column"),
    ("model.layers.2.input_layernorm.weight", lambda t, n: t.pop(n), "missing"),
    ("model.layers.2.self_attn.extra", lambda t, n: t.__setitem__(n, torch.ones(2)), "does not have"),
])
def test_a_broken_checkpoint_is_found(name, change, words, tmp_path):
    edit("qwen2-untied", tmp_path / "edited")
    break_tensor(tmp_path / "edited", name, change)
    assert any(words in p for p in check("qwen2-untied", tmp_path / "edited")["problems"])
