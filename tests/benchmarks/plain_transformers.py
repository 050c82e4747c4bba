#!/usr/bin/env python3
"""Times the phases of a job in plain transformers: the baseline that Bearing's speed is given against.

    plain_transformers.py --model DIR --positive FILE --negative FILE --token-ids 40,2121 --threads 2 --dtype float32
        [--train-count 32] [--validation-count 16] [--layers 10-12] [--positions=-1] [--generate 64 --max-new-tokens 32]
        [--batch-sizes 8,16,32,64] [--phases collect,select,generate] [--logits all,last] [--repeat 1]
        [--out FILE.json]

Each phase runs in this one process at every batch size listed and its best time counts, so that the baseline is not slow by
a bad choice. `logits: all` is what a plain forward call computes; `logits: last` asks transformers for the last position only
(logits_to_keep=1). Tokenizing and loading are not timed. The forward and the scores are those of tests/oracle.
"""

import argparse
import json
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "oracle"))
import generate
import plain_model
import refusal_direction


def timed(work, repeat):
    """(result, best seconds)"""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - started)
    return result, best


def best_of(results):
    return min(results, key=lambda r: r["seconds"])


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.model = plain_model.load_model(arguments.model, arguments.dtype)
        self.tokenizer = plain_model.load_tokenizer(arguments.model)
        self.num_positions = plain_model.num_positions(self.tokenizer, arguments.system)
        needed = arguments.train_count + arguments.validation_count
        self.positive = self.rows(arguments.positive, needed)
        self.negative = self.rows(arguments.negative, needed)
        self.train = [side[:arguments.train_count] for side in (self.positive, self.negative)]
        self.validation = [side[arguments.train_count:needed] for side in (self.positive, self.negative)]

    def rows(self, file, count):
        instructions = plain_model.load_instructions(file)
        if len(instructions) < count:
            raise SystemExit(f"{file}: {len(instructions)} prompts, expected at least {count}")
        return plain_model.token_ids(self.tokenizer, instructions[:count], self.arguments.system)

    def runner(self, batch_size, last):
        return refusal_direction.Runner(self.model, self.tokenizer.pad_token_id, batch_size, last)

    def sizes(self, largest):
        """The batch sizes worth trying: none larger than the smallest that holds all rows."""
        return [s for s in self.arguments.batch_sizes if s < largest] + \
            [s for s in self.arguments.batch_sizes if s >= largest][:1]

    def collect(self):
        found = []
        for logits in self.arguments.logits:
            for size in self.sizes(max(map(len, self.train))):
                means, seconds = timed(lambda: refusal_direction.collect(self.runner(size, logits == "last"), *self.train,
                                                                         self.num_positions), self.arguments.repeat)
                found.append({"logits": logits, "batch_size": size, "seconds": seconds})
        return means, found

    def select(self, means):
        """The batch size is chosen on one candidate, then all candidates run with it."""
        layers, positions = self.arguments.layers, self.arguments.positions
        found = []
        for logits in self.arguments.logits:
            trials = []
            for size in self.sizes(max(map(len, self.validation))):
                runner = self.runner(size, logits == "last")
                baseline = runner.last_logits(self.validation[1])
                _, seconds = timed(lambda: refusal_direction.score(runner, means["mean_difference"][-1, 1], 1, *self.validation,
                                                                   baseline, self.arguments.token_ids), 1)
                trials.append({"batch_size": size, "seconds": seconds})
            size = best_of(trials)["batch_size"]
            candidates, seconds = timed(lambda: refusal_direction.select(
                self.runner(size, logits == "last"), means["mean_difference"], *self.validation, self.arguments.token_ids,
                positions, layers), self.arguments.repeat)
            found.append({"logits": logits, "batch_size": size, "seconds": seconds,
                          "seconds_per_candidate": seconds / len(candidates), "one_candidate": trials})
        return candidates, found

    def generate(self):
        wanted = self.arguments.generate
        rows = (self.positive + self.negative)[:wanted]
        rows = (rows * -(-wanted // len(rows)))[:wanted]
        # Every row generates the full length, as on the side it is compared with.
        self.model.generation_config.eos_token_id = None
        found = []
        for size in self.sizes(wanted):
            _, seconds = timed(lambda: self.generate_all(rows, size), self.arguments.repeat)
            tokens = wanted * self.arguments.max_new_tokens
            found.append({"batch_size": size, "seconds": seconds, "tokens_per_second": tokens / seconds})
        return found

    @torch.inference_mode()
    def generate_all(self, rows, size):
        for batch in plain_model.batches(rows, size):
            ids, mask = plain_model.left_padded(batch, self.tokenizer.pad_token_id)
            found = self.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=self.arguments.max_new_tokens,
                                        do_sample=False, pad_token_id=self.tokenizer.pad_token_id)
            if found.shape[1] - ids.shape[1] != self.arguments.max_new_tokens:
                raise SystemExit(f"generated {found.shape[1] - ids.shape[1]} tokens, expected {self.arguments.max_new_tokens}")


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--positive", required=True)
    parser.add_argument("--negative", required=True)
    parser.add_argument("--system")
    parser.add_argument("--token-ids", type=refusal_direction.numbers, required=True)
    parser.add_argument("--train-count", type=int, default=32, help="prompts a side for collect (default 32)")
    parser.add_argument("--validation-count", type=int, default=16, help="the next prompts a side for select (default 16)")
    parser.add_argument("--layers", type=refusal_direction.numbers)
    parser.add_argument("--positions", type=refusal_direction.numbers)
    parser.add_argument("--generate", type=int, default=64, help="prompts to complete")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--batch-sizes", type=refusal_direction.numbers, default=[8, 16, 32, 64])
    parser.add_argument("--dtype", choices=list(plain_model.DTYPES), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--phases", default="collect,select,generate")
    parser.add_argument("--logits", type=lambda text: text.split(","), default=["all", "last"])
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the best counts")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    phases = arguments.phases.split(",")
    if unknown := set(phases) - {"collect", "select", "generate"}:
        parser.error(f"unknown phases: {sorted(unknown)}")
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    report = {
        "program": "plain_transformers", "model": Path(arguments.model).name, "dtype": arguments.dtype,
        "threads": arguments.threads, "processor": processor(),
        "versions": {p: version(p) for p in ("torch", "transformers")},
        "num_positions": bench.num_positions, "train": arguments.train_count, "validation": arguments.validation_count,
        "prompt_tokens": {"train": sum(len(r) for side in bench.train for r in side),
                          "validation": sum(len(r) for side in bench.validation for r in side)}, "phases": {}}
    # The first pass pays for lazy set-up and page faults of the weights; it belongs to no phase.
    bench.runner(1, True).last_logits(bench.train[0][:1])
    if "collect" in phases or "select" in phases:
        means, found = bench.collect()
        report["phases"]["collect"] = {logits: best_of([f for f in found if f["logits"] == logits])
                                       for logits in arguments.logits} | {"trials": found}
    if "select" in phases:
        candidates, found = bench.select(means)
        report["phases"]["select"] = {f["logits"]: f for f in found} | {
            "num_candidates": len(candidates), "candidates": candidates}
    if "generate" in phases:
        found = bench.generate()
        report["phases"]["generate"] = best_of(found) | {"prompts": arguments.generate, "new_tokens": arguments.max_new_tokens,
                                                         "trials": found}
    report["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    text = json.dumps(report, indent=1)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
