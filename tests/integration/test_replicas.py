"""Several copies of the model on one job: the results of one copy, and the same bits each time."""

import pytest
from safetensors.torch import load_file

import support

import compare
from test_job_tiny import Job, prompts  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def one(tmp_path_factory, prompts):  # noqa: F811
    return Job(tmp_path_factory.mktemp("one"), "llama-tied", prompts, 1)


def run(folder, prompts, ranks, tensor_parallel, **model):  # noqa: F811
    changes = {"tensor_parallel": tensor_parallel}
    if model:
        changes["model"] = model
    job = Job(folder, "llama-tied", prompts, ranks, **changes)
    assert job.done.code == 0, job.done.text
    return job


@pytest.mark.parametrize("ranks, tensor_parallel, residency", [(2, 1, "resident"), (3, 1, "resident"), (4, 2, "resident"),
                                                               (2, 1, "streamed")])
def test_every_layout_gives_the_one_rank_answer(tmp_path, prompts, one, ranks, tensor_parallel, residency):  # noqa: F811
    assert one.done.code == 0, one.done.text
    job = run(tmp_path, prompts, ranks, tensor_parallel, residency=residency)
    assert len(job.table["candidates"]) == len(one.table["candidates"])
    found = compare.compare_candidates(job.table, one.table)
    assert compare.worst(found)["error"] <= 1e-4, compare.worst(found)
    found = compare.compare_means(*(load_file(j.out / "means.safetensors") for j in (job, one)))
    assert compare.worst(found)["error"] <= 1e-5, compare.worst(found)
    assert job.table["selected"] == one.table["selected"]
    assert support.same_completions(job.out, one.out)
    kept = [support.read_json(j.out / "collect.json")["prompt_sets"] for j in (job, one)]
    assert kept[0] == kept[1]
    assert support.read_json(job.out / "manifest.json")["provenance"]["settings"]["tensorParallel"] == tensor_parallel


def test_the_same_layout_gives_the_same_bits(tmp_path, prompts):  # noqa: F811
    files = ("means.safetensors", "candidates.json", "completions.jsonl")
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        job = run(tmp_path / name, prompts, 3, 1)
        shards = sorted(path.name for path in (job.out / "checkpoint").glob("*.safetensors"))
        found.append([support.sha256(job.out / file) for file in files] +
                     [support.sha256(job.out / "checkpoint" / shard) for shard in shards])
    assert found[0] == found[1]


def test_copies_must_use_all_ranks(tmp_path, prompts):  # noqa: F811
    job = Job(tmp_path, "llama-tied", prompts, 3, tensor_parallel=2)
    assert job.done.code == 2, job.done.text
    assert "tensor_parallel: " in job.done.err and "a divisor of ranks: 3" in job.done.err
