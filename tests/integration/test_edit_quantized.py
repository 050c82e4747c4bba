"""`bearing edit` of quantized checkpoints: 8- and 4-bit floats in and out, against the formats' definitions in plain torch."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

import edit_families  # noqa: E402
import support  # noqa: E402
from test_edit_command import QWEN, WRITERS, copy, direction_of, edit, removed, unit  # noqa: E402
from test_edit_families import save, write_direction  # noqa: E402


def along(w, r):
    """What columns [..., d, in] have along r, as a share of all."""
    return ((r @ w).norm() / w.norm()).item()


def same(a, b):
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


class Measured:
    """Sums over the edited tensors of a checkpoint, and what its record says."""

    def __init__(self, out):
        self.record = support.read_json(out / "bearing.json")["verification"]
        self.residues = {t["tensor"]: t["residue"] for t in self.record["tensors"]}
        self.error = self.plain_error = self.size = 0.0

    def add(self, name, stored, exact, nearest, r, before):
        """`nearest` is `exact` rounded to nearest on the stored scales; all are [..., d, in]."""
        self.error += (stored - exact).square().sum().item()
        self.plain_error += (nearest - exact).square().sum().item()
        self.size += exact.square().sum().item()
        # Nearest brings the direction back; what is stored has next to nothing of it. Sizes here are tiny: one step of one
        # value is much.
        assert along(stored, r) < 0.1 * along(before, r) and along(stored, r) < 0.5 * along(nearest, r), name
        assert self.residues[name] == pytest.approx(along(stored, r), rel=1e-3, abs=1e-7), name
        each = (stored - exact).square().sum().item() ** 0.5 / exact.square().sum().item() ** 0.5
        assert self.record["quantization_error"]["tensors"][name] == pytest.approx(each, rel=1e-3), name

    def check(self):
        assert self.record["quantization_error"]["all"] == pytest.approx((self.error / self.size) ** 0.5, rel=1e-3)
        assert self.error < 4 * self.plain_error


# ---- 8 bits

def blocks_of(shape, block):
    return [-(-n // b) for n, b in zip(shape[-2:], block)]


def widen(scales, shape, block):
    full = scales.float().reshape(*shape[:-2], *blocks_of(shape, block))
    full = full.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return full[..., : shape[-2], : shape[-1]]


def from_fp8(values, scales, block):
    return values.float() * widen(scales, values.shape, block)


def scales_of(w, block, dtype):
    """max|w| / 448 of each block, in `dtype`; in bfloat16 the next that does not let the largest overflow."""
    rows, columns = blocks_of(w.shape, block)
    scales = torch.ones(*w.shape[:-2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            at = w[..., i * block[0]:(i + 1) * block[0], j * block[1]:(j + 1) * block[1]]
            scales[..., i, j] = at.abs().amax((-2, -1)) / 448
    return scales.to(dtype)


def to_fp8(w, scales, block):
    return (w / widen(scales, w.shape, block)).clamp(-448, 448).to(torch.float8_e4m3fn)


KINDS = {
    "block": dict(quant_method="fp8", weight_block_size=[16, 24], fmt="e4m3"),
    "row": dict(quant_method="fbgemm_fp8", activation_scale_ub=1200.0),
    "channel": dict(quant_method="compressed-tensors", format="float-quantized", config_groups={"group_0": {
        "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}}}),
    "tensor": dict(quant_method="compressed-tensors", format="float-quantized", config_groups={"group_0": {
        "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}}}),
    "whole": dict(quant_method="fp8", activation_scheme="static"),  # one scale, of no axis
}


@pytest.mark.parametrize("kind", KINDS)
def test_fp8_in_and_out(kind, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = support.read_json(QWEN / "config.json")
    tensors, plain, blocks = {}, {}, {}
    suffix = "_scale_inv" if kind == "block" else "_scale"
    for name, w in load_file(QWEN / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            tensors[name] = w.bfloat16()
            continue
        block = blocks[name] = {"block": (16, 24), "row": (1, w.shape[1]), "channel": (1, w.shape[1])}.get(kind, tuple(w.shape))
        scales = scales_of(w, block, torch.bfloat16 if kind in ("channel", "tensor") else torch.float32)
        tensors[name] = to_fp8(w, scales, block)
        plain[name] = from_fp8(tensors[name], scales, block)
        tensors[name + suffix] = scales.reshape({"tensor": (1,), "whole": ()}.get(kind, scales.shape))
        if kind == "whole":
            tensors[name.removesuffix("weight") + "input_scale"] = torch.tensor(0.5)
    config["quantization_config"] = KINDS[kind]
    support.write_json(folder / "config.json", config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    ran = edit(folder, tmp_path / "out", direction=direction_of(QWEN), ranks=2)
    assert ran.code == 0, ran.text
    got = load_file(tmp_path / "out/model.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in got.items()} == {n: (t.dtype, t.shape) for n, t in tensors.items()}
    assert support.read_json(tmp_path / "out/config.json")["quantization_config"] == KINDS[kind]
    r, measured = unit(QWEN), Measured(tmp_path / "out")
    edited = [name for name in plain if name.endswith(WRITERS)]
    for name in got:
        if name.removesuffix(suffix) not in edited and not name.endswith(WRITERS):
            assert same(got[name], tensors[name]), name
    for name in edited:
        exact = removed(name, plain[name], r[None])
        scales, want = got[name + suffix].float().flatten(), scales_of(exact.float(), blocks[name], torch.float32).flatten()
        tolerance = 2.0 ** -7 if got[name + suffix].dtype == torch.bfloat16 else 1e-5
        assert (scales >= want * (1 - 1e-5)).all() and (scales <= want * (1 + tolerance) + 1e-12).all(), name
        stored = from_fp8(got[name], got[name + suffix], blocks[name]).double()
        nearest = from_fp8(to_fp8(exact.float(), got[name + suffix], blocks[name]), got[name + suffix], blocks[name]).double()
        measured.add(name, stored, exact, nearest, r, plain[name].double())
    measured.check()
    assert json.loads(ran.out)["quantization_error"]["all"] == measured.record["quantization_error"]["all"] < 0.06


def fused_qwen3_vl_moe(folder, transpose):
    """Experts as [experts, d_model, in] of transformers, or [experts, in, d_model] as published, in 8 bits by blocks."""
    save("qwen3_vl_moe-published" if transpose else "qwen3_vl_moe", folder)
    path, block = folder / "model.safetensors", (16, 8)
    tensors = load_file(path)
    for name in [n for n in tensors if ".experts." in n]:
        w = tensors[name].float()
        scales = scales_of(w, block, torch.float32)
        tensors[name], tensors[name + "_scale_inv"] = to_fp8(w, scales, block), scales
    save_file(tensors, path, metadata={"format": "pt"})
    config = support.read_json(folder / "config.json")
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": list(block)}
    support.write_json(folder / "config.json", config)
    return tensors, block


def test_fused_fp8_experts(tmp_path):
    tensors, block = fused_qwen3_vl_moe(tmp_path / "model", transpose=False)
    r = write_direction(tmp_path / "d.safetensors", 32).double()
    ran = edit(tmp_path / "model", tmp_path / "out", direction=tmp_path / "d.safetensors")
    assert ran.code == 0, ran.text
    got, measured, count = load_file(tmp_path / "out/model.safetensors"), Measured(tmp_path / "out"), 0
    for name in [n for n in tensors if ".experts." in n and not n.endswith("_scale_inv")]:
        scales = got[name + "_scale_inv"]
        if not name.endswith("down_proj"):
            assert same(got[name], tensors[name]), name
            assert torch.equal(scales, tensors[name + "_scale_inv"])
            continue
        count += 1
        before = from_fp8(tensors[name], tensors[name + "_scale_inv"], block).double()
        exact = before - r[:, None] * (r @ before)[:, None, :]
        assert torch.allclose(scales, scales_of(exact.float(), block, torch.float32), rtol=1e-5)
        nearest = from_fp8(to_fp8(exact.float(), scales, block), scales, block).double()
        measured.add(name, from_fp8(got[name], scales, block).double(), exact, nearest, r, before)
    assert count == 3
    measured.check()


def test_fp8_rows_are_refused_with_what_to_do(tmp_path):
    fused_qwen3_vl_moe(tmp_path / "model", transpose=True)
    write_direction(tmp_path / "d.safetensors", 32)
    ran = edit(tmp_path / "model", tmp_path / "out", direction=tmp_path / "d.safetensors")
    assert ran.code == 2 and "experts.down_proj" in ran.err and "unquantized base model" in ran.err, ran.text
    assert not (tmp_path / "out").exists()


def test_llama4_fp8_of_fbgemm_is_refused_with_what_to_do(tmp_path):
    save("llama4_text", tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    for name in [n for n in tensors if n.endswith("experts.gate_up_proj")]:
        tensors[name + "_scale"] = torch.ones(tensors[name].shape[0], 1, tensors[name].shape[2])
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, path, metadata={"format": "pt"})
    config = support.read_json(tmp_path / "model/config.json")
    config["quantization_config"] = KINDS["row"]
    support.write_json(tmp_path / "model/config.json", config)
    write_direction(tmp_path / "d.safetensors", 32)
    ran = edit(tmp_path / "model", tmp_path / "out", direction=tmp_path / "d.safetensors")
    assert ran.code == 2 and "experts.gate_up_proj" in ran.err and "unquantized base model" in ran.err, ran.text


# ---- 4 bits

D = 128
NUMBERS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=torch.float64)


def from_mxfp4(blocks, scales):
    """[experts, rows, groups, 16] and [experts, rows, groups] as [experts, rows, groups * 32], by the format's definition."""
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
    values = NUMBERS[codes & 7] * (1 - 2 * (codes >> 3)) * torch.exp2(scales.double() - 127)[..., None]
    return values.flatten(-2)


