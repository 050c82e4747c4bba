"""The facts beside the configs of real models, compared with the modules that transformers builds from those configs."""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "sharding" / "data" / "configs"
sys.path.insert(0, str(HERE))
import config_facts

FACTS = json.loads((CONFIGS / "facts.json").read_text())
READ = {name: json.loads((CONFIGS / name).read_text()) for name in FACTS}


def test_every_config_has_its_facts():
    assert (CONFIGS / "facts.json").read_text() == config_facts.text_of_facts(config_facts.all_facts(CONFIGS))
    assert {path.name for path in CONFIGS.glob("*.json")} == {*FACTS, "facts.json"}


def on_meta(name):
    """Modules without memory. Qwen-1 is not in transformers."""
    raw = READ[name]
    config = transformers.AutoConfig.for_model(raw["model_type"]).from_dict(raw)
    with torch.device("meta"):
        return config, transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", [name for name, raw in READ.items() if raw["model_type"] != "qwen"])
def test_facts_are_what_transformers_builds(name):
    config, model = on_meta(name)
    facts, text = FACTS[name], config.get_text_config()
    assert sum(p.numel() for p in model.parameters()) == facts["parameters"]
    assert (text.num_hidden_layers, text.hidden_size, text.vocab_size) == (
        facts["layers"], facts["d_model"], facts["vocab_size"])
    assert (text.num_attention_heads, text.num_key_value_heads) == (facts["heads"], facts["kv_heads"])
    assert config.tie_word_embeddings == facts["tied"]
    if "text_parameters" in facts:
        assert sum(p.numel() for p in model.model.language_model.parameters()) == facts["text_parameters"]
    decoder = getattr(model.model, "language_model", model.model)
    o_proj = decoder.layers[0].self_attn.o_proj
    assert o_proj.in_features == facts["heads"] * facts["head_dim"]
    windows = [i for i, layer in enumerate(decoder.layers) if window_of(layer, text)]
    assert windows == facts.get("window_layers", [])
    assert [i for i, layer in enumerate(decoder.layers) if hasattr(layer.mlp, "experts")] == facts.get("moe_layers", [])


def window_of(layer, config):
    if getattr(config, "layer_types", None):
        return config.layer_types[layer.self_attn.layer_idx] == "sliding_attention"
    return getattr(config, "sliding_window", None)


@pytest.mark.parametrize("name, published", [
    ("Qwen-1_8B-Chat.json", 1836828672), ("Qwen-7B-Chat.json", 7721324544), ("Qwen-14B-Chat.json", 14167290880),
    ("Qwen-72B-Chat.json", 72287920128)])
def test_qwen1_has_the_published_number_of_parameters(name, published):
    assert FACTS[name]["parameters"] == published
