"""A coordinator with TLS and tokens, and real workers that `bearing workers` looks after: jobs one after the other."""

import contextlib
import json
import shutil
import signal
import subprocess
import time

import pytest

import support

MODEL = support.TINY / "llama-tied"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Service:
    """One coordinator and one group of two ranks."""

    def __init__(self, folder):
        self.folder = folder
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 1, "-subj", "/CN=localhost",
                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
        for name, scope in (("alice", "submit"), ("pool", "worker")):
            made = support.bearing("token", "create", "--name", name, "--scope", scope, "--out", folder / name, "--append",
                                   folder / "tokens")
            assert made.code == 0, made.text
        self.started = []
        self.start("coordinator", support.BIN / "bearing-coordinator", "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0",
                   "--store", folder / "jobs.db", "--port-file", folder / "port", "--tls-cert", folder / "cert.pem", "--tls-key",
                   folder / "key.pem", "--token-file", folder / "tokens", "--allow-read", support.ROOT, "--allow-write", folder)
        deadline = time.monotonic() + 30
        while not (folder / "port").exists():
            assert time.monotonic() < deadline, (folder / "coordinator.log").read_text()
            time.sleep(0.02)
        ports = dict(("client", line) if " " not in line else line.split() for line in (folder / "port").read_text().splitlines())
        self.server = "127.0.0.1:" + ports["client"]
        self.start("workers", support.BIN / "bearing", "workers", "--server", "127.0.0.1:" + ports["worker"], "--ranks", 2, "--threads", 1,
                   "--ca-file", folder / "cert.pem", "--token-file", folder / "pool", "--log", folder / "group.log")

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "w", encoding="utf-8") as sink:
            self.started.append(subprocess.Popen([*map(str, command)], env=support.environment("-service"), stdin=subprocess.DEVNULL,
                                                 stdout=sink, stderr=sink))

    def call(self, *arguments):
        return support.bearing(*arguments, "--server", self.server, "--ca-file", self.folder / "cert.pem", "--token-file",
                               self.folder / "alice")

    def stop(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.stop()
    assert not support.wait_until_gone(support.SESSION + "-service")


def test_a_group_keeps_its_model_between_jobs(service, tmp_path):
    prompts = support.write_prompts(tmp_path / "prompts")
    outs = []
    # The first one also loads the model that it has edited, to verify it.
    # The second one has another name of the concept: else it took the first one's results.
    for name, changes in (("first", {"edit": {"skip": False}}), ("second", {"concept": {"name": "other"}}),
                          ("other", {"model": {"dtype": "bfloat16"}})):
        job = support.write_job(tmp_path / f"{name}.json", MODEL, prompts, name=name, ranks=2, **{"edit": {"skip": True}, **changes})
        outs.append(tmp_path / "out" / name)
        done = service.call("submit", "-f", job, "--set", f"output={outs[-1]}", "--job-id", name, "--watch")
        assert done.code == 0, done.text + (tmp_path / "group.log").read_text()
    logs = {name: service.call("logs", name).out for name in ("first", "second", "other")}
    assert "the model is still loaded" in logs["second"], logs["second"]
    assert "stage load" not in logs["second"]
    assert "the model is still loaded" not in logs["first"] + logs["other"]
    assert "stage collect took" in logs["first"]

    # The same numbers with the kept model, and as a run of its own has them.
    alone = support.run_job(tmp_path / "first.json", tmp_path / "alone", 2)
    assert alone.code == 0, alone.text
    for file in ("means.safetensors", "candidates.json", "completions.jsonl"):
        digests = {support.sha256(folder / file) for folder in (outs[0], outs[1], tmp_path / "alone")}
        assert len(digests) == 1, file
    found, expected = (support.read_json(folder / "verify.json")["logits"] for folder in (outs[0], tmp_path / "alone"))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    listed = json.loads(service.call("artifacts", "first", "-o", "json").out)
    assert [a["name"] for a in listed["artifacts"]] == support.files_below(outs[0])
    assert all(a["sha256"] == support.sha256(outs[0] / a["name"]) for a in listed["artifacts"])


SHARED = "the same as in an earlier job"


def test_jobs_share_stages_that_read_the_same(service, tmp_path):
    prompts = support.write_prompts(tmp_path / "prompts")
    shutil.copytree(tmp_path / "prompts", tmp_path / "copied")  # What counts is what stands in the files.
    judges = {"judges": [{"name": "vowels", "markers": ["a", "e"]}]}
    jobs = {"first": {}, "judged": judges, "stricter": {"select": {"kl_max": 50.0}}, "smaller": {"collect": {"max_batch": 1}}}

    def run(name, changes):
        job = support.write_job(tmp_path / f"{name}.json", MODEL, tmp_path / "copied" if name == "judged" else prompts, name=name,
                                ranks=2, **{"edit": {"skip": True}, **changes})
        done = service.call("submit", "-f", job, "--set", f"output={tmp_path / 'out' / name}", "--job-id", name, "--watch")
        assert done.code == 0, done.text + (tmp_path / "group.log").read_text()
        log = service.call("logs", name).out
        return {stage for stage in ("collect", "select", "evaluate", "judge", "report") if f"stage {stage}: {SHARED}" in log}

    streamed = {"model": {"residency": "streamed"}}  # Is loaded anew for each job.
    jobs |= {"streamed": streamed, "streamed-judged": streamed | judges}
    everything = {"collect", "select", "evaluate"}
    assert [run(name, changes) for name, changes in jobs.items()] == [set(), everything, {"collect"}, set(), set(), everything]
    # The bytes that a run of its own writes.
    for name in ("judged", "stricter"):
        alone = support.run_job(tmp_path / f"{name}.json", tmp_path / "alone" / name, 2)
        assert alone.code == 0, alone.text
        for file in support.files_below(tmp_path / "alone" / name):
            if file.rpartition(".")[0] in ("collect", "means", "geometry", "candidates", "direction", "completions", "evaluation"):
                assert support.sha256(tmp_path / "out" / name / file) == support.sha256(tmp_path / "alone" / name / file), (name, file)

    # What was changed or removed since is not taken.
    with open(tmp_path / "out/first/means.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    (tmp_path / "out/first/.bearing/evaluate/completions-0.jsonl").unlink()
    assert run("late", {}) == {"select"}
    assert not list((tmp_path / "out/late").glob(".*tmp*"))
    for file, job in (("means.safetensors", "judged"), ("candidates.json", "first"), ("completions.jsonl", "first")):
        assert support.sha256(tmp_path / "out/late" / file) == support.sha256(tmp_path / "out" / job / file), file


def test_a_rank_that_is_killed_costs_an_attempt_and_not_the_job(service, tmp_path):
    prompts = support.write_prompts(tmp_path / "prompts", counts=(40, 20, 10))
    job = support.write_job(tmp_path / "job.json", MODEL, prompts, ranks=2, edit={"skip": True}, output=str(tmp_path / "out/job"))
    assert service.call("submit", "-f", job, "--job-id", "hurt").code == 0
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/job/.bearing/stages/collect.json").exists():
        assert time.monotonic() < deadline, service.call("describe", "hurt").text
        time.sleep(0.005)
    victims = [p for p in support.processes(support.SESSION + "-service") if p.program == "bearing-worker" and p.rank == 1]
    assert len(victims) == 1
    victims[0].kill()
    started = time.monotonic()
    while (state := json.loads(service.call("describe", "hurt", "-o", "json").out))["attempt"] < 2:
        # Well before the lease of 30 s is over: the launcher tells.
        assert time.monotonic() - started < 15, state
        time.sleep(0.1)
    watched = service.call("watch", "hurt")
    assert watched.code == 0, watched.text + (tmp_path / "group.log").read_text()
    job = json.loads(service.call("describe", "hurt", "-o", "json").out)
    lost = job["lostAttempts"]
    assert [(a["attempt"], a.get("rank"), a["signal"]) for a in lost] == [(1, 1, signal.SIGKILL)], lost
    assert job["attempt"] == 2 and any(t["resumed"] for t in job["stageTimes"]), job
    # What the model did in the stages that were run by this attempt.
    select = next(t for t in job["stageTimes"] if t["stage"] == "STAGE_SELECT")
    assert select["tokens"] > 0 and select["flops"] > 2 * select["tokens"] and 0 < select["utilization"] < 1.5, select
