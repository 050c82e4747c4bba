"""`bearing edit`: strengths, variants and forms against plain torch, and what may go wrong."""

import json
import os
import subprocess

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import support  # noqa: E402

LLAMA = support.TINY / "llama-tied"
QWEN = support.TINY / "qwen2-untied"


def direction_of(folder):
    return support.TINY / "directions" / f"{folder.name}.safetensors"


def edit(model, out, *arguments, direction=None, ranks=1):
    return support.bearing("edit", "--model", model, "--direction", direction or direction_of(model), "--out", out, "--ranks", ranks,
                           "-o", "json", *arguments)


def edited(model, out, *arguments, **more):
    ran = edit(model, out, *arguments, **more)
    assert ran.code == 0, ran.text
    return load_file(out / "model.safetensors")


def unit(model):
    r = load_file(direction_of(model))["direction"].double()
    return r / r.norm()


def removed(name, w, basis, strength=1.0, preserve=False):
    """The definition, in float64: each vector that the weight writes loses strength * its part in the basis [k, d]."""
    w = w.double()
    vectors = w.T if name.endswith(("o_proj.weight", "down_proj.weight")) else w  # rows
    out = vectors - strength * vectors @ basis.T @ basis
    if preserve:
        out = out * vectors.norm(dim=-1, keepdim=True) / out.norm(dim=-1, keepdim=True)
    return out.T if vectors is not w else out


WRITERS = ("o_proj.weight", "down_proj.weight", "embed_tokens.weight")


def check(model, got, strength_of, basis, preserve=False):
    source = load_file(model / "model.safetensors")
    for name, w in source.items():
        strength = strength_of(name) if name.endswith(WRITERS) else 0.0
        if strength == 0:
            assert torch.equal(got[name], w), name
        else:
            want = removed(name, w, basis, strength, preserve)
            assert (got[name].double() - want).abs().max() <= 2e-7 * w.abs().max(), name


def layer_of(name):
    return int(name.split(".")[2]) if ".layers." in name else 0


def test_strengths_by_component_and_layer(tmp_path):
    got = edited(QWEN, tmp_path / "out", "--strength", "0.8", "--strength", "mlp=0.5", "--strength", "embedding=0",
                 "--layer-strength", "2=1.5", "--layers", "1-2")

    def strength(name):
        if "embed_tokens" in name or not 1 <= layer_of(name) <= 2:
            return 0
        return 0.8 * (0.5 if "mlp" in name else 1) * (1.5 if layer_of(name) == 2 else 1)

    check(QWEN, got, strength, unit(QWEN)[None])


def test_several_directions_are_one_basis(tmp_path):
    more = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    save_file({"direction": more}, tmp_path / "more.safetensors")
    got = edited(QWEN, tmp_path / "out", "--direction", tmp_path / "more.safetensors")
    basis, _ = torch.linalg.qr(torch.cat([unit(QWEN)[None], more.double()]).T)
    check(QWEN, got, lambda name: 1.0, basis.T)


def test_preserved_norms(tmp_path):
    got = edited(QWEN, tmp_path / "out", "--preserve-norms", ranks=2)
    check(QWEN, got, lambda name: 1.0, unit(QWEN)[None], preserve=True)


