#!/usr/bin/env python3
"""Token ids, residuals and last-position logits of prompts, from transformers: what `bearing trace` writes.

    trace.py --model DIR (--prompts FILE | --token-ids FILE.json) --out FILE.safetensors [--dtype bfloat16] [--ablate DIRECTION]

The file holds token_ids [n, T] (int64, -1 behind the end of shorter rows), lengths [n] (int64), residual [n, L+1, d] (float32:
the last token's input of every block, then of the final norm) and logits [n, V] (float32). Under --ablate the residual is what
is left of it; under --add the input of block --layer is the one before the addition. Rows run one at a time, so nothing
is padded.
"""

import argparse
import contextlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import plain_model


@torch.inference_mode()
def trace(model, rows, ablate=None, add=None, layer=None):
    """{"token_ids", "lengths", "residual", "logits"} of token-id lists, with a direction ablated or a vector added."""
    points = [*plain_model.blocks_of(model), plain_model.decoder_of(model).norm]
    seen = {}

    def keep(index):
        return lambda _, args: seen.__setitem__(index, args[0][0, -1].float().clone())

    residual, logits = [], []
    # Hooks run in the order they are registered: what ablation leaves is seen, what is added is not seen yet.
    with contextlib.ExitStack() as hooks:
        if ablate is not None:
            hooks.enter_context(plain_model.ablated(model, ablate))
        hooks.enter_context(plain_model.hooked([p.register_forward_pre_hook(keep(i)) for i, p in enumerate(points)]))
        if add is not None:
            hooks.enter_context(plain_model.added(model, add, layer))
        for row in rows:
            output = model(input_ids=torch.tensor([row]), use_cache=False)
            residual.append(torch.stack([seen[i] for i in range(len(points))]))
            logits.append(output.logits[0, -1].float().clone())
    longest = max(map(len, rows))
    return {"token_ids": torch.tensor([list(r) + [-1] * (longest - len(r)) for r in rows]),
            "lengths": torch.tensor([len(r) for r in rows]),
            "residual": torch.stack(residual), "logits": torch.stack(logits)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts")
    source.add_argument("--token-ids", help="JSON: a list of lists of token ids")
    parser.add_argument("--count", type=int, default=0, help="use the first prompts only")
    parser.add_argument("--system")
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", choices=list(plain_model.DTYPES), default="float32")
    plain_model.add_steering_arguments(parser)
    arguments = parser.parse_args()
    plain_model.check_steering_arguments(parser, arguments)
    if arguments.prompts:
        instructions = plain_model.load_instructions(arguments.prompts, arguments.count)
        rows = plain_model.token_ids(plain_model.load_tokenizer(arguments.model), instructions, arguments.system)
    else:
        rows = json.loads(Path(arguments.token_ids).read_text())
        rows = rows[:arguments.count] if arguments.count else rows
    model = plain_model.load_model(arguments.model, arguments.dtype)
    ablate = plain_model.load_direction(arguments.ablate)[0] if arguments.ablate else None
    add = plain_model.addition_vector(arguments.add) if arguments.add else None
    tensors = trace(model, rows, ablate, add, arguments.layer)
    save_file(tensors, arguments.out, metadata={"format": "pt", "dtype": arguments.dtype})
    print(json.dumps({"out": arguments.out, **{name: list(t.shape) for name, t in tensors.items()}}))


if __name__ == "__main__":
    main()
