"""The network between a worker group and its coordinator is cut: two network namespaces joined by a virtual cable, whose link goes
down while a real job runs. A cut that is shorter than the lease passes unseen; a longer one fences the group, the job goes on as
the next attempt on a group that the coordinator can hear, and one manifest comes of it. Needs root and iproute2.

The test run has a lease of 5 s. With the default of 30 s and longer cuts:

    BEARING_BIN=build/bin python tests/integration/test_network_cuts.py --lease 30 --seconds 10 60 300
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

import service
import support

MODEL = support.TINY / "llama-tied"
HERE, THERE = "192.0.2.1", "192.0.2.2"  # Reserved for examples: nothing real is shadowed.
FAKE_WORKER = pathlib.Path(os.environ.get("BEARING_FAKE_WORKER", support.BIN / "cli_fake_worker"))


def ip(*arguments, check=True):
    return subprocess.run(["ip", *map(str, arguments)], check=check, capture_output=True, text=True, timeout=60)


class Cable:
    """A namespace for the coordinator and one for the workers, which is cut off and on."""

    def __init__(self):
        mark = uuid.uuid4().hex[:6]
        self.here, self.there = f"bearing-{mark}-1", f"bearing-{mark}-2"
        self.ends = (f"b{mark}1", f"b{mark}2")

    def lay(self):
        """None, or why this machine cannot."""
        for namespace in (self.here, self.there):
            if (added := ip("netns", "add", namespace, check=False)).returncode != 0:
                return f"no network namespaces here: {added.stderr.strip()}"
        if (added := ip("link", "add", self.ends[0], "netns", self.here, "type", "veth", "peer", "name", self.ends[1], "netns",
                        self.there, check=False)).returncode != 0:
            return f"no virtual network devices here: {added.stderr.strip()}"
        for namespace, end, address in ((self.here, self.ends[0], HERE), (self.there, self.ends[1], THERE)):
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                ip("-n", namespace, "link", "set", device, "up")
        return None

    def set(self, state):
        ip("-n", self.here, "link", "set", self.ends[0], state)

    def remove(self):
        for namespace in (self.here, self.there):
            for pid in ip("netns", "pids", namespace, check=False).stdout.split():
                try:
                    os.kill(int(pid), 9)
                except ProcessLookupError:
                    pass
            ip("netns", "delete", namespace, check=False)


def inside(namespace):
    return ("ip", "netns", "exec", namespace)


class Coordinator(service.Coordinator):
    """Called from inside its namespace."""

    def call(self, *arguments, timeout=60):
        started = time.monotonic()
        done = subprocess.run([*self.prefix, support.BIN / "bearing", *map(str, arguments), "--server", self.server],
                              env=support.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        return support.Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


class Bench:
    def __init__(self, folder, cable, lease, work):
        """`work` = prompts a side that get completions as long as the model allows, which is what the job's time goes by."""
        self.folder, self.cable, self.lease = folder, cable, lease
        prompts = support.write_prompts(folder / "prompts", counts=(12, 6, work))
        self.file = support.write_job(folder / "job.json", MODEL, prompts, ranks=1, evaluate={"max_new_tokens": 4000})
        self.coordinator = Coordinator(folder, "--lease-seconds", lease, "--insecure-allow-plaintext", "--audit-log",
                                       folder / "audit.jsonl", prefix=inside(cable.here), host=HERE)

    def workers(self, namespace, name):
        return service.Workers(self.coordinator.server, self.folder, ranks=1, prefix=inside(namespace), mark=f"-workers-{name}",
                               name=name)

    def begin(self, name):
        """The job's folder once it is in its long stage."""
        out = self.folder / "out" / name
        self.coordinator.submit(self.file, name, out)
        service.wait_for((out / ".bearing/stages/select.json").exists, lambda: self.coordinator.job(name), 120)
        return out

    def check(self, name, out, attempts, seconds=300):
        job = self.coordinator.wait_for_end(name, seconds)
        assert job["state"].endswith("SUCCEEDED") and job["attempt"] == attempts, job
        for entry in support.read_json(out / "manifest.json")["files"]:
            assert support.sha256(out / entry["name"]) == entry["sha256"], entry["name"]
        assert service.staged_files(out) == []
        return job

    def short_cut(self, seconds):
        far = self.workers(self.cable.there, f"far-{seconds}")
        try:
            name = f"cut-{seconds}".replace(".", "-")
            out = self.begin(name)
            self.cable.set("down")
            time.sleep(seconds)
            assert not (out / "manifest.json").exists(), "the job was over before the cut: give it more --work"
            self.cable.set("up")
            job = self.check(name, out, attempts=1)
            assert not job.get("lostAttempts"), job
        finally:
            self.cable.set("up")
            far.stop()
        return f"cut of {seconds} s: unseen, attempt 1"

    def long_cut(self, seconds):
        far = self.workers(self.cable.there, f"far-{seconds}")
        near = None
        try:
            name = f"cut-{seconds}".replace(".", "-")
            out = self.begin(name)
            rank = far.ranks()[0]
            self.cable.set("down")
            start = time.monotonic()
            near = self.workers(self.cable.here, f"near-{seconds}")
            service.wait_for(lambda: self.coordinator.job(name)["attempt"] == 2, lambda: self.coordinator.job(name), self.lease + 15)
            again = time.monotonic() - start
            # Cut off it knows by itself that its time is over, and does not go on writing beside the next attempt.
            service.wait_for(lambda: "the lease is lost" in far.log, lambda: far.log, self.lease + 5)
            fenced = time.monotonic() - start
            assert "succeeded" not in far.log
            time.sleep(max(0.0, seconds - (time.monotonic() - start)))
            self.cable.set("up")
            job = self.check(name, out, attempts=2)
            manifest = service.identity(out / "manifest.json")
            lost = job["lostAttempts"]
            assert len(lost) == 1 and lost[0]["attempt"] == 1 and "no heartbeat" in lost[0]["message"], lost
            # The group that was cut off works again, in the same process unless it had waited for too long.
            near.stop()
            other = f"{name}-after"
            output = self.folder / "out" / other
            self.coordinator.submit(self.file, other, output, "--set", "evaluate.max_new_tokens=4")
            job = self.check(other, output, attempts=1)
            if seconds < 240:
                assert service.alive(rank.pid), far.log
            assert service.identity(out / "manifest.json") == manifest
            assert self.coordinator.log.count(f"job={name} state=JOB_STATE_SUCCEEDED") == 1
        finally:
            self.cable.set("up")
            if near is not None:
                near.stop()
            far.stop()
        return f"cut of {seconds} s: next attempt after {again:.1f} s, the old one fenced itself after {fenced:.1f} s, one manifest"

    def late_report(self):
        """A group that does not fence itself, as an old or wrong one would: what it says behind the cut is refused."""
        go = self.folder / "go"
        name, out = "late", self.folder / "out/late"
        launcher = service.Workers(self.coordinator.server, self.folder, ranks=1, prefix=inside(self.cable.there),
                                   mark="-workers-late", name="late",
                                   variables={"BEARING_WORKER": str(FAKE_WORKER), "FAKE_WORKER": "late", "FAKE_GO": str(go)})
        near = None
        try:
            self.coordinator.submit(self.file, name, out, "--set", "evaluate.max_new_tokens=4")
            service.wait_for(lambda: self.coordinator.job(name).get("attempt") == 1, lambda: self.coordinator.job(name), 30)
            self.cable.set("down")
            near = self.workers(self.cable.here, "near-late")
            job = self.check(name, out, attempts=2)
            self.cable.set("up")
            go.touch()
            service.wait_for(lambda: "fake worker: complete" in launcher.log, lambda: launcher.log, 60)
            assert "the lease is no longer this group's" in launcher.log
            assert '"job":"late","method":"Complete","peer":' in (self.folder / "audit.jsonl").read_text()
            assert self.coordinator.job(name) == job, "a late report changed the job"
        finally:
            self.cable.set("up")
            if near is not None:
                near.stop()
            launcher.stop()
        return "late report: refused, nothing changed"


