#!/usr/bin/env python3
"""Projections of the residual stream on directions, and what attention heads and MLPs write along them, from transformers.

    probe.py --model DIR --direction FILE [--direction FILE ...] --token-ids FILE.json --out FILE.safetensors

n rows, K directions, L layers, H heads; all float64: projection [n, K, L+1] and norm [n, L+1] of the last token's input of every
block, then of the final norm; attention, mlp [n, K, L] and heads [n, K, L, H] of the writes at the last token; and for each row
"tokens.ROW" [K, T, L], all tokens at the inputs of the blocks. A head's write is its slice of the output product, behind the
norm where there is one, whose scale is that of the whole write.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import plain_model


def unit_directions(paths):
    return torch.stack([(d := plain_model.load_direction(path)[0].double()) / d.norm() for path in paths])


def scale_of(norm, product):
    """What a norm behind the output product multiplies each element with."""
    variance = product.float().pow(2).mean()
    gain = 1 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight
    return (gain.float() * torch.rsqrt(variance + getattr(norm, "eps", getattr(norm, "variance_epsilon", None)))).double()


@torch.inference_mode()
def probe(model, rows, basis):
    blocks = plain_model.blocks_of(model)
    seen = {}

    def keep_input(name):
        return lambda _, args: seen.__setitem__(name, args[0][0].clone())

    def keep_output(name):
        def hook(_, __, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0].clone()
        return hook

    handles = []
    for i, block in enumerate(blocks):
        attention, mlp = plain_model.writers_of(block)
        handles += [block.register_forward_pre_hook(keep_input(("input", i))),
                    block.self_attn.o_proj.register_forward_pre_hook(keep_input(("heads", i))),
                    block.self_attn.o_proj.register_forward_hook(keep_output(("product", i))),
                    attention.register_forward_hook(keep_output(("attention", i))),
                    mlp.register_forward_hook(keep_output(("mlp", i)))]
    handles.append(plain_model.decoder_of(model).norm.register_forward_pre_hook(keep_input(("input", len(blocks)))))

    found = {name: [] for name in ("projection", "norm", "attention", "mlp", "heads")}
    tokens = {}
    with plain_model.hooked(handles):
        for r, row in enumerate(rows):
            model(input_ids=torch.tensor([row]), use_cache=False)
            inputs = torch.stack([seen["input", i] for i in range(len(blocks) + 1)]).double()  # [L+1, T, d]
            found["projection"].append((inputs[:, -1] @ basis.T).T)
            found["norm"].append(inputs[:, -1].norm(dim=1))
            tokens[f"tokens.{r}"] = torch.einsum("ltd,kd->ktl", inputs[:-1], basis).contiguous()
            for name in ("attention", "mlp"):
                found[name].append(torch.stack([basis @ seen[name, i][-1].double() for i in range(len(blocks))], 1))
            heads = []
            for i, block in enumerate(blocks):
                weight, given = block.self_attn.o_proj.weight.double(), seen["heads", i][-1].double()
                size = block.self_attn.head_dim
                written = torch.stack([weight[:, h:h + size] @ given[h:h + size] for h in range(0, len(given), size)])  # [H, d]
                writer = plain_model.writers_of(block)[0]
                if writer is not block.self_attn:
                    written = written * scale_of(writer, seen["product", i][-1])
                heads.append(basis @ written.T)
            found["heads"].append(torch.stack(heads, 1))
    return {name: torch.stack(list_) for name, list_ in found.items()} | tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--direction", action="append", required=True)
    parser.add_argument("--token-ids", required=True, help="JSON: a list of lists of token ids")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    rows = json.loads(Path(arguments.token_ids).read_text())
    save_file(probe(plain_model.load_model(arguments.model), rows, unit_directions(arguments.direction)), arguments.out)


if __name__ == "__main__":
    main()
