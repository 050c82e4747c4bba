"""Prefill on two ranks of one thread against one rank of two threads, and of streamed weights against resident ones."""

import measure
from engine import Engine


def compare(context, table, folder, dtype, work, first, second, name, key):
    """One row: `second` beside `first`, both loaded, in turn; `key` is the ratio of their speeds."""
    rows = measure.chat_rows(folder, context.prompts, *context.lengths)
    file = measure.write_json(context.work / "rows.json", rows)
    with Engine(context.bin, folder, file, dtype, **first) as a, Engine(context.bin, folder, file, dtype, **second) as b:
        for engine in (a, b):
            engine.ask(**work)  # Warm, and the weights are in the page cache.
        base, other = measure.in_turn(context.rounds, lambda: a.ask(**work), lambda: b.ask(**work))
    seconds, other_seconds = measure.median_seconds(base), measure.median_seconds(other)
    table.add(**{"model": folder.name, "dtype": dtype, "prompts": len(rows), name[0]: seconds, name[1]: other_seconds,
                 key: seconds / other_seconds, "tokens": base[0]["tokens"],
                 "peak_bytes": {name[0]: base[-1]["peak_bytes"], name[1]: other[-1]["peak_bytes"]},
                 "seconds": {name[0]: [r["seconds"] for r in base], name[1]: [r["seconds"] for r in other]}})


def run_ranks(context):
    names, key = ("1 rank s", "2 ranks s"), "speed of 2 ranks"
    table = measure.Table("ranks", ["model", "dtype", "prompts", *names, key])
    for folder in context.models:
        for dtype in context.dtypes:
            compare(context, table, folder, dtype, {"do": "forward"}, {"threads": 2}, {"threads": 1, "ranks": 2}, names, key)
    return [table]


def run_streamed(context):
    names, key = ("resident s", "streamed s"), "speed of streamed"
    table = measure.Table("streamed", ["model", "dtype", "prompts", *names, key])
    for folder in context.models:
        for dtype in context.dtypes:
            compare(context, table, folder, dtype, {"do": "collect", "positions": 5}, {"threads": context.threads},
                    {"threads": context.threads, "residency": "streamed"}, names, key)
    return [table]
