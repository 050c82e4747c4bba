"""scripts/bench on the tiny models: every section runs on both sides, they do the same work, and the ratios are of what was timed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ["BEARING_BIN"])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "results.json"
    done = subprocess.run([sys.executable, HERE / "bench.py", "--bin", BIN, "--models", out.parent, "--smoke", "--threads", "1",
                           "--dtype", "float32", "--dtype", "bfloat16", "--json", out,
                           "--sections", "forward,generate,ranks,streamed,job,savings,plan,large"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for tables in found["sections"].values():
        for table in tables:
            assert f"### {table['title']}\n" in done.stdout
    return found


def rows(results, section):
    (table,) = results["sections"][section]
    assert table["rows"]
    return table["rows"]


def test_machine_and_commit_are_named(results):
    assert results["machine"]["processor"] and results["machine"]["versions"]["transformers"]
    assert results["smoke"] and results["threads"] == 1


def test_forward_reads_the_same_next_tokens_on_both_sides(results):
    found = {row["dtype"]: row for row in rows(results, "forward")}
    assert found["float32"]["agree"] == 1.0 and found["bfloat16"]["agree"] > 0.5
    for row in found.values():
        assert row["ratio"] == pytest.approx(row["transformers s"] / row["bearing s"])
        assert row["prompts"] == 8 and 0 < row["share of peak"] < 1.5
        # What is shared in front is computed once; a padded batch is never smaller than its prompts.
        assert row["tokens"]["computed"] < row["tokens"]["prompts"] <= row["tokens"]["padded"]


def test_generation_makes_the_same_tokens_on_both_sides(results):
    float32 = [row for row in rows(results, "generate") if row["dtype"] == "float32"]
    assert [row["rows end"] for row in float32] == ["when they say so", "never"]
    assert all(row["equal"] == 1.0 for row in float32)
    assert float32[1]["tokens made"] == 4 * 6


@pytest.mark.parametrize("section, key", [("ranks", "speed of 2 ranks"), ("streamed", "speed of streamed")])
def test_layouts_are_timed_beside_each_other(results, section, key):
    names = {"ranks": ("1 rank s", "2 ranks s"), "streamed": ("resident s", "streamed s")}[section]
    for row in rows(results, section):
        assert row[key] == pytest.approx(row[names[0]] / row[names[1]])
        assert len(row["peak_bytes"][names[1]]) == (2 if section == "ranks" else 1)


def test_jobs_choose_the_same_direction(results):
    for row in rows(results, "job"):
        assert row["ratio"] == pytest.approx(row["transformers s"] / row["bearing s"])
        if row["dtype"] == "float32":
            assert row["largest score difference"] < 1e-3
            assert row["chosen"]["transformers"] == row["chosen"]["complete"] == row["chosen"]["cheap tests first"]


def test_every_saving_is_measured(results):
    assert {row["saving"] for row in rows(results, "savings")} >= {"without shared prefix", "logits at every position"}


def test_plans_are_compared_with_runs(results):
    assert {row["ranks"] for row in rows(results, "plan")} == {1, 2}


def test_the_large_model_reads_each_layer_once(results):
    (row,) = rows(results, "large")
    assert len(row["peak_bytes"]) == 2 and row["GiB of all ranks"] == pytest.approx(sum(row["peak_bytes"]) / 2**30)
    # One pass over the 3 layers; the reader has begun with the first again.
    assert row["layers read"] in (3, 4)


def test_unknown_sections_are_refused():
    done = subprocess.run([sys.executable, HERE / "bench.py", "--bin", BIN, "--models", HERE, "--sections", "forwards"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no such section: forwards" in done.stderr