def test_projected_direction(tmp_path):
    means = torch.randn(5, 3, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    save_file({"negative_mean": means}, tmp_path / "means.safetensors")
    r = unit(QWEN)
    save_file({"direction": r}, tmp_path / "d.safetensors", metadata={"layer": "1", "position": "-2"})
    got = edited(QWEN, tmp_path / "out", "--negative-mean", tmp_path / "means.safetensors", direction=tmp_path / "d.safetensors")
    m = means[3, 1] / means[3, 1].norm()
    rest = r - (r @ m) * m
    check(QWEN, got, lambda name: 1.0, (rest / rest.norm())[None])


def test_reference_direction_files_are_read_without_running_them(tmp_path):
    """A view that carries its whole storage, as the reference saves it."""
    storage = torch.randn(5, 3, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.save(storage[2, 1], tmp_path / "direction.pt")
    got = edited(QWEN, tmp_path / "out", direction=tmp_path / "direction.pt")
    check(QWEN, got, lambda name: 1.0, (storage[2, 1] / storage[2, 1].norm())[None])

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save(Evil(), tmp_path / "evil.pt")
    ran = edit(QWEN, tmp_path / "no", direction=tmp_path / "evil.pt")
    assert ran.code == 2 and "system" in ran.err and not (tmp_path / "ran").exists() and not (tmp_path / "no").exists(), ran.text
    torch.save({"a": torch.zeros(64)}, tmp_path / "dict.pt")
    assert edit(QWEN, tmp_path / "no", direction=tmp_path / "dict.pt").code == 2
    (tmp_path / "short.pt").write_bytes((tmp_path / "direction.pt").read_bytes()[:200])
    assert edit(QWEN, tmp_path / "no", direction=tmp_path / "short.pt").code == 2


def hidden_states(folder, rows):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.stack(model(input_ids=rows, output_hidden_states=True).hidden_states[:-1])


@pytest.mark.parametrize("layer", [0, 2])
def test_induce_adds_the_vector_at_its_layer(layer, tmp_path):
    """Llama takes biases behind its MLPs by its config; at layer 0 the embedding takes the vector."""
    source = support.TINY / "llama3-rope"
    ran = edit(source, tmp_path / "out", "--induce", "0.5", "--layer", layer, direction=direction_of(source))
    assert ran.code == 0, ran.text
    vector = 0.5 * load_file(direction_of(source))["mean_difference"]
    rows = torch.arange(12)[None] * 7
    before, after = hidden_states(source, rows), hidden_states(tmp_path / "out", rows)
    assert torch.allclose(after[:layer], before[:layer], atol=1e-6)
    assert torch.allclose(after[layer], before[layer] + vector, atol=1e-5)
    refused = edit(QWEN, tmp_path / "no", "--induce", "1", "--layer", 1)
    assert refused.code == 2 and "control-vector" in refused.err, refused.text


def test_lora_merges_to_the_edited_weights(tmp_path):
    peft = pytest.importorskip("peft")
    got = edited(QWEN, tmp_path / "out", "--strength", "0.7", "--layers", "0-1")
    ran = edit(QWEN, tmp_path / "lora", "--form", "lora", "--strength", "0.7", "--layers", "0-1")
    assert ran.code == 0, ran.text
    base = transformers.AutoModelForCausalLM.from_pretrained(QWEN, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(base, tmp_path / "lora").merge_and_unload().state_dict()
    for name, want in got.items():
        assert (merged[name] - want).abs().max() <= 1e-6 * want.abs().max(), name
    verified = support.read_json(tmp_path / "lora/bearing.json")["verification"]
    assert verified["modules"] == 5 and 1e-3 < verified["largest_residue"] < 1, verified
    refused = edit(support.TINY / "mixtral", tmp_path / "no", "--form", "lora", direction=direction_of(support.TINY / "mixtral"))
    assert refused.code == 2 and "experts" in refused.err, refused.text


def test_control_vector_is_read_by_the_gguf_package(tmp_path):
    gguf = pytest.importorskip("gguf")
    ran = edit(QWEN, tmp_path / "c.gguf", "--form", "control-vector", "--layer", 2, "--strength", "-1.5")
    assert ran.code == 0, ran.text
    reader = gguf.GGUFReader(tmp_path / "c.gguf")
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "qwen2"
    (tensor,) = reader.tensors
    assert tensor.name == "direction.1"  # behind block 1 = at the input of block 2
    want = -1.5 * load_file(direction_of(QWEN))["mean_difference"]
    assert torch.allclose(torch.from_numpy(tensor.data.copy()), want, atol=1e-6)
    # The factor of an addition, also of a family that has no bias to write one to.
    assert edit(QWEN, tmp_path / "i.gguf", "--form", "control-vector", "--layer", 2, "--induce", "2").code == 0
    (tensor,) = gguf.GGUFReader(tmp_path / "i.gguf").tensors
    assert torch.allclose(torch.from_numpy(tensor.data.copy()), want * (2 / -1.5), atol=1e-6)
    refused = edit(QWEN, tmp_path / "no", "--form", "lora", "--layer", 2, "--induce", "2")
    assert refused.code == 2 and "--induce" in refused.err, refused.text
    refused = edit(QWEN, tmp_path / "no.gguf", "--form", "control-vector", "--layer", 1)
    assert refused.code == 2 and "layer=1" in refused.err, refused.text


def test_direction_form_is_read_as_a_direction(tmp_path):
    assert edit(QWEN, tmp_path / "d.safetensors", "--form", "direction").code == 0
    assert edited(QWEN, tmp_path / "a", direction=tmp_path / "d.safetensors").keys()
    assert torch.allclose(load_file(tmp_path / "d.safetensors")["direction"].double(), unit(QWEN), atol=1e-7)


def test_dry_run_lists_and_writes_nothing(tmp_path):
    ran = support.bearing("edit", "--model", QWEN, "--direction", direction_of(QWEN), "--dry-run", "-o", "json")
    assert ran.code == 0, ran.text
    listed = {tensor["tensor"] for tensor in json.loads(ran.out)["tensors"]}
    assert listed == {name for name in load_file(QWEN / "model.safetensors") if name.endswith(WRITERS)}
    assert not list(tmp_path.iterdir())


def test_any_number_of_ranks_writes_the_same_bytes(tmp_path):
    model = support.TINY / "llama-sharded"
    for ranks in (1, 2, 4):
        ran = edit(model, tmp_path / str(ranks), ranks=ranks, direction=direction_of(model))
        assert ran.code == 0, ran.text
    for path in (tmp_path / "1").iterdir():
        for ranks in ("2", "4"):
            assert (tmp_path / ranks / path.name).read_bytes() == path.read_bytes(), path.name
    manifest = support.read_json(tmp_path / "1/manifest.json")
    assert {f["name"] for f in manifest["files"]} == {p.name for p in (tmp_path / "1").iterdir()} - {"manifest.json"}
    for entry in manifest["files"]:
        assert support.sha256(tmp_path / "1" / entry["name"]) == entry["sha256"]
    assert manifest["verification"]["all_finite"] and manifest["verification"]["largest_residue"] < 1e-6


# ---- what may go wrong

def copy(source, to):
    to.mkdir()
    for path in source.iterdir():
        (to / path.name).write_bytes(path.read_bytes())


def test_existing_output_and_missing_input(tmp_path):
    (tmp_path / "there").mkdir()
    ran = edit(QWEN, tmp_path / "there")
    assert ran.code == 6 and "there" in ran.err, ran.text
    assert edit(tmp_path / "nowhere", tmp_path / "out", direction=direction_of(QWEN)).code in (2, 3)
    assert edit(QWEN, tmp_path / "out", direction=tmp_path / "none.safetensors").code in (2, 3)


def test_full_disk_is_said_before_a_byte_is_written(tmp_path):
    """A file system of 64 KiB; the model needs more."""
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system")
    try:
        ran = edit(QWEN, small / "out")
        assert ran.code == 1 and "model.safetensors" in ran.err and "space" in ran.err.lower(), ran.text
        assert not (small / "out").exists()
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        ran = edit(QWEN, small / "out")
        assert ran.code in (1, 4) and "ead-only" in ran.err, ran.text
    finally:
        subprocess.run(["umount", small], check=False)


def test_names_are_never_paths(tmp_path):
    copy(QWEN, tmp_path / "model")
    tensors = load_file(QWEN / "model.safetensors")
    tensors["../../../etc/passwd"] = torch.zeros(4)
    save_file(tensors, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    ran = edit(tmp_path / "model", tmp_path / "out", direction=direction_of(QWEN))
    assert ran.code == 2 and "../../../etc/passwd" in ran.err, ran.text
    sharded = support.TINY / "llama-sharded"
    copy(sharded, tmp_path / "sharded")
    index = support.read_json(sharded / "model.safetensors.index.json")
    index["weight_map"]["lm_head.weight"] = "../model/model.safetensors"
    support.write_json(tmp_path / "sharded/model.safetensors.index.json", index)
    ran = edit(tmp_path / "sharded", tmp_path / "out", direction=direction_of(sharded))
    assert ran.code != 0 and "lm_head.weight" in ran.err and not (tmp_path / "out").exists(), ran.text


@pytest.mark.parametrize("ranks", [1, 2])
def test_logits_of_the_edited_model_are_those_of_ablation(ranks, tmp_path):
    for model in (LLAMA, QWEN):
        out = tmp_path / model.name
        ran = edit(model, out, "--check-logits", ranks=ranks)
        assert ran.code == 0, ran.text
        found = support.read_json(out / "manifest.json")["verification"]["logits"]
        assert found == support.read_json(out / "bearing.json")["verification"]["logits"] == json.loads(ran.out)["logits"]
        # float32, as in the test of the edit stage; random weights move by far more.
        assert found["max_logit_difference_to_ablation"] <= 1e-3, found
        assert found["max_logit_difference_to_baseline"] >= 1e-2, found
        assert abs(found["mean_kl_to_ablation"]) <= 1e-5 and found["prompts"] == 16, found
    for arguments, words in ((["--strength", "0.5"], "all of the direction"), (["--no-verify"], "--no-verify"),
                             (["--keep-tied"], "--keep-tied")):
        ran = edit(LLAMA, tmp_path / "out", "--check-logits", *arguments, ranks=ranks)
        assert ran.code == 2 and words in ran.err and not (tmp_path / "out").exists(), ran.text
