"""Random jobs and random faults: clients that create, cancel, delete, list and look at jobs, while coordinator, workers and their
launchers are killed, stopped and restarted. Every answer is compared with a model of the state machine (job_model.py). At the end
all is quiet: every acknowledged job has ended once, its log tells a legal life, the store is intact, and neither a process nor a
descriptor nor a thread is left over.

Two groups play their part (tests/cli/fake_worker.cc); jobs of two ranks run on real workers and a tiny model. 30 seconds in the
test run; `scripts/reliability --random MINUTES [--seed N]` by hand.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid

import pytest

import job_model
import service
import support

MODEL = support.TINY / "llama-tied"
FAKE_WORKER = pathlib.Path(os.environ.get("BEARING_FAKE_WORKER", support.BIN / "cli_fake_worker"))
MOST_ATTEMPTS, LEASE_SECONDS = 3, 3
OK, FAILED, INVALID, NOT_FOUND, UNAVAILABLE, CONFLICT = 0, 1, 2, 3, 5, 6
# What clients keep in the store: more makes lists long, and nothing else.
MOST_JOBS = 60
CLIENTS = 3


class Run:
    def __init__(self, folder, seed, real=True):
        self.folder, self.seed, self.real = folder, seed, real
        self.jobs = job_model.Jobs(MOST_ATTEMPTS)
        self.counts, self.errors = collections.Counter(), []
        self.stopping, self.count_lock, self.created = threading.Event(), threading.Lock(), 0
        prompts = support.write_prompts(folder / "prompts", counts=(6, 4, 2))
        self.files = {ranks: support.write_job(folder / f"job{ranks}.json", MODEL, prompts, ranks=ranks, edit={"skip": True},
                                               evaluate={"max_new_tokens": 2}) for ranks in (1, 2)}
        self.coordinator = service.Coordinator(folder, "--lease-seconds", LEASE_SECONDS, "--max-attempts", MOST_ATTEMPTS,
                                               "--audit-log", folder / "audit.jsonl")
        self.groups, self.starts = {}, 0
        self.real_jobs = []
        self.creating = set()  # Asked for again soon: must not be deleted in between.

    # Clients.

    def call(self, *arguments):
        """Until the coordinator is there; a call may have had its effect all the same."""
        while True:
            done = self.coordinator.call(*arguments)
            with self.count_lock:
                self.counts[f"{arguments[0]} {done.code}"] += 1
            if done.code != UNAVAILABLE or self.stopping.is_set():
                return done
            time.sleep(0.1)

    def create(self, draw):
        with self.count_lock:
            self.created += 1
            name = f"job-{self.created}"
            self.creating.add(name)
            # Few of the real ones wait at a time: they take seconds each.
            waiting = {n for n in self.real_jobs if not ((seen := self.jobs.seen.get(n)) and seen.ended)}
            ranks = 2 if self.real and len(waiting) < 2 and draw.random() < 0.3 else 1
            if ranks == 2:
                self.real_jobs.append(name)
        arguments = ("submit", "-f", self.files[ranks], "--set", f"output={self.folder}/out/{name}", "--job-id", name,
                     "--request-id", str(uuid.UUID(int=draw.getrandbits(128), version=4)), "--priority", str(draw.randint(-3, 3)),
                     "-o", "json")
        now = self.jobs.now()
        done = self.call(*arguments)
        # The same request once more, from another client.
        for _ in range(draw.choice((0, 0, 1, 2))):
            again = self.call(*arguments)
            if again.code == OK and done.code == OK:
                job_model.require(json.loads(again.out)["name"] == json.loads(done.out)["name"], again.text)
            done = again if done.code != OK else done
        if done.code == OK:
            self.jobs.saw(json.loads(done.out), now)
        else:
            job_model.require(done.code == UNAVAILABLE, done.text)
        with self.count_lock:
            self.creating.discard(name)

    def names(self):
        with self.count_lock:
            creating = set(self.creating)
        return [name for name in self.jobs.names() if name not in creating]

    def cancel(self, draw):
        name = draw.choice(self.names() or ["none"])
        now = self.jobs.now()
        done = self.call("cancel", name, "-o", "json")
        if done.code == OK:
            self.jobs.cancel_acknowledged(json.loads(done.out), now)
        elif done.code == NOT_FOUND:
            self.jobs.missed(name, now)
        elif done.code == CONFLICT:
            self.look_at(name, ended=True)
        else:
            job_model.require(done.code == UNAVAILABLE, done.text)

    def delete(self, draw):
        names = self.names()
        if not names:
            return
        ended = [name for name in names if (seen := self.jobs.now()[0].get(name)) is not None and seen.ended]
        name = draw.choice(ended if ended and draw.random() < 0.8 else names)
        before = self.jobs.now()
        if not self.jobs.delete_asked(name):
            return  # Somebody else has.
        done = self.call("delete", name)
        if done.code == OK:
            self.jobs.delete_acknowledged(name)
        elif done.code == NOT_FOUND:
            self.jobs.delete_acknowledged(name)  # By a call whose answer was lost.
        elif done.code == CONFLICT:
            job_model.require(not before[0][name].ended, "an ended job cannot be deleted", done.text)
            self.jobs.delete_refused(name)
        else:
            job_model.require(done.code == UNAVAILABLE, done.text)

    def look_at(self, name, ended=False):
        now = self.jobs.now()
        done = self.call("describe", name, "-o", "json")
        if done.code == OK:
            seen = self.jobs.saw(json.loads(done.out), now)
            job_model.require(seen.ended or not ended, "was called ended", name, seen)
        elif done.code == NOT_FOUND:
            self.jobs.missed(name, now)
        else:
            job_model.require(done.code == UNAVAILABLE, done.text)

    def look(self, draw):
        self.look_at(draw.choice(self.jobs.names() or ["none"]))

    def list(self, draw):
        now = self.jobs.now()
        done = self.call("list", "-o", "json")
        if done.code == OK:
            self.jobs.saw_list(json.loads(done.out)["jobs"], now)
        else:
            job_model.require(done.code == UNAVAILABLE, done.text)

    def client(self, number):
        draw = random.Random(f"{self.seed} client {number}")
        while not self.stopping.is_set():
            living = len(self.jobs.names())
            action = draw.choices((self.create, self.cancel, self.delete, self.look, self.list),
                                  (5 if living < MOST_JOBS else 0, 1, 2 if living > 10 else 0.3, 3, 2))[0]
            action(draw)
            time.sleep(draw.uniform(0, 0.1))

    # Faults.

    def start_group(self, name):
        """`name` is fake-N or real."""
        ranks = 1 if name.startswith("fake") else 2
        variables = {"BEARING_WORKER": str(FAKE_WORKER), "FAKE_WORKER": "mixed", "FAKE_SEED": str(self.seed)} if ranks == 1 else {}
        self.starts += 1
        options = () if ranks == 1 else ("--collective-timeout-minutes", "0.1")
        self.groups[name] = service.Workers(self.coordinator.server, self.folder, *options, ranks=ranks,
                                            mark=f"-workers-{name}-{self.starts}", name=name, variables=variables)

    def hit_group(self, draw):
        name = draw.choice(sorted(self.groups))
        group = self.groups[name]
        how = draw.choices(("kill one", "stop one", "kill the launcher", "end the launcher"), (5, 3, 1, 1))[0]
        self.counts[how] += 1
        if how.endswith("launcher"):
            group.process.send_signal(signal.SIGKILL if how.startswith("kill") else signal.SIGTERM)
            group.process.wait(30)
            left = support.wait_until_gone(support.SESSION + group.mark, 15)
            job_model.require(not left, "outlived its launcher", [p.command for p in left])
            self.start_group(name)
            return
        living = [p for p in support.processes(support.SESSION + group.mark)
                  if p.program in ("orterun", "mpirun", "bearing-worker", FAKE_WORKER.name)]
        if not living:
            return
        victim = draw.choice(living)
        if how == "kill one":
            victim.kill()
            return
        service.send([victim], signal.SIGSTOP)
        time.sleep(draw.uniform(0.2, 2 * LEASE_SECONDS))
        service.send([victim], signal.SIGCONT)

    def hit_coordinator(self, draw):
        how = draw.choices(("kill the coordinator", "restart the coordinator", "stop the coordinator"), (3, 1, 2))[0]
        self.counts[how] += 1
        if how == "stop the coordinator":
            self.coordinator.process.send_signal(signal.SIGSTOP)
            time.sleep(draw.uniform(0.1, LEASE_SECONDS + 1))
            self.coordinator.process.send_signal(signal.SIGCONT)
            return
        if how == "kill the coordinator":
            self.coordinator.kill()
        else:
            job_model.require(self.coordinator.stop() == 0, "did not end as asked")
        time.sleep(draw.uniform(0, 0.5))
        self.coordinator.start()

    def faults(self, what, number):
        draw = random.Random(f"{self.seed} faults {number}")
        while not self.stopping.wait(draw.uniform(0.5, 4)):
            what(draw)

    # All of it.

    def guarded(self, body, *arguments):
        try:
            body(*arguments)
        except Exception:  # noqa: BLE001: whatever it is, the run has failed.
            self.errors.append(traceback.format_exc())
            self.stopping.set()

    def at_rest(self):
        """Descriptors and threads of the coordinator without clients and groups."""
        for group in self.groups.values():
            group.stop()
        self.groups.clear()
        pid, least = self.coordinator.process.pid, None
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:  # Connections take a moment to go.
            found = (len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))
            least = found if least is None else tuple(map(min, least, found))
            time.sleep(0.2)
        return least

    def play(self, seconds, bodies):
        self.stopping.clear()
        threads = [threading.Thread(target=self.guarded, args=body) for body in bodies]
        for thread in threads:
            thread.start()
        self.stopping.wait(seconds)
        self.stopping.set()
        for thread in threads:
            thread.join()
        if self.errors:
            raise AssertionError("\n".join(self.errors))

    def start_groups(self):
        for name in ("fake-1", "fake-2", *(["real"] if self.real else [])):
            self.start_group(name)

    def all(self, seconds):
        first = [(self.client, number) for number in range(CLIENTS)]
        later = [(self.client, number) for number in range(CLIENTS, 2 * CLIENTS)]
        self.start_groups()
        # With a coordinator that dies, and then with one that lives, whose descriptors and threads are counted.
        self.play(seconds * 2 / 3, [*first, (self.faults, self.hit_group, 1), (self.faults, self.hit_coordinator, 2)])
        self.at_rest()
        job_model.require(self.coordinator.stop() == 0, "did not end as asked")
        self.coordinator.start()
        self.coordinator.call("list")
        before = self.at_rest()
        self.start_groups()
        self.play(seconds / 3, [*later, (self.faults, self.hit_group, 3)])
        self.finish()
        after = self.at_rest()
        # gRPC keeps a thread or two more once it has had work.
        assert after[0] <= before[0] + 2 and after[1] <= before[1] + 4, (before, after)
        left = support.wait_until_gone(support.SESSION + "-workers")
        assert not left, [p.command for p in left]
        assert self.coordinator.stop() == 0, self.coordinator.log
        self.check_store()
        return before, after

    def finish(self):
        """Nobody disturbs any more: all jobs end, and what they left is as they say."""
        for group in self.groups.values():
            group.stop()
        self.start_groups()
        deadline = time.monotonic() + 300
        while True:
            now = self.jobs.now()
            listed = json.loads(self.coordinator.call("list", "-o", "json").out)["jobs"]
            self.jobs.saw_list(listed, now)
            if all(job_model.Seen.of(job).ended for job in listed):
                break
            assert time.monotonic() < deadline, [(job["name"], job["state"]) for job in listed if not job_model.Seen.of(job).ended]
            time.sleep(0.5)
        for job in listed:
            name, seen = job["name"], job_model.Seen.of(job)
            logs = self.coordinator.call("logs", name, "--rank", "-1", "-o", "json")
            assert logs.code == OK, logs.text
            lines = [json.loads(line) for line in logs.out.splitlines()]
            assert job_model.check_history(name, lines, MOST_ATTEMPTS) == seen.state, (name, seen, lines)
            out = self.folder / "out" / name
            if seen.state == "SUCCEEDED":
                for entry in support.read_json(out / "manifest.json")["files"]:
                    assert support.sha256(out / entry["name"]) == entry["sha256"], (name, entry["name"])
            self.counts[f"job {seen.state}, attempt {seen.attempt}"] += 1
        ends = collections.Counter(line.split(" state=")[0].split("job=")[1] for line in self.coordinator.log.splitlines()
                                   if "state=JOB_STATE_SUCCEEDED" in line)
        assert all(count == 1 for count in ends.values()), ends
        self.counts["results"] = len(ends)

    def check_store(self):
        store = sqlite3.connect(self.folder / "jobs.db")
        try:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            stored = store.execute("SELECT count(*) FROM jobs").fetchone()[0]
        finally:
            store.close()
        seen, deleting, _ = self.jobs.now()
        assert len(set(seen) - deleting) <= stored <= len(seen), (len(seen), len(deleting), stored)


def play(folder, seconds, seed, real=True):
    run = Run(folder, seed, real)
    try:
        before, after = run.all(seconds)
    except BaseException:
        print(run.coordinator.log[-4000:], file=sys.stderr)
        run.coordinator.process.send_signal(signal.SIGCONT)
        for group in run.groups.values():
            group.process.send_signal(signal.SIGTERM)
        run.coordinator.process.kill()
        raise
    text = ", ".join(f"{what}: {count}" for what, count in sorted(run.counts.items()))
    return f"seed {seed}: {run.created} jobs; {text}; descriptors and threads at rest {before} before, {after} after"


def test_random_jobs_and_faults(tmp_path):
    print(play(tmp_path, 30, seed=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(play(pathlib.Path(folder), arguments.minutes * 60, arguments.seed))
    left = support.wait_until_gone(support.SESSION)
    assert not left, [p.command for p in left]


if __name__ == "__main__":
    main()
