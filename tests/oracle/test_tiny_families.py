"""The tiny models of every family: reproducible, named as published, and different when any of their knobs is turned."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden" / "tiny"
sys.path.insert(0, str(HERE))
import compare
import make_tiny_models
import plain_model
import tiny_layout
import trace
from tiny_families import TINY

TOLERANCE = 1e-4
FAMILIES = [name for name, tiny in TINY.items() if tiny.prompts == "prompts_long.json"]
RECORD = json.loads((GOLDEN / "generator.json").read_text())
# The models are far too small for more.
torch.set_num_threads(1)


def rows_of(name):
    return json.loads((GOLDEN / "token_ids" / f"{name}.json").read_text())


def golden(name, kind="plain"):
    return load_file(GOLDEN / "traces" / f"{name}.{kind}.safetensors")


def worst(found, expected):
    return compare.worst(compare.compare_traces(found, expected))


def traces_of(name):
    """The three traces of a committed model, computed here."""
    return make_tiny_models.traces_of(plain_model.load_model(GOLDEN / name), rows_of(name),
                                      GOLDEN / "directions" / f"{name}.safetensors")


def test_the_table_and_the_folder_agree():
    assert list(RECORD["models"]) == list(TINY)
    for name in TINY:
        assert (GOLDEN / name / "config.json").exists() and (GOLDEN / "token_ids" / f"{name}.json").exists(), name


@pytest.mark.parametrize("name", FAMILIES)
def test_golden_traces_are_reproduced(name):
    for kind, here in traces_of(name).items():
        assert worst(here, golden(name, kind))["error"] <= TOLERANCE, kind
    assert plain_model.token_ids(plain_model.load_tokenizer(GOLDEN / name),
                                 plain_model.load_instructions(GOLDEN / "prompts_long.json")) == rows_of(name)


@pytest.mark.parametrize("name", ["gemma2-softcap", "qwen2-moe", "qwen1"])
def test_made_again_a_model_is_the_same(name, tmp_path):
    for folder in ("traces", "directions", "token_ids"):
        (tmp_path / folder).mkdir()
    assert make_tiny_models.make(name, tmp_path, RECORD["seed"]) == RECORD["models"][name]
    weights, committed = (load_file(folder / name / "model.safetensors") for folder in (tmp_path, GOLDEN))
    assert weights.keys() == committed.keys() and all(torch.equal(weights[key], committed[key]) for key in weights)
    assert json.loads((tmp_path / name / "config.json").read_text()) == json.loads((GOLDEN / name / "config.json").read_text())
    # The traces of the committed model on this machine, since other instruction sets round otherwise (how far is tested above).
    for kind, here in traces_of(name).items():
        assert worst(load_file(tmp_path / "traces" / f"{name}.{kind}.safetensors"), here)["error"] <= 1e-6, kind


@pytest.mark.parametrize("name", FAMILIES)
def test_ablation_leaves_nothing_and_addition_starts_behind_its_layer(name):
    direction = load_file(GOLDEN / "directions" / f"{name}.safetensors")["direction"]
    plain, ablated, added = (golden(name, kind)["residual"] for kind in ("plain", "ablated", "added"))
    assert (ablated @ direction).abs().max() < 1e-5 * ablated.abs().max()
    assert (plain @ direction).abs().max() > 0.05 * plain.abs().max()
    assert torch.equal(plain[:, :2], added[:, :2])
    assert not torch.allclose(plain[:, 2], added[:, 2], atol=1e-2)


def last_logits(folder, rows):
    return trace.trace(plain_model.load_model(folder), rows)["logits"]


def turned(name, folder, change):
    """The largest change of a logit, relative to the largest logit, when config.json is changed."""
    shutil.copytree(GOLDEN / name, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    logits = golden(name)["logits"]
    return ((last_logits(folder, rows_of(name)) - logits).abs().max() / logits.abs().max()).item()


def setting(**changes):
    return lambda config: config | changes


def long_as_short(config):
    return config | {"rope_scaling": config["rope_scaling"] | {"long_factor": config["rope_scaling"]["short_factor"]}}


def rope_changed(**changes):
    return lambda config: config | {"rope_parameters": config["rope_parameters"] | changes}


@pytest.mark.parametrize("name, change", [
    ("mistral-window", setting(sliding_window=None)), ("mistral-window", setting(sliding_window=9)),
    ("qwen2-window", setting(use_sliding_window=False)), ("qwen2-window", setting(max_window_layers=1)),
    ("qwen3-yarn", setting(rope_scaling=None)), ("qwen3-bias-window", setting(sliding_window=9)),
    ("llama-linear-mqa", setting(rope_scaling=None)), ("qwen1", setting(rotary_emb_base=100)),
    ("gemma-mqa", setting(rms_norm_eps=0.1)), ("gemma-mqa", setting(hidden_activation="x", hidden_act="silu")),
    ("gemma2-softcap", setting(attn_logit_softcapping=None)), ("gemma2-softcap", setting(final_logit_softcapping=None)),
    ("gemma2-softcap", setting(query_pre_attn_scalar=10)), ("gemma2-softcap", setting(sliding_window=9)),
    ("gemma3-window", setting(sliding_window=9)), ("gemma3-window", setting(rope_scaling=None)),
    ("gemma3-window", setting(rope_local_base_freq=1000.0)), ("gemma3-window", setting(sliding_window_pattern=2)),
    ("phi3-short", setting(original_max_position_embeddings=16)), ("phi3-long", long_as_short),
    ("phi3-long", setting(sliding_window=None)), ("phi3-mixed", rope_changed(short_factor=[1.0] * 3)),
    ("phi3-plain", setting(sliding_window=None)), ("mixtral", setting(num_experts_per_tok=1)),
    ("qwen2-moe", setting(norm_topk_prob=True)), ("qwen3-moe", setting(norm_topk_prob=False)),
])
def test_every_knob_matters(name, change, tmp_path):
    assert turned(name, tmp_path / "turned", change) > 10 * TOLERANCE


def test_dynamic_scaling_acts_beyond_the_trained_length_only(tmp_path):
    assert turned("llama-dynamic-mha", tmp_path / "within", setting(rope_scaling=None)) < 1e-6
    assert turned("llama-dynamic-mha", tmp_path / "beyond", setting(max_position_embeddings=16)) > 10 * TOLERANCE


def test_longrope_limits_lie_where_the_names_say():
    limits = {"phi3-short": 128, "phi3-long": 16, "phi3-mixed": 40}
    for name, limit in limits.items():
        config = json.loads((GOLDEN / name / "config.json").read_text())
        assert config["original_max_position_embeddings"] == limit
        beyond = {len(row) > limit for row in rows_of(name)}
        assert beyond == {"phi3-short": {False}, "phi3-long": {True}, "phi3-mixed": {False, True}}[name]
    assert max(len(row) for name in FAMILIES for row in rows_of(name)) >= 24


@pytest.mark.parametrize("name", [name for name, entry in RECORD["models"].items() if "smallest_router_gap" in entry])
def test_no_router_is_undecided(name):
    assert RECORD["models"][name]["smallest_router_gap"] >= make_tiny_models.SMALLEST_GAP


@pytest.mark.parametrize("name, present, absent", [
    ("mixtral", ["model.layers.1.block_sparse_moe.experts.3.w1.weight", "model.layers.0.block_sparse_moe.gate.weight"],
     ".mlp."),
    ("qwen2-moe", ["model.layers.1.mlp.experts.3.gate_proj.weight", "model.layers.1.mlp.shared_expert.down_proj.weight",
                   "model.layers.5.mlp.shared_expert_gate.weight", "model.layers.3.mlp.down_proj.weight"], "gate_up_proj"),
    ("qwen3-moe", ["model.layers.2.mlp.experts.5.down_proj.weight", "model.layers.2.mlp.gate.weight"], "gate_up_proj"),
    ("qwen1", ["transformer.wte.weight", "transformer.h.2.attn.c_attn.bias", "transformer.h.0.mlp.w2.weight"], "model."),
    ("gemma3-vision", ["language_model.model.layers.0.self_attn.q_proj.weight", "language_model.model.norm.weight",
                       "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
                       "multi_modal_projector.mm_input_projection_weight"], "lm_head"),
])
def test_tensors_have_their_published_names(name, present, absent):
    names = load_file(GOLDEN / name / "model.safetensors").keys()
    assert set(present) <= names
    assert not [n for n in names if absent in n and not n.startswith(("language_model.", "vision_tower."))]


def test_a_model_with_vision_is_its_language_model_on_text():
    whole = plain_model.load_model(GOLDEN / "gemma3-vision")
    text = make_tiny_models.transformers.Gemma3ForCausalLM(whole.config.text_config).eval()
    text.model.load_state_dict(whole.model.language_model.state_dict())
    text.tie_weights()
    assert worst(trace.trace(text, rows_of("gemma3-vision")), golden("gemma3-vision"))["error"] <= 1e-6


def test_qwen1_names_go_both_ways():
    tensors = load_file(GOLDEN / "qwen1" / "model.safetensors")
    model = plain_model.load_model(GOLDEN / "qwen1")
    back = tiny_layout.qwen1_tensors(model.state_dict())
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)
