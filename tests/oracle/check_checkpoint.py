#!/usr/bin/env python3
"""Is an edited checkpoint its source with one direction removed from every tensor that writes the residual stream?

    check_checkpoint.py --source DIR --edited DIR --direction DIRECTION.safetensors [--token-ids FILE.json | --prompts FILE]
        [--max-logit-difference 1e-3]

Checks, each reported in the JSON that is printed; exit code 1 when one fails:
  loads          transformers reports no missing, unexpected or mismatched key and logs no warning
  files          every tensor of the source is there, same dtype and shape; an own lm_head only where a tie was undone
  unedited       tensors that do not write the residual stream are equal byte for byte
  edited         max over columns of |r.W'| / |W column| is within the rounding of the stored dtype
  rounding       edited values are within one unit in the last place of W - r(r.W) computed in float64
  logits         float32 logits of the edited weights against the source under ablation: at most --max-logit-difference.
                 Stored in bfloat16, the edit is rounded and this difference is of the order of 0.1; the same check on a
                 float32 copy of the source is exact, so give the tolerance of the stored dtype.
"""

import argparse
import json
import logging
import re
import sys
import warnings
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import plain_model
import trace

WRITERS = re.compile(r"embed_tokens\.weight$|self_attn\.o_proj\.(weight|bias)$|mlp\.down_proj\.(weight|bias)$")
EMBEDDING, UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
# Half a unit in the last place, relative.
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-11}


class Tensors:
    """The tensors of a model folder by name, read one at a time."""

    def __init__(self, folder):
        self.files = {}
        for path in sorted(Path(folder).glob("*.safetensors")):
            opened = safe_open(path, "pt")
            self.files |= dict.fromkeys(opened.keys(), opened)

    def __getitem__(self, name):
        return self.files[name].get_tensor(name)


class Collected(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def load_strictly(folder):
    """(float32 model, list of complaints)."""
    handler, logger = Collected(), logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    finally:
        logger.removeHandler(handler)
    complaints = [f"{kind}: {sorted(map(str, names))}" for kind, names in info.items() if names]
    complaints += [f"logged: {message}" for message in handler.messages]
    complaints += [f"warned: {w.message}" for w in caught if not issubclass(w.category, DeprecationWarning)]
    return model.eval(), complaints


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8),
                                                                       b.contiguous().view(torch.uint8))


def steps_apart(a, b):
    """Units in the last place between values of one dtype."""
    integers = {2: torch.int16, 4: torch.int32}[a.element_size()]

    def ordered(x):
        bits = x.contiguous().view(integers).long()
        return torch.where(bits >= 0, bits, -(bits + (1 << (8 * a.element_size() - 1))))

    return (ordered(a) - ordered(b)).abs()


def without(direction, name, weight):
    """Exact W - r(r.W); the embedding holds the residual on its last axis, linear weights on their first, like biases."""
    w = weight.double()
    if name.endswith("embed_tokens.weight"):
        return w - torch.outer(w @ direction, direction)
    return w - (torch.outer(direction, direction @ w) if w.ndim == 2 else direction * (direction @ w))


def leftovers(direction, name, source, edited):
    """Largest |r.W'| and the largest relative to its column of W."""
    axis = 1 if name.endswith("embed_tokens.weight") else 0
    rest = torch.tensordot(edited.double(), direction, dims=([axis if edited.ndim == 2 else 0], [0])).abs()
    size = source.double().norm(dim=axis if edited.ndim == 2 else 0)
    return rest.max().item(), (rest / size.clamp_min(1e-30)).max().item()


