"""Last-position logits of many prompts: Bearing against transformers, and the share of the machine's own rate of products."""

import json

import measure
import plain
from engine import Engine

COLUMNS = ["model", "dtype", "prompts", "bearing s", "transformers s", "ratio", "ratio all logits", "share of peak", "agree"]


def run(context):
    table = measure.Table("forward", COLUMNS)
    for folder in context.models:
        for dtype in context.dtypes:
            table.add(**one(context, folder, dtype))
    return [table]


def one(context, folder, dtype):
    rows = measure.chat_rows(folder, context.prompts, *context.lengths)
    some = rows[:max(1, len(rows) // 4)]
    file = measure.write_json(context.work / "rows.json", rows)
    other = plain.Plain(folder, dtype, context.threads)
    config = other.model.config
    with Engine(context.bin, folder, file, dtype, threads=context.threads) as engine:
        size, sizes = plain.best_size(context.batch_sizes, lambda size: other.forward(some, size, last=True))
        engine.ask("forward", rows=len(some))  # Both sides are warm.
        ours, theirs = measure.in_turn(context.rounds, lambda: engine.ask("forward"), lambda: other.forward(rows, size, last=True))
        # Logits of every position, what a forward call gives when it is not asked for less: on a part, relative to the same part.
        every, last = measure.in_turn(context.rounds, lambda: other.forward(some, size, last=False),
                                      lambda: other.forward(some, size, last=True))
        peak, peak_cpu = (plain.gemm_peak(config, dtype, context.threads, clock) for clock in ("seconds", "cpu_seconds"))
        loaded = engine.loaded
    seconds, theirs_seconds, ratio = measure.median_seconds(ours), measure.median_seconds(theirs), measure.ratio(ours, theirs)
    tokens = ours[0]["tokens"]
    longest = [max(map(len, rows[i:i + size])) * len(rows[i:i + size]) for i in range(0, len(rows), size)]
    share = plain.product_flops(config, tokens, len(rows)) / seconds / peak
    agree = sum(a == b for a, b in zip(ours[0]["ids"], theirs[0]["result"])) / len(rows)
    return {"model": folder.name, "dtype": dtype, "prompts": len(rows), "bearing s": seconds, "transformers s": theirs_seconds,
            "ratio": ratio, "ratio all logits": ratio * measure.ratio(last, every),
            "ratio of processor time": measure.ratio(ours, theirs, "cpu_seconds"),
            "ratio of processor time, all logits": measure.ratio(ours, theirs, "cpu_seconds") * measure.ratio(last, every, "cpu_seconds"),
            "share of peak in processor time": plain.product_flops(config, tokens, len(rows)) / peak_cpu
            / measure.median_seconds(ours, "cpu_seconds"),
            "share of peak": share, "agree": agree,
            "transformers' share of peak": plain.product_flops(config, sum(longest), sum(longest) / max(map(len, rows)))
            / theirs_seconds / peak,
            "peak GFLOP/s": peak / 1e9, "tokens": {"prompts": sum(map(len, rows)), "computed": tokens, "padded": sum(longest)},
            "batch size": size, "batch sizes on a part": sizes, "gemm path": loaded["gemm_path"],
            "seconds": {"bearing": [r["seconds"] for r in ours], "transformers": [r["seconds"] for r in theirs]}}
