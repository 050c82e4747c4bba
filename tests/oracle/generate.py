#!/usr/bin/env python3
"""Greedy completions from transformers, one JSON object a line: {"instruction", "response", "token_ids"}.

    generate.py --model DIR --prompts FILE --count 4 --max-new-tokens 32 [--dtype bfloat16] [--ablate DIRECTION] [--out FILE]
"""

import argparse
import json
import sys

import torch

import plain_model


@torch.inference_mode()
def generate(model, tokenizer, rows, max_new_tokens, batch_size=8):
    """The new token ids of every row, up to and without the end token. Rows of a batch are padded on the left."""
    end = model.generation_config.eos_token_id
    ends = set(end if isinstance(end, list) else [end])
    found = []
    for batch in plain_model.batches(rows, batch_size):
        ids, mask = plain_model.left_padded(batch, tokenizer.pad_token_id)
        output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                                pad_token_id=tokenizer.pad_token_id)
        for row in output[:, ids.shape[1]:].tolist():
            stop = next((i for i, token in enumerate(row) if token in ends), len(row))
            found.append(row[:stop])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--system")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=list(plain_model.DTYPES), default="float32")
    parser.add_argument("--out", help="default: standard output")
    plain_model.add_steering_arguments(parser)
    arguments = parser.parse_args()
    plain_model.check_steering_arguments(parser, arguments)
    tokenizer = plain_model.load_tokenizer(arguments.model)
    model = plain_model.load_model(arguments.model, arguments.dtype)
    instructions = plain_model.load_instructions(arguments.prompts, arguments.count)
    rows = plain_model.token_ids(tokenizer, instructions, arguments.system)
    with plain_model.steered(model, arguments.ablate, arguments.add, arguments.layer):
        found = generate(model, tokenizer, rows, arguments.max_new_tokens, arguments.batch_size)
    with open(arguments.out, "w", encoding="utf-8") if arguments.out else sys.stdout as out:
        for instruction, ids in zip(instructions, found):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            out.write(json.dumps({"instruction": instruction, "response": text, "token_ids": ids}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