def nearest_mxfp4(w, scales):
    """w rounded to nearest on these scales."""
    step = torch.exp2(scales.double() - 127)[..., None]
    grouped = w.reshape(*scales.shape, 32) / step
    index = torch.bucketize(grouped.abs().contiguous(), (NUMBERS[1:] + NUMBERS[:-1]) / 2)
    return (NUMBERS[index] * grouped.sign() * step).flatten(-2)


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory):
    """A tiny gpt_oss checkpoint with MXFP4 experts: its folder, tensors and a unit direction."""
    config = transformers.GptOssConfig(
        hidden_size=D, intermediate_size=D, num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_hidden_layers=2,
        vocab_size=67, num_local_experts=3, num_experts_per_tok=2, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    folder = tmp_path_factory.mktemp("gpt_oss") / "model"
    torch.manual_seed(5)
    transformers.GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(6)
    for name in [n for n in tensors if n.endswith(("experts.down_proj", "experts.gate_up_proj"))]:
        experts, inner, outer = tensors.pop(name).shape
        tensors[name + "_blocks"] = torch.randint(0, 256, (experts, outer, inner // 32, 16), generator=generator, dtype=torch.uint8)
        tensors[name + "_scales"] = torch.randint(118, 121, (experts, outer, inner // 32), generator=generator, dtype=torch.uint8)
        tensors[name + "_blocks"][0, 3, 1] = 0  # a group of zeros
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    saved = support.read_json(folder / "config.json")
    saved["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    support.write_json(folder / "config.json", saved)
    r = torch.randn(D, generator=generator)
    save_file({"direction": r}, folder.parent / "d.safetensors")
    return folder, tensors, (r / r.norm()).double()


def test_mxfp4_in_and_out(gpt_oss, tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    folder, tensors, r = gpt_oss
    ran = edit(folder, tmp_path / "out", direction=folder.parent / "d.safetensors", ranks=2)
    assert ran.code == 0, ran.text
    got = load_file(tmp_path / "out/model.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in got.items()} == {n: (t.dtype, t.shape) for n, t in tensors.items()}
    assert support.read_json(tmp_path / "out/config.json") == support.read_json(folder / "config.json")
    measured = Measured(tmp_path / "out")
    for name in [n.removesuffix("_blocks") for n in tensors if n.endswith("_blocks")]:
        blocks, scales = got[name + "_blocks"], got[name + "_scales"]
        if name.endswith("gate_up_proj"):
            assert torch.equal(blocks, tensors[name + "_blocks"]) and torch.equal(scales, tensors[name + "_scales"]), name
            continue
        before = from_mxfp4(tensors[name + "_blocks"], tensors[name + "_scales"])
        exact = before - r[:, None] * (r @ before)[:, None, :]
        stored, nearest = from_mxfp4(blocks, scales), nearest_mxfp4(exact, scales)
        measured.add(name, stored, exact, nearest, r, before)
        # No other scale would have been better for a group, by more than rounding.
        error = (nearest - exact).square().unflatten(-1, (-1, 32)).sum(-1)
        for step in (-2, -1, 1, 2):
            other = (nearest_mxfp4(exact, scales + step) - exact).square().unflatten(-1, (-1, 32)).sum(-1)
            assert (error <= other * 1.001 + 1e-12).all(), (name, step)
        # transformers reads the same numbers, transposed.
        theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        assert torch.equal(theirs.transpose(1, 2).double(), stored)
    measured.check()
    assert json.loads(ran.out)["quantization_error"]["all"] < 0.15


def test_edited_mxfp4_loads_and_writes_nothing_along_the_direction(gpt_oss, tmp_path):
    folder, _, r = gpt_oss
    ran = edit(folder, tmp_path / "out", direction=folder.parent / "d.safetensors")
    assert ran.code == 0, ran.text
    largest = {}
    for path in (folder, tmp_path / "out"):
        model, info = transformers.GptOssForCausalLM.from_pretrained(
            path, output_loading_info=True, dtype=torch.float32, attn_implementation="eager",
            quantization_config=transformers.Mxfp4Config(dequantize=True))
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
        model = model.float().eval()
        model.set_experts_implementation("eager")
        largest[path], count, _ = edit_families.largest_component("gpt_oss", model, torch.arange(18).reshape(2, 9), r.float())
        assert count == 1 + 2 * 2
    assert largest[folder] > 0.1 and largest[tmp_path / "out"] < 0.02, largest


def test_mxfp4_is_the_same_on_any_number_of_ranks(gpt_oss, tmp_path):
    folder, _, _ = gpt_oss
    for ranks in (1, 3):
        ran = edit(folder, tmp_path / str(ranks), "--strength", "0.5", "--preserve-norms", direction=folder.parent / "d.safetensors",
                   ranks=ranks)
        assert ran.code == 0, ran.text
    name = "model.safetensors"
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_mxfp4_in_and_bfloat16_out(gpt_oss, tmp_path):
    folder, tensors, r = gpt_oss
    ran = edit(folder, tmp_path / "out", "--quantized", "bfloat16", direction=folder.parent / "d.safetensors", ranks=2)
    assert ran.code == 0, ran.text
    got = load_file(tmp_path / "out/model.safetensors")
    assert "quantization_config" not in support.read_json(tmp_path / "out/config.json")
    assert not [name for name in got if name.endswith(("_blocks", "_scales"))]
    for name in [n.removesuffix("_blocks") for n in tensors if n.endswith("_blocks")]:
        exact = from_mxfp4(tensors[name + "_blocks"], tensors[name + "_scales"]).transpose(1, 2)
        if name.endswith("down_proj"):
            exact = exact - (exact @ r)[..., None] * r
        else:
            assert torch.equal(got[name], exact.bfloat16()), name
        assert ((got[name].double() - exact).abs() <= exact.abs() * 2**-8 * 1.01 + 1e-6).all(), name
    transformers.GptOssForCausalLM.from_pretrained(tmp_path / "out")


def test_mxfp4_scale_that_is_no_number_is_named(gpt_oss, tmp_path):
    folder, tensors, _ = gpt_oss
    copy(folder, tmp_path / "model")
    name = "model.layers.1.mlp.experts.down_proj_scales"
    broken = tensors[name].clone()
    broken[2, 5, 0] = 255
    save_file(tensors | {name: broken}, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    ran = edit(tmp_path / "model", tmp_path / "out", direction=folder.parent / "d.safetensors")
    assert ran.code == 1 and name in ran.err and "not a number" in ran.err and not (tmp_path / "out").exists(), ran.text


# ---- others

@pytest.mark.parametrize("method, advice", [("awq", "unquantized base model"), ("gptq", "unquantized base model"),
                                            ("bitsandbytes", "unquantized base model"), ("hqq", "supported")])
def test_other_quantizations_are_refused_by_name(method, advice, tmp_path):
    copy(QWEN, tmp_path / "model")
    config = support.read_json(QWEN / "config.json")
    config["quantization_config"] = {"quant_method": method}
    support.write_json(tmp_path / "model/config.json", config)
    ran = edit(tmp_path / "model", tmp_path / "out", direction=direction_of(QWEN))
    assert ran.code == 2 and method in ran.err and advice in ran.err and not (tmp_path / "out").exists(), ran.text


@pytest.mark.parametrize("weights", [{"num_bits": "8"}, {"num_bits": 8, "type": 1}, {"num_bits": 8, "type": "float", "symmetric": 0},
                                     {"num_bits": 4, "type": "int"}, "float", None])
def test_groups_of_another_form_are_refused_by_name(weights, tmp_path):
    copy(QWEN, tmp_path / "model")
    config = support.read_json(QWEN / "config.json")
    config["quantization_config"] = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    support.write_json(tmp_path / "model/config.json", config)
    ran = edit(tmp_path / "model", tmp_path / "out", direction=direction_of(QWEN))
    assert ran.code == 2 and "group_0" in ran.err and "8-bit floats" in ran.err and "config.json" in ran.err, ran.text
