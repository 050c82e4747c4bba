"""Whole jobs on tiny models of the other families, and on streamed weights: the scores of the oracle, and an edited checkpoint
that transformers opens."""

import pytest
import torch

import support

import compare
import plain_model
from test_job_tiny import Job, Oracle, prompts  # noqa: F401 (a fixture)

# A family whose writes pass a norm is edited so that no write has a component along the direction; it is then near the ablated
# model, not equal to it.
CASES = [("mixtral", 2, True), ("qwen2-moe", 3, True), ("qwen1", 2, True), ("phi3-plain", 2, True), ("mistral-window", 3, True),
         ("qwen3-yarn", 2, True), ("gemma-mqa", 2, True), ("gemma2-softcap", 2, False)]


@pytest.mark.parametrize("model, ranks, exact", CASES)
def test_a_job_of_the_family(tmp_path, prompts, model, ranks, exact):  # noqa: F811
    job = Job(tmp_path, model, prompts, ranks)
    assert job.done.code == 0, job.done.text
    oracle = Oracle(model, prompts)
    scored = {(c["position"], c["layer"]) for c in job.table["candidates"] if c["bypass"] is not None}
    assert scored == {(c["position"], c["layer"]) for c in oracle.usable}, "every usable candidate is scored, no other"
    found = compare.compare_candidates(job.table, oracle.table)
    assert compare.worst(found)["error"] <= 1e-3, compare.worst(found)
    verify = support.read_json(job.out / "verify.json")
    assert verify["largest_residue"] <= 1e-5, verify
    logits = verify["logits"]
    limit = 1e-3 if exact else logits["max_logit_difference_to_baseline"]
    assert logits["max_logit_difference_to_ablation"] <= limit, logits
    assert logits["max_logit_difference_to_baseline"] > 1e-3, "the edit changed nothing"

    edited = plain_model.load_model(job.out / "checkpoint")
    row = oracle.rows["negative_test"][0]
    with torch.inference_mode():
        got = edited(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
        if exact:
            direction = plain_model.load_direction(job.out / "direction.safetensors")[0]
            with plain_model.ablated(oracle.model, direction):
                want = oracle.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            assert (got - want).abs().max() <= 1e-3
    assert torch.isfinite(got).all()


def test_streamed_weights_give_the_same_job(tmp_path, prompts):  # noqa: F811
    tables = {}
    for residency in ("resident", "streamed"):
        folder = tmp_path / residency
        folder.mkdir()
        file = support.write_job(folder / "job.json", support.TINY / "llama-tied", prompts, model={"residency": residency})
        out = folder / "out"
        done = support.run_job(file, out, 2)
        assert done.code == 0, done.text
        tables[residency] = support.read_json(out / "candidates.json")
    scores = [[(c["position"], c["layer"], c["induce"], c["kl"], c["bypass"]) for c in tables[r]["candidates"]] for r in tables]
    for a, b in zip(*scores):
        assert a[:2] == b[:2]
        for x, y in zip(a[2:], b[2:]):
            assert (x is None) == (y is None) and (x is None or abs(x - y) <= 1e-6), (a, b)
