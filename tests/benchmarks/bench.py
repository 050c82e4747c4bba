#!/usr/bin/env python3
"""Bearing against plain transformers on the same work, in turn, in one run. See scripts/bench.

Each section prints a table in Markdown; --json FILE takes everything that was measured, with machine and commit. Both sides have
the same threads, dtype and prompts; transformers runs at its best batch size of --batch-sizes.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import tempfile
from dataclasses import dataclass, field

# The sections; `large` writes a file of 15 GB and is run only when it is named.
SECTIONS = ("forward", "generate", "ranks", "streamed", "job", "savings", "plan", "large")
DEMO_MODELS = ("qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct")


@dataclass
class Context:
    bin: pathlib.Path
    models: list
    dtypes: list
    threads: int
    rounds: int
    batch_sizes: list
    prompts: int
    completions: int
    new_tokens: int
    job: argparse.Namespace
    work: pathlib.Path = None
    lengths: tuple = (20, 60)
    large_prompts: int = 24
    large_gemm: list = field(default_factory=list)
    large_shape: dict = field(default_factory=dict)


def smaller(context):
    """The same on the tiny models of the tests, in seconds: shows that the benchmarks run, measures nothing."""
    tiny = pathlib.Path(__file__).resolve().parent.parent / "golden/tiny"
    context.models = [tiny / "qwen2-bf16"]
    context.rounds, context.batch_sizes, context.lengths = 1, [2, 4], (1, 400)
    context.prompts, context.completions, context.new_tokens, context.large_prompts = 8, 4, 6, 4
    context.large_gemm = ["measured"]
    context.large_shape = {"hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 512,
                           "num_hidden_layers": 3, "vocab_size": 512}
    job = context.job
    job.layers, job.positions, job.train, job.validation, job.token_ids, job.induce_min = "1,2", "-1", 4, 3, "40,42", -100
    return context


def arguments():
    import bench_job
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True, help="folder of the demo models")
    parser.add_argument("--sections", default="forward,generate,ranks,streamed,job,savings", help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--model", type=pathlib.Path, action="append", help="may be given again; default: the demo models found")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append", help="may be given again; default float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are given")
    parser.add_argument("--batch-sizes", default="16,32,64", help="that transformers may choose from")
    parser.add_argument("--prompts", type=int, default=256, help="of forward, ranks and streamed")
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--large-prompts", type=int, default=24)
    parser.add_argument("--large-gemm", default="measured", help="how the large model's products are computed; may be a list")
    parser.add_argument("--json", type=pathlib.Path, help="write all results here")
    parser.add_argument("--smoke", action="store_true", help="tiny models: shows that every section runs, measures nothing")
    bench_job.add_arguments(parser.add_argument_group("sections job and plan"))
    a = parser.parse_args()
    a.sections = a.sections.split(",")
    if unknown := set(a.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return a


def models_of(a):
    models = a.model or [a.models / name for name in DEMO_MODELS if (a.models / name / "config.json").exists()]
    if not models and not a.smoke:
        raise SystemExit(f"{a.models} holds none of {', '.join(DEMO_MODELS)}: scripts/quickstart fetches one, --model names others")
    for model in models:
        if not (model / "config.json").exists():
            raise SystemExit(f"{model}: no model folder, config.json is missing")
    return [model.resolve() for model in models]


def run_plan(context):
    """Plan / measured of a job (plan_accuracy.py)."""
    import measure
    import plan_accuracy
    table = measure.Table("plan", ["model", "dtype", "ranks", "memory", "time"])
    layers, tokens = ([int(x) for x in value.split(",")] for value in (context.job.layers, context.job.token_ids))
    for model in context.models:
        for dtype in context.dtypes:
            with tempfile.TemporaryDirectory(dir=context.work) as name:
                work = pathlib.Path(name)
                job = plan_accuracy.write_job(work / "job.json", model, dtype, context.job.train, context.job.validation,
                                              context.job.validation, min(24, context.new_tokens), layers, True, tokens)
                for ranks in (1, 2):
                    got = plan_accuracy.compare(context.bin, job, work, ranks)
                    table.add(**{"model": model.name, "dtype": dtype} | got)
    return [table]


def section(name):
    # Imported here: torch, and with it the number of threads, comes with them.
    import bench_forward
    import bench_generate
    import bench_job
    import bench_large
    import bench_ranks
    return {"forward": bench_forward.run, "generate": bench_generate.run, "ranks": bench_ranks.run_ranks,
            "streamed": bench_ranks.run_streamed, "job": bench_job.run, "savings": bench_job.run_savings, "plan": run_plan,
            "large": bench_large.run}[name]


def main():
    a = arguments()
    import measure
    context = Context(bin=a.bin.resolve(), models=models_of(a), dtypes=a.dtype or ["float32"], threads=a.threads, rounds=a.rounds,
                      batch_sizes=[int(size) for size in a.batch_sizes.split(",")], prompts=a.prompts,
                      completions=a.completions, new_tokens=a.new_tokens, job=a, large_prompts=a.large_prompts,
                      large_gemm=a.large_gemm.split(","))
    if a.smoke:
        context = smaller(context)
    result = {"machine": measure.machine(), "threads": context.threads, "rounds": context.rounds, "smoke": a.smoke, "sections": {}}
    print(", ".join(f"{k} {v}" for k, v in result["machine"].items()), f"threads {context.threads}", sep=", ", end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bearing-bench-") as name:
        context.work = pathlib.Path(name)
        for name in a.sections:
            with contextlib.redirect_stdout(io.StringIO()):  # Programs that are run may talk; tables are printed below.
                tables = section(name)(context)
            result["sections"][name] = [table.json() for table in tables]
            for table in tables:
                print(table.markdown(), flush=True)
            if a.json:  # After each section: a long run that is stopped leaves what it has.
                a.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
