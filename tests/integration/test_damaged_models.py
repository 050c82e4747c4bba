"""Checkpoints that are damaged, or made to do harm: `bearing edit` and `bearing run` refuse each in one line that names the file,
and the tensor where there is one, before any work, and leave nothing."""

import os
import shutil
import struct

import pytest
from safetensors.torch import load_file, save_file

import support

SOURCE = support.TINY / "llama-sharded"
DIRECTION = support.TINY / "directions/llama-sharded.safetensors"
INDEX = "model.safetensors.index.json"
SECONDS = 20  # Generous, for a loaded machine.


def shard(number):
    return f"model-0000{number}-of-00009.safetensors"


def tensors_of(model, number):
    return load_file(model / shard(number))


def write_index(model, change):
    index = support.read_json(model / INDEX)
    change(index["weight_map"])
    support.write_json(model / INDEX, index)


def read_header(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return data[8:8 + length], data[8 + length:]


def write_file(path, header, body, length=None):
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


# Each damages the folder and gives what the error must name.

def truncated_in_the_data(model):
    path = model / shard(3)
    os.truncate(path, path.stat().st_size - 5)
    return [shard(3), max(tensors_of(SOURCE, 3))] if len(tensors_of(SOURCE, 3)) == 1 else [shard(3)]


def truncated_in_the_header(model):
    os.truncate(model / shard(3), 20)
    return [shard(3)]


def longer_than_its_header_says(model):
    with open(model / shard(4), "ab") as file:
        file.write(b"\0" * 3)
    return [shard(4)]


def emptied(model):
    os.truncate(model / shard(5), 0)
    return [shard(5)]


def two_shards_swapped(model):
    (model / shard(2)).rename(model / "x")
    (model / shard(6)).rename(model / shard(2))
    (model / "x").rename(model / shard(6))
    misplaced = set(tensors_of(SOURCE, 2)) | set(tensors_of(SOURCE, 6))
    return [(shard(2), shard(6)), tuple(misplaced)]


def one_shard_twice(model):
    shutil.copy(model / shard(2), model / shard(6))
    return [(shard(2), shard(6)), tuple(set(tensors_of(SOURCE, 2)) | set(tensors_of(SOURCE, 6)))]


def index_points_to_another_shard(model):
    name = min(tensors_of(SOURCE, 2))
    write_index(model, lambda weights: weights.update({name: shard(7)}))
    return [name, (shard(2), shard(7))]


def index_names_a_tensor_that_no_shard_has(model):
    write_index(model, lambda weights: weights.update({"model.layers.9.mlp.down_proj.weight": shard(2)}))
    return ["model.layers.9.mlp.down_proj.weight", shard(2)]


def index_lacks_a_tensor(model):
    name = min(tensors_of(SOURCE, 2))
    write_index(model, lambda weights: weights.pop(name))
    return [name, shard(2)]


def index_names_a_shard_that_is_not_there(model):
    write_index(model, lambda weights: weights.update({min(tensors_of(SOURCE, 2)): "model-00010-of-00009.safetensors"}))
    return ["model-00010-of-00009.safetensors"]


def index_is_cut(model):
    os.truncate(model / INDEX, 100)
    return [INDEX]


def index_says_a_tensor_twice(model):
    text = (model / INDEX).read_text()
    name = min(tensors_of(SOURCE, 2))
    (model / INDEX).write_text(text.replace('"weight_map": {', f'"weight_map": {{ "{name}": "{shard(2)}",'))
    return [INDEX, name]


def index_leaves_the_folder(target):
    def damage(model):
        name = min(tensors_of(SOURCE, 2))
        write_index(model, lambda weights: weights.update({name: target}))
        return [INDEX, name]
    return damage


def tensor_in_two_shards(model):
    name = min(tensors_of(SOURCE, 2))
    save_file(tensors_of(model, 7) | {name: tensors_of(model, 2)[name]}, model / shard(7), metadata={"format": "pt"})
    return [name, (shard(2), shard(7))]


def tensor_missing(model):
    name = "model.norm.weight"
    where = support.read_json(model / INDEX)["weight_map"][name]
    rest = {n: t for n, t in load_file(model / where).items() if n != name}
    if rest:
        save_file(rest, model / where, metadata={"format": "pt"})
    else:
        (model / where).unlink()
    write_index(model, lambda weights: weights.pop(name))
    return [name]


def key_twice_in_a_header(model):
    header, body = read_header(model / shard(2))
    name = min(tensors_of(SOURCE, 2)).encode()
    start = header.index(b'"' + name + b'"')
    entry = header[start:header.index(b"}", start) + 1]
    write_file(model / shard(2), header[:start] + entry + b"," + header[start:], body)
    return [shard(2), name.decode()]


def ranges_overlap(model):
    header, body = read_header(model / shard(2))
    name = b"extra"
    extra = b'"extra":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
    write_file(model / shard(2), b"{" + extra + header[1:], body)
    return [shard(2)]


def header_bomb(length):
    def damage(model):
        header, body = read_header(model / shard(2))
        write_file(model / shard(2), header, body, length)
        return [shard(2)]
    return damage


def nested_header(model):
    write_file(model / shard(2), b'{"a":' + b"[" * 200_000, b"")
    return [shard(2)]


def nested_index(model):
    (model / INDEX).write_text('{"weight_map":' + '{"a":' * 200_000)
    return [INDEX]


def nested_config(model):
    (model / "config.json").write_text('{"model_type":' + "[" * 200_000)
    return ["config.json"]


def config_is_no_text(model):
    (model / "config.json").write_bytes(b'{"model_type": "\xff\xfe"}')
    return ["config.json"]


def tensor_named_like_a_path(model):
    name = "../../../etc/passwd"
    save_file(tensors_of(model, 2) | {name: tensors_of(model, 2)[min(tensors_of(model, 2))].clone()}, model / shard(2),
              metadata={"format": "pt"})
    write_index(model, lambda weights: weights.update({name: shard(2)}))
    return [name]


def shard_is_a_folder(model):
    (model / shard(2)).unlink()
    (model / shard(2)).mkdir()
    return [shard(2)]


DAMAGES = {function.__name__: function for function in [
    truncated_in_the_data, truncated_in_the_header, longer_than_its_header_says, emptied, two_shards_swapped, one_shard_twice,
    index_points_to_another_shard, index_names_a_tensor_that_no_shard_has, index_lacks_a_tensor,
    index_names_a_shard_that_is_not_there, index_is_cut, index_says_a_tensor_twice, tensor_in_two_shards, tensor_missing,
    key_twice_in_a_header, ranges_overlap, nested_header, nested_index, nested_config, config_is_no_text, tensor_named_like_a_path,
    shard_is_a_folder]}
DAMAGES |= {f"index_leaves_the_folder[{target}]": index_leaves_the_folder(target) for target in (
    "../model/x.safetensors", "/etc/passwd", "../../etc/passwd", "sub/x.safetensors", ".hidden.safetensors", "x.bin",
    "x\0.safetensors")}
DAMAGES |= {f"header_bomb[{length}]": header_bomb(length) for length in (100_000_001, 99_999_999, 1 << 62, 1 << 63, (1 << 64) - 1)}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_refused_by_name(damage, tmp_path, prompts):
    model = shutil.copytree(SOURCE, tmp_path / "model")
    names = damage(model)
    before = sorted(path for path in tmp_path.rglob("*"))
    job = support.write_job(tmp_path / "prompts/job.json", model, prompts)
    before.append(job)
    out = tmp_path / "out"
    for command, done in (("edit", support.bearing("edit", "--model", model, "--direction", DIRECTION, "--out", out)),
                          ("run", support.run_job(job, out))):
        # `run` looks before it starts anything: the job cannot run. `edit` is bearing-edit, which says what kind of error it is.
        assert done.code in ((2,) if command == "run" else (1, 2, 3)), done.text
        lines = done.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith(("bearing: ", "bearing-edit: error: ")), done.text
        for name in names:
            alternatives = name if isinstance(name, tuple) else (name,)
            assert any(one in lines[0] for one in alternatives), f"names none of {alternatives}: {lines[0]}"
        assert done.seconds < SECONDS, done.text
        assert not out.exists()
        assert not (tmp_path / "out.partial").exists()
    assert sorted(path for path in tmp_path.rglob("*")) == sorted(set(before))
