"""Groups that something else than mpirun starts: torchrun, Slurm with PMIx and without, and variables set by hand as JobSet and
LeaderWorkerSet set them. Each runs `bearing-worker check`; torchrun and Slurm also run a whole job."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

import support
from slurm import Slurm, free_port

WORKER = support.BIN / "bearing-worker"
CHECK = [WORKER, "check", "--device", "cpu"]
# What a launcher that runs these tests may have set.
FOREIGN = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "LWS_", "JOB_COMPLETION_INDEX")


def environment(**variables):
    clean = {name: value for name, value in support.environment().items() if not name.startswith(FOREIGN)}
    return {**clean, **{name: str(value) for name, value in variables.items()}}


def check_line(text):
    return json.loads(next(line for line in text.splitlines() if line.startswith("{")))


def run_ranks(variables_of, ranks=2, command=CHECK, timeout=60):
    """One process a rank, each with its own variables; their exit codes and all they printed."""
    started = [subprocess.Popen([str(part) for part in command], env=environment(**variables_of(rank)), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(ranks)]
    outputs = [process.communicate(timeout=timeout)[0] for process in started]
    return [process.returncode for process in started], "".join(outputs)


@pytest.mark.parametrize("variables", [
    lambda rank, port: dict(RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
    lambda rank, port: dict(LWS_WORKER_INDEX=rank, LWS_GROUP_SIZE=2, LWS_LEADER_ADDRESS="127.0.0.1", MASTER_PORT=port),
    lambda rank, port: dict(JOB_COMPLETION_INDEX=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
    lambda rank, port: dict(SLURM_PROCID=rank, SLURM_LOCALID=rank, SLURM_STEP_NUM_TASKS=2, SLURM_JOB_ID=7,
                            SLURM_STEP_NODELIST="localhost", MASTER_PORT=port)],
    ids=["torchrun", "LeaderWorkerSet", "JobSet", "srun"])
def test_ranks_meet_by_variables(variables):
    port = free_port()
    codes, text = run_ranks(lambda rank: variables(rank, port))
    assert codes == [0, 0], text
    assert check_line(text)["ranks"] == 2


def test_one_rank_alone_needs_no_launcher():
    codes, text = run_ranks(lambda rank: {}, ranks=1)
    assert codes == [0] and check_line(text)["ranks"] == 1, text


def test_a_wrong_variable_is_named():
    codes, text = run_ranks(lambda rank: dict(RANK=5, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=1), ranks=1)
    assert codes == [2] and 'RANK: must be a number from 0 to 1: "5"' in text, text


def test_ranks_that_do_not_come_are_said():
    port = free_port()
    codes, text = run_ranks(lambda rank: dict(RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port), ranks=1,
                            command=[WORKER, "--collective-timeout-minutes", 0.02, "check"])
    assert codes == [1] and "the ranks did not meet" in text, text


@contextlib.contextmanager
def coordinator(folder):
    port_file = folder / "port"
    with open(folder / "coordinator.log", "wb") as log:
        process = subprocess.Popen([support.BIN / "bearing-coordinator", "--listen", "127.0.0.1:0", "--store", folder / "jobs.db",
                                    "--port-file", port_file], env=support.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield f"127.0.0.1:{port_file.read_text().split()[0]}"
    finally:
        process.terminate()
        process.wait(60)


def submit(server, tmp_path, prompts):
    job = support.write_job(tmp_path / "job.json", support.TINY / "llama-tied", prompts, ranks=2, output=str(tmp_path / "out"))
    done = support.bearing("submit", "-f", job, "--server", server)
    assert done.code == 0, done.text


def check_outputs(server, tmp_path):
    jobs = json.loads(support.bearing("list", "--server", server, "-o", "json").out)["jobs"]
    assert [job["state"] for job in jobs] == ["JOB_STATE_SUCCEEDED"]
    assert (tmp_path / "out/manifest.json").exists()


def serve(server):
    return [str(part) for part in (WORKER, "serve", "--coordinator", server, "--device", "cpu", "--exit-when-idle", 1)]


def test_torchrun_runs_a_job(tmp_path, prompts):
    with coordinator(tmp_path) as server:
        submit(server, tmp_path, prompts)
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
                               str(free_port()), "--no-python", *serve(server)], env=environment(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        check_outputs(server, tmp_path)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    # The path of a socket has a limit.
    with Slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


def test_srun_with_and_without_pmix(slurm):
    if os.cpu_count() < 2:
        pytest.skip("two ranks need two cores")
    for way in ("none", "pmi2", "pmix"):
        done = slurm.run("srun", f"--mpi={way}", "-n", 2, *CHECK, check=False, environment=environment())
        if way == "pmix" and "invalid MPI plugin" in done.stderr.replace("Invalid", "invalid"):
            continue
        assert done.returncode == 0, (way, done.stdout, done.stderr)
        assert check_line(done.stdout)["ranks"] == 2, way


def test_srun_of_one_task(slurm):
    done = slurm.run("srun", "-n", 1, *CHECK, check=False, environment=environment())
    assert done.returncode == 0 and check_line(done.stdout)["ranks"] == 1, done.stdout + done.stderr


def run_script(slurm, folder, *arguments, **variables):
    """Its log, once the batch job has ended (sbatch --wait looks less and less often)."""
    said = slurm.run("sbatch", "--parsable", "--ntasks", 2, "--chdir", folder, support.ROOT / "scripts/slurm/group.sbatch", *arguments,
                     environment=environment(**variables))
    job = said.stdout.split(";")[0].strip()
    deadline = time.monotonic() + 120
    while slurm.run("squeue", "-h", "-j", job, "-t", "PD,R,CF,CG", check=False).stdout.strip():
        assert time.monotonic() < deadline, slurm.logs()
        time.sleep(0.3)
    return (folder / f"bearing-{job}.log").read_text()


def test_the_documented_script_runs_a_job(slurm, tmp_path, prompts):
    if os.cpu_count() < 2:
        pytest.skip("two ranks need two cores")
    with coordinator(tmp_path) as server:
        submit(server, tmp_path, prompts)
        log = run_script(slurm, tmp_path, "--device", "cpu", BEARING_COORDINATOR=server, BEARING_BIN=support.BIN, BEARING_IDLE_SECONDS=1)
        assert "of 2 rank(s)" in log and "succeeded" in log, log
        check_outputs(server, tmp_path)


def test_the_documented_script_says_what_is_missing(slurm, tmp_path):
    assert "BEARING_COORDINATOR: HOST:PORT of the coordinator" in run_script(slurm, tmp_path)
