"""Greedy completions: Bearing against transformers' generate, with rows that end when they say so and with rows that all run on."""

import json

import measure
import plain
from engine import Engine

COLUMNS = ["model", "dtype", "prompts", "new tokens", "rows end", "bearing s", "transformers s", "ratio", "equal"]


def run(context):
    table = measure.Table("generate", COLUMNS)
    for folder in context.models:
        for dtype in context.dtypes:
            for row in both(context, folder, dtype):
                table.add(**row)
    return [table]


def both(context, folder, dtype):
    rows = measure.chat_rows(folder, context.completions, *context.lengths)
    file = measure.write_json(context.work / "rows.json", rows)
    other = plain.Plain(folder, dtype, context.threads)
    endless = without_end(folder, context.work / f"{folder.name}-endless")
    with Engine(context.bin, folder, file, dtype, threads=context.threads) as ends, \
            Engine(context.bin, endless, file, dtype, threads=context.threads) as runs_on:
        # A few tokens find the batch size: a step's cost does not depend on how many there are.
        few = max(2, context.new_tokens // 8)
        size, sizes = plain.best_size([s for s in context.batch_sizes if s <= len(rows)] or [len(rows)],
                                      lambda size: other.generate(rows, size, few, ends=False))
        for engine, stops in ((ends, True), (runs_on, False)):
            ours, theirs = measure.in_turn(context.rounds, lambda: engine.ask("generate", new_tokens=context.new_tokens),
                                           lambda: other.generate(rows, size, context.new_tokens, stops))
            seconds, theirs_seconds = measure.median_seconds(ours), measure.median_seconds(theirs)
            yield {"model": folder.name, "dtype": dtype, "prompts": len(rows), "new tokens": context.new_tokens,
                   "rows end": "when they say so" if stops else "never", "bearing s": seconds, "transformers s": theirs_seconds,
                   "ratio": theirs_seconds / seconds, "ratio of processor time": measure.ratio(ours, theirs, "cpu_seconds"),
                   "equal": sum(a == b for a, b in zip(ours[0]["ids"], theirs[0]["result"])) / len(rows),
                   "tokens made": sum(map(len, ours[0]["ids"])), "batch size": size,
                   "batch sizes on a few tokens": sizes,
                   "seconds": {"bearing": [r["seconds"] for r in ours], "transformers": [r["seconds"] for r in theirs]}}


def without_end(folder, target):
    """The model with no end token: its files by link, its configs without the key."""
    target.mkdir(exist_ok=True)
    for file in folder.iterdir():
        if file.name in ("config.json", "generation_config.json"):
            config = json.loads(file.read_text())
            config.pop("eos_token_id", None)
            (target / file.name).write_text(json.dumps(config))
        elif not (target / file.name).exists():
            (target / file.name).symlink_to(file.resolve())
    return target
