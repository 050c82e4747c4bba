"""Killed in the middle, a job leaves nothing that looks finished, and running it again finishes it from the last finished stage."""

import contextlib
import os
import signal
import subprocess
import time
import uuid

import pytest

import support

import compare

MODEL = support.TINY / "llama-tied"


class Running:
    """`bearing run`, with its processes findable by a mark of its own."""

    def __init__(self, job, out, err):
        self.mark, self.out, self.err = "-" + uuid.uuid4().hex, out, err
        with open(err, "w", encoding="utf-8") as sink:
            self.process = subprocess.Popen([support.BIN / "bearing", "run", job, "--out", out, "--ranks", "2", "--threads", "1"],
                                            env=support.environment(self.mark), stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=sink)

    def processes(self, *programs):
        return [p for p in support.processes(support.SESSION + self.mark) if p.program in programs]

    def wait_for(self, stage, seconds=120):
        deadline = time.monotonic() + seconds
        while not (self.out / f".bearing/stages/{stage}.json").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, f"{stage} was not reached: {self.text}"
            time.sleep(0.002)

    @contextlib.contextmanager
    def at_select(self):
        """Stops the ranks as soon as collect is finished, so that they are in select whatever the speed of the machine."""
        self.wait_for("collect")
        ranks = self.processes("bearing-worker")
        for rank in ranks:
            os.kill(rank.pid, signal.SIGSTOP)
        assert sorted(rank.rank for rank in ranks) == [0, 1]
        assert not (self.out / ".bearing/stages/select.json").exists(), "select was over too soon for this test"
        try:
            yield {rank.rank: rank for rank in ranks}
        finally:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank.pid, signal.SIGCONT)

    @property
    def text(self):
        return self.err.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    # Much to select with: stopped ranks of a dying mpirun run on for a second before it kills them, and must not finish in it.
    prompts = support.write_prompts(folder / "prompts", counts=(8, 300, 2), words=(4, 8))
    return support.write_job(folder / "job.json", MODEL, prompts)


@pytest.fixture(scope="module")
def uninterrupted(job, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    done = support.run_job(job, out, 2)
    assert done.code == 0 and "resumed" not in done.err, done.text
    return out


def report_numbers(out):
    """All that report.json says but when it was made and how long it took."""
    report = support.read_json(out / "report.json")
    assert report.pop("created") and report.pop("stage_seconds")
    return report


def looks_unfinished(out):
    return not (out / "manifest.json").exists() and not (out / "checkpoint").exists() and not (out / "report.html").exists()


def finish(job, running, uninterrupted):
    """Runs the job again and checks that only what was missing is done."""
    collected = support.sha256(running.out / "means.safetensors")
    done = support.run_job(job, running.out, 2)
    assert done.code == 0, done.text
    lines = support.stage_lines(done.err)
    assert "(resumed)" in lines["collect"], done.err
    assert "(resumed)" not in lines["select"], done.err
    assert support.sha256(running.out / "means.safetensors") == collected
    tables = [support.read_json(out / "candidates.json") for out in (running.out, uninterrupted)]
    found = compare.compare_candidates(*tables)
    assert compare.worst(found)["error"] <= 1e-4 and tables[0]["selected"] == tables[1]["selected"], compare.worst(found)
    # The same machine and ranks compute the same bits.
    assert report_numbers(running.out) == report_numbers(uninterrupted)
    for entry in support.read_json(running.out / "manifest.json")["files"]:
        assert support.sha256(running.out / entry["name"]) == entry["sha256"]


@pytest.mark.parametrize("victims", [["rank 1"], ["rank 0"], ["rank 0", "rank 1", "mpirun"]], ids=" and ".join)
def test_killed_workers(job, uninterrupted, tmp_path, victims):
    running = Running(job, tmp_path / "out", tmp_path / "err.txt")
    with running.at_select() as ranks:
        for process in [*running.processes("orterun", "mpirun"), *ranks.values()]:
            name = "mpirun" if process.rank is None else f"rank {process.rank}"
            if name in victims:
                process.kill()
    assert running.process.wait(60) == 1, running.text
    last = running.text.splitlines()
    assert any("worker group ended" in line for line in last), running.text
    assert "again resumes" in last[-1], running.text
    assert support.wait_until_gone(support.SESSION + running.mark) == []
    assert looks_unfinished(running.out)
    finish(job, running, uninterrupted)


def test_killed_with_everything_it_started(job, uninterrupted, tmp_path):
    """The command itself is killed, so that it cannot stop anything: the others notice."""
    running = Running(job, tmp_path / "out", tmp_path / "err.txt")
    with running.at_select():
        running.process.kill()
        running.process.wait()
        # Still stopped: free to go on, ranks may finish so small a job before the news reaches them.
        assert support.wait_until_gone(support.SESSION + running.mark, 30) == []
    assert looks_unfinished(running.out)
    finish(job, running, uninterrupted)


def test_interrupted_by_the_user(job, uninterrupted, tmp_path):
    running = Running(job, tmp_path / "out", tmp_path / "err.txt")
    with running.at_select():
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 130, running.text
    assert "again resumes" in running.text, running.text
    assert support.wait_until_gone(support.SESSION + running.mark) == []
    assert looks_unfinished(running.out)
    finish(job, running, uninterrupted)
