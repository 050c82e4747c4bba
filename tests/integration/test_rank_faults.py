"""Ranks that die, hang or are cancelled in any stage of a real job: the group is gone in time, the job goes on as the next attempt
from the last finished stage, and ends with the bytes of a run that was left alone.

A rank is hit at a random moment of its stage: both are stopped when the stage has begun and a part of its usual time has gone by,
one is killed (or stays stopped), the other goes on. The test run has some stages; all of them, both ranks, both faults:

    BEARING_BIN=build/bin python tests/integration/test_rank_faults.py --all [--seed N]
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

import pytest

import service
import support

MODEL = support.TINY / "llama-tied"
STAGES = ["collect", "select", "evaluate", "judge", "cost", "edit", "verify", "report"]
LEASE_SECONDS = 5
# Of a collective; a hang must be over 5 s later.
TIMEOUT_SECONDS = 6
TEXTS = ["the river and the stone", "a name", "paper, cloud and bread!\nTwo lines of a longer text, with 12 numbers 34.", "name cat"]
FAKE_WORKER = pathlib.Path(os.environ.get("BEARING_FAKE_WORKER", support.BIN / "cli_fake_worker"))
KILL, STOP = signal.SIGKILL, signal.SIGSTOP


def write_job(folder):
    prompts = support.write_prompts(folder / "prompts", counts=(40, 20, 10), words=(3, 7))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 8), encoding="utf-8")
    return support.write_job(folder / "job.json", MODEL, prompts, ranks=2, evaluate={"max_new_tokens": 12},
                             costs={"addition": True, "texts": [{"file": "texts.jsonl", "max_tokens": 12}]})


def hashes(out):
    """Of everything whose bytes say nothing about time: checkpoint, direction, numbers, texts."""
    names = [name for name in support.files_below(out) if name not in ("report.html", "report.json", "collect.json")]
    return {name: support.sha256(out / name) for name in names}


class Bench:
    """One coordinator, the job's file, and a run that was left alone."""

    def __init__(self, folder, seed):
        self.folder, self.random, self.count = folder, random.Random(seed), 0
        self.file = write_job(folder)
        self.coordinator = service.Coordinator(folder, "--lease-seconds", LEASE_SECONDS)
        workers = self.start_workers()
        try:
            # The second one finds the model's files in memory, as all that follow.
            for name in ("first", "alone"):
                self.coordinator.submit(self.file, name, folder / "out" / name)
                job = self.coordinator.wait_for_end(name)
                assert job["state"].endswith("SUCCEEDED"), job
        finally:
            workers.stop()
        assert job["attempt"] == 1
        self.seconds = {t["stage"].removeprefix("STAGE_").lower(): t.get("seconds", 0.0) for t in job["stageTimes"]}
        assert set(self.seconds) == set(STAGES), self.seconds
        self.expected = hashes(folder / "out/alone")
        assert hashes(folder / "out/first") == self.expected

    def start_workers(self):
        return service.Workers(self.coordinator.server, self.folder, "--collective-timeout-minutes", TIMEOUT_SECONDS / 60)

    def close(self):
        assert self.coordinator.stop() == 0, self.coordinator.log

    def hold(self, workers, stage):
        """Submits jobs until the ranks of one are stopped in the middle of the stage. Its name, folder and ranks."""
        before = STAGES[STAGES.index(stage) - 1] if stage != STAGES[0] else None
        for _ in range(20):
            self.count += 1
            name = f"{stage}-{self.count}"
            out = self.folder / "out" / name
            stages = out / ".bearing/stages"
            self.coordinator.submit(self.file, name, out)
            begun = stages / f"{before}.json" if before else out / ".bearing/job.json"
            service.wait_for(begun.exists, lambda: self.coordinator.job(name), 90, 0.001)  # noqa: B023
            # Collect's time does not include loading, which comes before it.
            time.sleep(self.random.uniform(0, 0.7) * self.seconds[stage])
            ranks = workers.ranks()
            service.stop(ranks.values())
            if sorted(ranks) == [0, 1] and not (stages / f"{stage}.json").exists():
                return name, out, ranks
            service.send(ranks.values(), signal.SIGCONT)
            assert self.coordinator.wait_for_end(name)["state"].endswith("SUCCEEDED")
        raise AssertionError(f"{stage} was over too soon, twenty times")

    def fault(self, stage, rank, how):
        """What is worth printing."""
        workers = self.start_workers()
        try:
            name, out, ranks = self.hold(workers, stage)
            group = workers.processes()
            done_before = {path.stem for path in (out / ".bearing/stages").glob("*.json")}
            service.send([ranks[rank]], how)
            start = time.monotonic()
            service.send([ranks[1 - rank]], signal.SIGCONT)
            limit = 10 if how == KILL else TIMEOUT_SECONDS + 5
            service.wait_for(lambda: not any(service.alive(p.pid) for p in group), lambda: workers.log, limit, 0.02)
            gone = time.monotonic() - start
            job = self.coordinator.wait_for_end(name)
            took = time.monotonic() - start
        finally:
            workers.stop()
        assert job["state"].endswith("SUCCEEDED") and job["attempt"] == 2, (job, workers.log)
        lost = job["lostAttempts"]
        assert len(lost) == 1 and lost[0]["attempt"] == 1, lost
        if how == KILL:
            assert (lost[0]["signal"], lost[0].get("rank")) == (KILL, rank), lost
        resumed = {t["stage"].removeprefix("STAGE_").lower() for t in job["stageTimes"] if t.get("resumed")}
        assert resumed == done_before, (resumed, done_before)
        found = hashes(out)
        assert found == self.expected, [n for n in {*found, *self.expected} if found.get(n) != self.expected.get(n)]
        check_manifest(out)
        assert service.staged_files(out) == []
        return f"group gone after {gone:.1f} s, job ended after {took:.1f} s, {len(resumed)} stages resumed"

    def cancel(self, stage):
        workers = self.start_workers()
        try:
            for _ in range(20):
                name, out, ranks = self.hold(workers, stage)
                cancelled = self.coordinator.call("cancel", name)
                # The group's next heartbeat is due now, so that it mostly comes before the end of so small a job.
                time.sleep(LEASE_SECONDS / 3)
                start = time.monotonic()
                service.send(ranks.values(), signal.SIGCONT)
                assert cancelled.code == 0, cancelled.text
                job = self.coordinator.wait_for_end(name, 10)
                took = time.monotonic() - start
                if not job["state"].endswith("SUCCEEDED"):
                    break
                # The end came before the news: then all of it is there.
                check_manifest(out)
            assert job["state"].endswith("CANCELLED"), (job, workers.log)
            # The group is there for the next job, and has left nothing half written.
            assert {p.pid for p in workers.ranks().values()} == {p.pid for p in ranks.values()}, workers.log
            assert not (out / "manifest.json").exists() and service.staged_files(out) == []
            # Submitted again it goes on where it was.
            again = f"{name}-again"
            self.coordinator.submit(self.file, again, out)
            job = self.coordinator.wait_for_end(again)
            assert job["state"].endswith("SUCCEEDED") and job["attempt"] == 1, job
            assert hashes(out) == self.expected
        finally:
            workers.stop()
        return f"cancelled after {took:.1f} s"