def make_cable():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        return None, "network namespaces need root"
    if shutil.which("ip") is None:
        return None, "iproute2 is not installed"
    cable = Cable()
    if why := cable.lay():
        cable.remove()
        return None, why
    return cable, ""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    cable, why = make_cable()
    if cable is None:
        pytest.skip(f"network cuts: {why}")
    try:
        bench = Bench(tmp_path_factory.mktemp("network_cuts"), cable, lease=5, work=40)
        yield bench
        assert bench.coordinator.stop() == 0
    finally:
        cable.remove()


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Instead of the one of all tests: the coordinator stays for the next one."""
    yield
    left = support.wait_until_gone(support.SESSION + "-workers")
    service.send(left, 9)
    assert not left, [p.command for p in left]


def test_a_short_cut_is_not_seen(bench):
    print(bench.short_cut(2))


def test_a_long_cut_fences_the_old_attempt(bench):
    print(bench.long_cut(10))


def test_a_late_report_is_refused(bench):
    print(bench.late_report())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", required=True)
    parser.add_argument("--lease", type=int, default=30)
    parser.add_argument("--work", type=int, default=1000, help="test prompts of each side")
    arguments = parser.parse_args()
    cable, why = make_cable()
    if cable is None:
        sys.exit(why)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(pathlib.Path(folder), cable, arguments.lease, arguments.work)
            for seconds in arguments.seconds:
                run = bench.short_cut if seconds < arguments.lease else bench.long_cut
                print(run(seconds), flush=True)
            print(bench.late_report(), flush=True)
            assert bench.coordinator.stop() == 0
    finally:
        cable.remove()


if __name__ == "__main__":
    main()
