"""`bearing edit` on families that only the editor knows: against transformers, on tiny random models made here."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

import support  # noqa: E402
import edit_families  # noqa: E402

ROWS = torch.arange(2 * 9).reshape(2, 9) * 3 % 60


def save(name, folder):
    model = edit_families.make(name)
    model.set_experts_implementation("eager") if hasattr(model, "set_experts_implementation") else None
    model.save_pretrained(folder)
    endings = edit_families.FAMILIES[name].transposed
    if endings:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        save_file({key: t.transpose(1, 2).contiguous() if key.endswith(endings) else t for key, t in tensors.items()}, path,
                  metadata={"format": "pt"})
    return model


def load(name, folder):
    model, info = edit_families.FAMILIES[name].model_class.from_pretrained(folder, output_loading_info=True, dtype=torch.float32,
                                                                           attn_implementation="eager")
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.eval()


def write_direction(path, size, seed=3):
    r = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    save_file({"direction": r}, path)
    return r / r.norm()


@pytest.mark.parametrize("name", edit_families.FAMILIES)
def test_edited_model_writes_nothing_along_the_direction(name, tmp_path):
    save(name, tmp_path / "model")
    direction = write_direction(tmp_path / "d.safetensors", 32)
    ran = support.bearing("edit", "--model", tmp_path / "model", "--direction", tmp_path / "d.safetensors", "--out",
                          tmp_path / "edited", "--ranks", 2 if name == "gpt_oss" else 1, "-o", "json")
    assert ran.code == 0, ran.text
    assert json.loads(ran.out)["largest_residue"] < 1e-6

    before, after = load(name, tmp_path / "model"), load(name, tmp_path / "edited")
    kept, _, plain = edit_families.largest_component(name, before, ROWS, direction)
    assert kept > 0.05
    largest, count, edited = edit_families.largest_component(name, after, ROWS, direction)
    assert count == 1 + 2 * 3 and largest < 2e-6
    if not edit_families.FAMILIES[name].post_norms:
        want = edit_families.ablated_logits(name, before, ROWS, direction)
        assert (edited - want).abs().max() < 1e-3 * want.abs().max()
        assert (edited - plain).abs().max() > 1e-2 * want.abs().max(), "the edit changed nothing"

    # Everything else is the source, byte for byte.
    record = support.read_json(tmp_path / "edited/bearing.json")
    a, b = load_file(tmp_path / "model/model.safetensors"), load_file(tmp_path / "edited/model.safetensors")
    changed = {key for key in a if not torch.equal(a[key], b[key])}
    assert changed <= set(record["edited_tensors"])
    assert set(b) - set(a) == ({"lm_head.weight"} if record["untied_embeddings"] else set())


def test_families_without_a_decoder_are_refused_where_one_is_needed(tmp_path):
    save("olmo2", tmp_path / "model")
    job = support.write_job(tmp_path / "job.json", tmp_path / "model", support.write_prompts(tmp_path / "prompts"))
    ran = support.run_job(job, tmp_path / "out")
    assert ran.code == 2 and "olmo2" in ran.err and "bearing edit" in ran.err, ran.text


@pytest.mark.parametrize("change, message", [
    (lambda t: t.pop("model.layers.1.mlp.down_proj.weight"), "layer=1"),
    (lambda t: t.pop("model.layers.2.self_attn.o_proj.weight"), "model.layers.2.self_attn.o_proj.weight"),
    (lambda t: t.update({"model.layers.0.mlp.surprise.weight": torch.zeros(4)}), "model.layers.0.mlp.surprise.weight"),
    (lambda t: t.update({"model.embed_tokens.weight": torch.zeros(67, 31)}), "model.embed_tokens.weight"),
])
def test_tensors_that_the_table_does_not_know_are_named(change, message, tmp_path):
    save("cohere2", tmp_path / "model")
    write_direction(tmp_path / "d.safetensors", 32)
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    ran = support.bearing("edit", "--model", tmp_path / "model", "--direction", tmp_path / "d.safetensors", "--out",
                          tmp_path / "edited")
    assert ran.code == 2 and message in ran.err, ran.text
    assert not (tmp_path / "edited").exists()


def test_equal_sizes_do_not_tell_two_orientations_apart(tmp_path):
    save("qwen3_vl_moe", tmp_path / "model")
    write_direction(tmp_path / "d.safetensors", 32)
    config = support.read_json(tmp_path / "model/config.json")
    config["text_config"]["moe_intermediate_size"] = 32
    support.write_json(tmp_path / "model/config.json", config)
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    for key in list(tensors):
        if key.endswith("experts.down_proj"):
            tensors[key] = torch.zeros(4, 32, 32)
    save_file(tensors, path, metadata={"format": "pt"})
    ran = support.bearing("edit", "--model", tmp_path / "model", "--direction", tmp_path / "d.safetensors", "--out",
                          tmp_path / "edited")
    assert ran.code == 2 and "orientation" in ran.err and "experts.down_proj" in ran.err, ran.text


PROJECTORS = {  # What writes image features into the residual stream; True: its columns are what is written.
    "llama4": {"multi_modal_projector.linear_1.weight": True},
    "qwen3_vl_moe": {"model.visual.merger.linear_fc2.weight": True, "model.visual.merger.linear_fc2.bias": False},
    "gemma3-vision": {"multi_modal_projector.mm_input_projection_weight": False},
}


@pytest.mark.parametrize("name", PROJECTORS)
def test_projector_is_edited_where_it_is_asked_for_and_else_left_alone(name, tmp_path):
    model = tmp_path / "model"
    if name in edit_families.FAMILIES:
        save(name, model)
        size = 32
    else:
        model = support.TINY / name
        size = support.read_json(model / "config.json")["text_config"]["hidden_size"]
    direction = write_direction(tmp_path / "d.safetensors", size).double()
    written = {}
    for folder, more in (("without", []), ("with", ["--projector"])):
        ran = support.bearing("edit", "--model", model, "--direction", tmp_path / "d.safetensors", "--out", tmp_path / folder, *more)
        assert ran.code == 0, ran.text
        written[folder] = load_file(tmp_path / folder / "model.safetensors")
    source = load_file(model / "model.safetensors")
    names = {key for key in source if key.startswith(tuple(PROJECTORS[name]))}
    deep = {key for key in source if "deepstack_merger_list" in key and "linear_fc2" in key}
    assert names == set(PROJECTORS[name])
    for key in names | deep:
        assert torch.equal(written["without"][key], source[key]), key
        w = source[key].double()
        vectors = w.T if PROJECTORS[name].get(key, key.endswith("weight")) else w
        want = vectors - (vectors @ direction)[..., None] * direction
        got = written["with"][key].double()
        got = got.T if vectors is not w else got
        assert (got - want).abs().max() <= 1e-6 * w.abs().max(), key
        assert not torch.equal(written["with"][key], source[key]), key
    others = set(source) - names - deep
    assert all(torch.equal(written["with"][key], written["without"][key]) for key in others)
