"""Jobs that write other forms of the edit than a checkpoint, and edits that add: the same numbers as the definitions, by other
programs' readers."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

import support  # noqa: E402


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return support.write_prompts(tmp_path_factory.mktemp("prompts"))


def run(tmp_path, model, prompts, edit, ranks=1, **changes):
    job = support.write_job(tmp_path / "job.json", support.TINY / model, prompts, edit=edit, evaluate={"skip": True}, **changes)
    return support.run_job(job, tmp_path / "out", ranks), tmp_path / "out"


def layer_from_2(**select):
    return {"kl_max": 1000, "induce_min": -1000, "prune_layers": 0, "layers": [2], **select}


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_form_in_one_job(ranks, prompts, tmp_path):
    peft, gguf = pytest.importorskip("peft"), pytest.importorskip("gguf")
    ran, out = run(tmp_path, "qwen2-untied", prompts, {"form": ["checkpoint", "lora", "control-vector", "direction"]}, ranks,
                   select=layer_from_2())
    assert ran.code == 0, ran.text
    listed = {file["name"] for file in support.read_json(out / "manifest.json")["files"]}
    assert {"checkpoint/model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/bearing.json",
            "adapter/README.md", "control_vector.gguf", "edit_direction.safetensors"} <= listed
    base = transformers.AutoModelForCausalLM.from_pretrained(support.TINY / "qwen2-untied", dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(base, out / "adapter").merge_and_unload().state_dict()
    for name, want in load_file(out / "checkpoint/model.safetensors").items():
        assert (merged[name] - want).abs().max() <= 1e-6 * want.abs().max(), name
    chosen = load_file(out / "direction.safetensors")
    (tensor,) = gguf.GGUFReader(out / "control_vector.gguf").tensors
    assert tensor.name == "direction.1"
    assert torch.allclose(torch.from_numpy(tensor.data.copy()), chosen["mean_difference"], atol=1e-6)
    assert torch.allclose(load_file(out / "edit_direction.safetensors")["direction"], chosen["direction"], atol=1e-6)
    verified = support.read_json(out / "verify.json")
    assert verified["logits"]["max_logit_difference_to_ablation"] <= 1e-3 and verified["largest_residue"] < 1e-6
    lora = verified["forms"]["lora"]
    assert lora["modules"] == verified["edited_tensors"] and lora["largest_residue"] < 1e-6
    assert lora["sha256"] == support.sha256(out / "adapter/adapter_model.safetensors")
    assert verified["forms"]["control-vector"]["sha256"] == support.sha256(out / "control_vector.gguf")
    assert "LoRA adapter" in (out / "report.html").read_text()


def test_an_adapter_alone_writes_no_checkpoint(prompts, tmp_path):
    ran, out = run(tmp_path, "qwen2-untied", prompts, {"form": ["lora"], "strength": 0.5})
    assert ran.code == 0, ran.text
    assert not (out / "checkpoint").exists() and (out / "adapter/adapter_model.safetensors").exists()
    verified = support.read_json(out / "verify.json")
    assert verified["logits"] is None and verified["forms"]["lora"]["largest_residue"] > 1e-3, "half of it stays"


@pytest.mark.parametrize("ranks", [1, 2])
def test_induce_writes_the_addition_into_the_weights(ranks, prompts, tmp_path):
    """Without intervention, the residual stream at the layer is the original's plus factor x mean difference."""
    model = support.TINY / "llama3-rope"
    ran, out = run(tmp_path, "llama3-rope", prompts, {"form": ["checkpoint", "control-vector"], "induce": 0.5}, ranks,
                   select=layer_from_2())
    assert ran.code == 0, ran.text
    vector = 0.5 * load_file(out / "direction.safetensors")["mean_difference"]
    rows = torch.arange(12)[None] * 7

    def states(folder):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return loaded(input_ids=rows, output_hidden_states=True).hidden_states

    before, after = states(model), states(out / "checkpoint")
    assert torch.allclose(after[2], before[2] + vector, atol=1e-5)
    assert torch.allclose(after[1], before[1], atol=1e-6)
    logits = support.read_json(out / "verify.json")["logits"]
    assert logits["max_logit_difference_to_ablation"] <= 1e-3, "the intervention of an addition is the addition"
    assert logits["max_logit_difference_to_baseline"] >= 1e-2
    gguf = pytest.importorskip("gguf")
    (tensor,) = gguf.GGUFReader(out / "control_vector.gguf").tensors
    assert torch.allclose(torch.from_numpy(tensor.data.copy()), vector, atol=1e-6)


@pytest.mark.parametrize("model, edit, words", [
    ("qwen2-untied", {"induce": 1.0}, ["edit.induce", "no bias"]),
    ("mixtral", {"form": ["lora"]}, ["edit.form", "experts"]),
    ("qwen2-untied", {"layer_strengths": [1.0]}, ["edit.layer_strengths", "layers=3"]),
    ("qwen2-untied", {"last_layer": 99}, ["last layer", "layer=99"]),
])
def test_what_the_model_cannot_take_is_said_before_work(model, edit, words, prompts, tmp_path):
    ran, out = run(tmp_path, model, prompts, edit)
    assert ran.code != 0 and all(word in ran.err for word in words), ran.text
    assert not (out / "collect.json").exists()


def test_a_layer_that_no_control_vector_reaches_ends_the_job_before_the_edit(prompts, tmp_path):
    """Layer 2 of 3 is among the last fifth that is not used, so layer 1 is chosen."""
    ran, out = run(tmp_path, "qwen2-untied", prompts, {"form": ["checkpoint", "control-vector"]},
                   select=layer_from_2(layers=[1, 2], prune_layers=0.2))
    assert ran.code != 0 and "edit.form" in ran.err and "layer=1" in ran.err, ran.text
    assert not (out / "checkpoint").exists() and (out / "direction.safetensors").exists()
