"""A coordinator without TLS and worker groups, as child processes of a test, and what the tests of faults ask of them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import support


def identity(file):
    """Of a file that nobody has written since, though it may have been read."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def wait_for(found, what, seconds=60.0, every=0.02):
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(every)
    return answer


def state_in(stat):
    """The letter in a /proc/.../stat, "PID (NAME) STATE ..." with any characters in the name; X of what is gone."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def alive(pid):
    return state_in(Path(f"/proc/{pid}/stat")) not in "ZX"


class Coordinator:
    """`options` are further flags. Keeps its store and its port over restarts."""

    def __init__(self, folder, *options, mark="-coordinator", prefix=(), host="127.0.0.1"):
        self.folder, self.options, self.mark, self.prefix, self.host = folder, options, mark, prefix, host
        self.port, self.process = 0, None
        self.start()

    def start(self):
        ports = self.folder / "port"
        ports.unlink(missing_ok=True)
        with open(self.folder / "coordinator.log", "ab") as log:
            self.process = subprocess.Popen(
                [*map(str, self.prefix), support.BIN / "bearing-coordinator", "--listen", f"{self.host}:{self.port}", "--store",
                 self.folder / "jobs.db", "--port-file", ports, *map(str, self.options)],
                env=support.environment(self.mark), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: ports.exists() or self.process.poll() is not None, "the coordinator serves", 30, 0.005)
        assert self.process.poll() is None, self.log
        self.port = int(ports.read_text().split()[0])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """As an operator does. The exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    @property
    def server(self):
        return f"{self.host}:{self.port}"

    @property
    def log(self):
        return (self.folder / "coordinator.log").read_text(encoding="utf-8", errors="replace")

    def call(self, *arguments, timeout=60):
        return support.bearing(*arguments, "--server", self.server, timeout=timeout)

    def job(self, name):
        described = self.call("describe", name, "-o", "json")
        assert described.code == 0, described.text
        return json.loads(described.out)

    def state(self, name):
        return self.job(name)["state"].removeprefix("JOB_STATE_")

    def submit(self, file, name, output, *arguments):
        done = self.call("submit", "-f", file, "--set", f"output={output}", "--job-id", name, *arguments)
        assert done.code == 0, done.text

    def wait_for_end(self, name, seconds=120):
        """The job once it has ended."""
        def ended():
            job = self.job(name)
            return job if job["state"].removeprefix("JOB_STATE_") in ("SUCCEEDED", "FAILED", "CANCELLED") else None

        return wait_for(ended, lambda: self.job(name), seconds, 0.1)


class Workers:
    """`bearing workers`. `variables` are added to its environment."""

    def __init__(self, server, folder, *options, ranks=2, mark="-workers", prefix=(), name="group", variables=None):
        self.mark, self.log_path = mark, folder / f"{name}.log"
        with open(folder / f"{name}-launcher.log", "ab") as log:
            self.process = subprocess.Popen(
                [*map(str, prefix), support.BIN / "bearing", "workers", "--server", server, "--ranks", str(ranks), "--threads", "1",
                 "--log", self.log_path, *map(str, options)],
                env={**support.environment(mark), **(variables or {})}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def processes(self):
        """mpirun and the ranks that live now."""
        return [p for p in support.processes(support.SESSION + self.mark) if p.program in ("orterun", "mpirun", "bearing-worker")]

    def ranks(self):
        return {p.rank: p for p in self.processes() if p.program == "bearing-worker"}

    @property
    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def send(processes, number):
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            pass


def stop(processes):
    """Stops them, and returns when they stand: a thread that writes a file goes on until the kernel has written it."""
    send(processes, signal.SIGSTOP)
    deadline = time.monotonic() + 30
    for process in processes:
        for task in Path(f"/proc/{process.pid}/task").glob("*/stat"):
            while (state := state_in(task)) not in "TZX":
                assert time.monotonic() < deadline, f"{task} does not stop: {state}"
                time.sleep(0.001)


def staged_files(folder):
    """What only somebody who is still writing may have."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if ".partial" in path.name or path.name.startswith(".tmp") or ".tmp-" in path.name)