def check_tensors(source_folder, edited_folder, direction, problems):
    source, edited = Tensors(source_folder), Tensors(edited_folder)
    missing, extra = sorted(set(source.files) - set(edited.files)), sorted(set(edited.files) - set(source.files))
    if missing:
        problems.append(f"missing tensors: {missing}")
    if extra and extra != [UNEMBEDDING]:
        problems.append(f"tensors that the source does not have: {extra}")
    if extra == [UNEMBEDDING] and not same_bytes(source[EMBEDDING], edited[UNEMBEDDING]):
        problems.append("the own lm_head.weight is not the source's embedding")
    report = {"edited_tensors": 0, "unedited_tensors": 0, "untied": extra == [UNEMBEDDING], "max_leftover": 0.0,
              "max_relative_leftover": 0.0, "worst_tensor": None, "max_ulp": 0, "share_off_by_one": 0.0}
    off, elements = 0, 0
    for name in sorted(set(source.files) & set(edited.files)):
        before, after = source[name], edited[name]
        if before.dtype != after.dtype or before.shape != after.shape:
            problems.append(f"{name}: {after.dtype} {list(after.shape)}, source {before.dtype} {list(before.shape)}")
            continue
        if not WRITERS.search(name):
            report["unedited_tensors"] += 1
            if not same_bytes(before, after):
                problems.append(f"{name}: not edited by rule, but its bytes differ")
            continue
        report["edited_tensors"] += 1
        rest, relative = leftovers(direction, name, before, after)
        report["max_leftover"] = max(report["max_leftover"], rest)
        if relative > report["max_relative_leftover"]:
            report["max_relative_leftover"], report["worst_tensor"] = relative, name
        expected = without(direction, name, before)
        # Where projection cancels nearly all of a value, its last place is finer than the arithmetic: compare at W's scale.
        cancelled = expected.abs() < 1e-3 * before.double().abs()
        steps = steps_apart(expected.to(after.dtype), after).masked_fill(cancelled, 0)
        report["max_ulp"] = max(report["max_ulp"], steps.max().item())
        off, elements = off + int((steps > 0).sum()), elements + steps.numel()
        bound = 4 * ROUNDOFF[after.dtype] + 1e-6
        if relative > bound:
            problems.append(f"{name}: |r.W'| is {relative:.3g} of its column, expected at most {bound:.3g}")
    report["share_off_by_one"] = off / max(1, elements)
    if report["edited_tensors"] == 0:
        problems.append("no tensor that writes the residual stream was found")
    return report


def check_logits(source_folder, edited_model, raw_direction, rows, limit, problems):
    edited = trace.trace(edited_model, rows)["logits"]
    source = plain_model.load_model(source_folder, "float32")
    ablated = trace.trace(source, rows, ablate=raw_direction)["logits"]
    plain = trace.trace(source, rows)["logits"]
    a, b = edited.double().log_softmax(-1), ablated.double().log_softmax(-1)
    report = {"max_logit_difference": (edited - ablated).abs().max().item(),
              "unedited_logit_difference": (plain - ablated).abs().max().item(),
              "kl": (b.exp() * (b - a)).sum(-1).mean().item()}
    if not report["max_logit_difference"] <= limit:
        problems.append(f"logits differ by {report['max_logit_difference']:.3g}, expected at most {limit:.3g}")
    return report


def check(source, edited, direction_file, rows=None, max_logit_difference=1e-3, max_ulp=None):
    """The whole report; report["problems"] is empty when all is well."""
    raw, _ = plain_model.load_direction(direction_file)
    problems = []
    report = check_tensors(source, edited, raw.double() / raw.double().norm(), problems)
    model, complaints = load_strictly(edited)
    problems += complaints
    stored = json.loads((Path(edited) / "config.json").read_text())
    report["stored_dtype"] = stored.get("dtype") or stored.get("torch_dtype")
    if max_ulp is None and report["stored_dtype"] == "bfloat16":
        max_ulp = 1
    if max_ulp is not None and report["max_ulp"] > max_ulp:
        problems.append(f"edited values are up to {report['max_ulp']} units in the last place from the exact edit")
    if rows:
        report |= check_logits(source, model, raw, rows, max_logit_difference, problems)
    return {"ok": not problems, "problems": problems, **report}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--edited", required=True)
    parser.add_argument("--direction", required=True)
    parser.add_argument("--token-ids", help="JSON: a list of lists of token ids")
    parser.add_argument("--prompts")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--max-logit-difference", type=float, default=1e-3)
    parser.add_argument("--max-ulp", type=int, help="default: 1 for bfloat16, not checked for float32")
    arguments = parser.parse_args()
    rows = None
    if arguments.token_ids:
        rows = json.loads(Path(arguments.token_ids).read_text())[:arguments.count]
    elif arguments.prompts:
        tokenizer = plain_model.load_tokenizer(arguments.source)
        rows = plain_model.token_ids(tokenizer, plain_model.load_instructions(arguments.prompts)[:arguments.count])
    report = check(arguments.source, arguments.edited, arguments.direction, rows, arguments.max_logit_difference,
                   arguments.max_ulp)
    print(json.dumps(report))
    sys.exit(0 if report["ok"] else 1)


if __name__ == "__main__":
    main()