def check_manifest(out):
    for entry in support.read_json(out / "manifest.json")["files"]:
        assert support.sha256(out / entry["name"]) == entry["sha256"], entry["name"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("rank_faults"), seed=7)
    yield bench
    bench.close()


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Instead of the one of all tests: the coordinator stays for the next one, the group of a test does not."""
    yield
    left = support.wait_until_gone(support.SESSION + "-workers")
    service.send(left, signal.SIGKILL)
    assert not left, [p.command for p in left]


@pytest.mark.parametrize("stage, rank", [("select", 0), ("edit", 1)])
def test_a_rank_that_is_killed(bench, stage, rank):
    print(bench.fault(stage, rank, KILL))


@pytest.mark.parametrize("stage, rank", [("collect", 1), ("verify", 0)])
def test_a_rank_that_hangs(bench, stage, rank):
    print(bench.fault(stage, rank, STOP))


@pytest.mark.parametrize("stage", ["evaluate", "edit"])
def test_a_job_that_is_cancelled(bench, stage):
    print(bench.cancel(stage))


def test_an_attempt_that_is_lost_behind_its_manifest_is_not_done_again(bench):
    """The first attempt is a worker that dies; the finished run it would have left, had it died later, comes from another service."""
    out = bench.folder / "out/behind"
    bench.coordinator.submit(bench.file, "behind", out)
    dying = service.Workers(bench.coordinator.server, bench.folder, "--max-restarts", 0, name="dying",
                            variables={"BEARING_WORKER": str(FAKE_WORKER), "FAKE_WORKER": "kill"})
    assert dying.process.wait(60) == 1
    assert bench.coordinator.state("behind") == "QUEUED" and bench.coordinator.job("behind")["attempt"] == 1
    done = support.run_job(bench.file, out, 2)
    assert done.code == 0, done.text
    manifest = service.identity(out / "manifest.json")
    workers = bench.start_workers()
    try:
        job = bench.coordinator.wait_for_end("behind")
    finally:
        workers.stop()
    assert job["state"].endswith("SUCCEEDED") and job["attempt"] == 2, job
    assert all(t.get("resumed") for t in job["stageTimes"]), job
    assert service.identity(out / "manifest.json") == manifest
    assert hashes(out) == bench.expected


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", required=True)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder), arguments.seed)
        print("stages:", {name: round(seconds, 3) for name, seconds in bench.seconds.items()}, flush=True)
        cases = [(f"{stage}, rank {rank}, {how.name}", lambda s=stage, r=rank, h=how: bench.fault(s, r, h))
                 for stage in STAGES for rank in (0, 1) for how in (KILL, STOP)]
        cases += [(f"{stage}, cancelled", lambda s=stage: bench.cancel(s)) for stage in STAGES]
        for what, run in cases:
            try:
                print(f"{what}: {run()}", flush=True)
            except AssertionError as error:
                failures += 1
                print(f"{what}: FAILED: {error}", flush=True)
        bench.close()
    left = support.wait_until_gone(support.SESSION)
    print(f"{len(cases)} cases, {failures} failures, {len(left)} processes left")
    return 1 if failures or left else 0


if __name__ == "__main__":
    sys.exit(main())
