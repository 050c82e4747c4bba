"""The image's entrypoints as the pods run them (pods.py): the arguments and ports of the manifests, a user without capabilities, a
read-only root. A coordinator, a group in one container, and an MPIJob's launcher and ssh servers on hosts of their own run real
jobs of a tiny model."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import manifests
import pods

sys.path.insert(0, str(manifests.ROOT / "tests/integration"))
import support  # noqa: E402

COORDINATOR, CLIENT, LAUNCHER = "bearing-coordinator", "client", "bearing-group-launcher"
WORKERS = [f"bearing-group-worker-{i}.bearing-group.bearing.svc" for i in range(2)]
HOSTS = {COORDINATOR: "192.0.2.10", CLIENT: "192.0.2.11", LAUNCHER: "192.0.2.12", WORKERS[0]: "192.0.2.20", WORKERS[1]: "192.0.2.21"}
MODEL = "llama-tied"
# As the MPI Operator sets them (its environment comes behind the template's).
OPERATOR = {"OMPI_MCA_orte_keep_fqdn_hostnames": "true", "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
            "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10", "OMPI_MCA_orte_set_default_slots": "1",
            "K_MPI_JOB_ROLE": "launcher", "NVIDIA_VISIBLE_DEVICES": ""}


def template(overlay, owner):
    return next(p for p in manifests.pods(manifests.render(manifests.K8S / "overlays" / overlay)) if p.owner == owner).container


def environment_of(container):
    return {variable["name"]: variable["value"] for variable in container.get("env", [])}


def replaced(arguments, **changes):
    """`arguments` with other values for some flags; None leaves a flag out."""
    out = []
    for argument in arguments:
        flag = argument.split("=")[0].removeprefix("--").replace("-", "_")
        if flag not in changes:
            out.append(argument)
        elif changes[flag] is not None:
            out.append(f"{argument.split('=')[0]}={changes[flag]}")
    return out


@pytest.fixture(scope="module")
def network():
    pods.skip_unless_possible()
    with pods.Network(HOSTS) as network:
        yield network


@pytest.fixture
def cluster(network, tmp_path):
    cluster = pods.Cluster(tmp_path, network)
    yield cluster
    cluster.close()


@pytest.fixture
def data(tmp_path):
    """A volume that all pods share, with prompts, and a job file at the places where the pods see them."""
    folder = tmp_path / "data"
    folder.mkdir()
    support.write_prompts(folder / "prompts")
    spec = support.job_spec("/models/" + MODEL, Path("/data/prompts"), ranks=2)
    spec["output"] = "/data/out"
    support.write_json(folder / "job.json", spec)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, pods.USER, pods.USER)
    return folder


def volumes(data, mode="rw"):
    return [(support.TINY, "/models", "ro"), (data, "/data", mode)]


def start_coordinator(cluster, data, tmp_path, overlay="local-cpu"):
    manifests.skip_before_the_service_has_its_ports()
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, pods.USER, pods.USER)
    container = template(overlay, "StatefulSet/bearing-coordinator")
    arguments = [*container["args"], "--allow-read=/models"]
    pod = cluster.start(COORDINATOR, [pods.ENTRYPOINT, *arguments],
                        volumes=[*volumes(data, "ro"), (store, "/var/lib/bearing", "rw")], environment=environment_of(container))
    pod.wait_for("serving")
    return pod


def run_job(cluster, data):
    done = cluster.start(CLIENT, [pods.ENTRYPOINT, "bearing", "submit", "-f", "/data/job.json", "--watch", "--server",
                                  f"{COORDINATOR}:7070"], volumes=volumes(data))
    assert done.wait(120) == 0, done.text
    manifest = support.read_json(data / "out/manifest.json")
    assert {"report.html", "direction.safetensors", "checkpoint/config.json"} <= {f["name"] for f in manifest["files"]}
    for file in manifest["files"]:
        assert os.stat(data / "out" / file["name"]).st_uid == pods.USER


def keys(tmp_path, name="keys"):
    """The MPI Operator's Secret as it is mounted: a P-521 key in PEM, files of root that the user may read."""
    folder = tmp_path / name
    folder.mkdir()
    pods.run("ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-C", "", "-f", folder / "id_rsa")
    shutil.copy(folder / "id_rsa.pub", folder / "authorized_keys")
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)
    return folder


def start_workers(cluster, tmp_path, key_folders, extra_volumes=(), extra_environment=None, programs=None):
    container = template("mpijob", "MPIJob/bearing-group/Worker")
    started = []
    for host, folder in zip(WORKERS, key_folders):
        started.append(cluster.start(
            host, [pods.ENTRYPOINT, *container["args"]], volumes=[(folder, "/home/bearing/.ssh", "ro"), *extra_volumes],
            environment={**environment_of(container), **(extra_environment or {})}, programs=programs))
    for pod in started:
        pod.wait_for("Server listening on 0.0.0.0 port 2222")
    return started


def start_launcher(cluster, tmp_path, key_folder, arguments, hosts=WORKERS, slots=1, programs=None):
    mpi = tmp_path / "mpi"
    mpi.mkdir(exist_ok=True)
    (mpi / "hostfile").write_text("".join(f"{host} slots={slots}\n" for host in hosts))
    container = template("mpijob", "MPIJob/bearing-group/Launcher")
    return cluster.start(LAUNCHER, [pods.ENTRYPOINT, *arguments],
                         volumes=[(key_folder, "/home/bearing/.ssh", "ro"), (mpi, "/etc/mpi", "ro")],
                         environment={**environment_of(container), **OPERATOR}, programs=programs)


def fake_worker(tmp_path, text):
    """Stands in for bearing-worker where the test is about how ranks are started."""
    path = tmp_path / "bearing-worker"
    path.write_text("#!/bin/bash\n" + text)
    return [manifests.K8S / "image/entrypoint", path]


def test_containers_are_as_restricted_as_the_manifests_ask(cluster):
    pod = cluster.start(CLIENT, ["bash", "-c", "id -u; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; touch /x || touch /tmp/x"])
    assert pod.wait(20) == 0, pod.text
    lines = pod.text.splitlines()
    assert lines[0] == str(pods.USER) and "Read-only file system" in lines[-1]
    assert [line.split()[1] for line in lines[1:7]] == ["0" * 16] * 5 + ["1"]


def health(network, service):
    """The answer of the health port, asked from another host as the kubelet does."""
    program = (
        "import grpc, sys\n"
        "ask = grpc.insecure_channel(sys.argv[1]).unary_unary('/grpc.health.v1.Health/Check', request_serializer=lambda x: x, "
        "response_deserializer=lambda x: x)\n"
        "name = sys.argv[2].encode()\n"
        "print(list(ask((b'\\x0a' + bytes([len(name)]) + name) if name else b'', timeout=20, wait_for_ready=True)))\n")
    done = subprocess.run(["ip", "netns", "exec", network.namespaces[CLIENT], sys.executable, "-c", program,
                           f"{HOSTS[COORDINATOR]}:8081", service], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_coordinator_and_a_group_in_one_container(cluster, network, data, tmp_path):
    coordinator = start_coordinator(cluster, data, tmp_path)
    container = template("local-cpu", "StatefulSet/bearing-coordinator")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert health(network, container[probe]["grpc"].get("service", "")) == [8, 1], probe  # status: SERVING
    group = template("local-cpu", "Deployment/bearing-group")
    worker = cluster.start(LAUNCHER, [pods.ENTRYPOINT, *group["args"]], volumes=volumes(data), environment=environment_of(group))
    worker.wait_for("of 2 rank(s) serves bearing-coordinator:7071")
    run_job(cluster, data)
    worker.terminate()
    worker.wait(30)
    coordinator.terminate()
    assert coordinator.wait(60) == 0, coordinator.text


def test_the_base_alone_does_not_serve(cluster):
    manifests.skip_before_the_service_has_its_ports()
    container = next(iter(manifests.pods(manifests.render(manifests.K8S / "base")))).container
    pod = cluster.start(COORDINATOR, [pods.ENTRYPOINT, *container["args"]], environment=environment_of(container))
    assert pod.wait(20) == 2, pod.text
    assert "--insecure-allow-plaintext" in pod.text


def test_an_mpijob_runs_a_job_over_two_hosts(cluster, data, tmp_path):
    start_coordinator(cluster, data, tmp_path)
    folder = keys(tmp_path)
    workers = start_workers(cluster, tmp_path, [folder, folder], extra_volumes=volumes(data))
    arguments = replaced(template("mpijob", "MPIJob/bearing-group/Launcher")["args"], device="cpu", exit_when_idle=3,
                         ca_file=None, token_file=None)
    launcher = start_launcher(cluster, tmp_path, folder, arguments)
    run_job(cluster, data)
    assert launcher.wait(60) == 0, launcher.text
    assert "of 2 rank(s)" in launcher.text and "succeeded" in launcher.text
    for pod in workers:  # They wait for the next launcher until the operator takes them away.
        assert pod.process.poll() is None
        assert "bearing-worker" not in pod.programs().values()


def test_ranks_get_the_named_variables_of_their_pod_and_no_others(cluster, tmp_path):
    folder = keys(tmp_path)
    tricky = "a  'b' \"c\" $HOME `id` \\ ; exit 1 \t*\nnext line"
    programs = fake_worker(tmp_path, 'sleep 0.$OMPI_COMM_WORLD_RANK; echo "rank $OMPI_COMM_WORLD_RANK: $*"; id -u; env -0 | base64 -w 0; echo\n')
    start_workers(cluster, tmp_path, [folder, folder], programs=programs,
                  extra_environment={"AWS_ROLE_ARN": tricky, "NCCL_IB_HCA": "mlx5", "DATABASE_PASSWORD": "hunter2"})
    launcher = start_launcher(cluster, tmp_path, folder, ["launcher", "serve", "--x=1 2"], programs=programs)
    assert launcher.wait(60) == 0, launcher.text
    lines = launcher.text.splitlines()
    assert sorted(line for line in lines if line.startswith("rank")) == [f"rank {i}: serve --x=1 2" for i in range(2)], launcher.text
    seen = 0
    for line in lines:
        if len(line) < 200 or " " in line:
            continue
        variables = dict(v.split("=", 1) for v in base64.b64decode(line).decode().split("\0") if "=" in v)
        assert variables["AWS_ROLE_ARN"] == tricky and variables["NCCL_IB_HCA"] == "mlx5"
        assert variables["OMP_NUM_THREADS"] == "4" and variables["BEARING_STAGING"] == "/scratch"
        assert "DATABASE_PASSWORD" not in variables and "hunter2" not in str(variables)
        seen += 1
    assert seen == 2, launcher.text


def test_a_rank_that_is_killed_ends_the_group_on_all_hosts(cluster, tmp_path):
    folder = keys(tmp_path)
    programs = fake_worker(tmp_path, "echo started; exec sleep 1000\n")
    workers = start_workers(cluster, tmp_path, [folder, folder], programs=programs)
    launcher = start_launcher(cluster, tmp_path, folder, ["launcher"], programs=programs)
    deadline = time.monotonic() + 30
    while launcher.text.count("started") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    victim = next(pid for pid, name in workers[1].programs().items() if name == "sleep")
    os.kill(victim, signal.SIGKILL)
    assert launcher.wait(20) != 0, launcher.text
    gone = time.monotonic() + 5
    while any("sleep" in pod.programs().values() for pod in workers) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not any("sleep" in pod.programs().values() for pod in workers)


def test_the_launcher_ends_its_ranks_when_it_is_asked_to(cluster, tmp_path):
    folder = keys(tmp_path)
    programs = fake_worker(tmp_path, "echo started; exec sleep 1000\n")
    workers = start_workers(cluster, tmp_path, [folder, folder], programs=programs)
    launcher = start_launcher(cluster, tmp_path, folder, ["launcher"], programs=programs)
    deadline = time.monotonic() + 30
    while launcher.text.count("started") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.terminate()
    launcher.wait(20)
    gone = time.monotonic() + 5
    while any("sleep" in pod.programs().values() for pod in workers) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not any("sleep" in pod.programs().values() for pod in workers)
    for pod in workers:
        pod.terminate()
        pod.wait(20)


@pytest.mark.parametrize("who", ["server", "client"])
def test_a_host_with_another_key_is_refused(cluster, tmp_path, who):
    """Neither does a launcher talk to a server that does not have the group's key, nor a server to such a launcher."""
    ours, other = keys(tmp_path), keys(tmp_path, "others")
    programs = fake_worker(tmp_path, "echo started\n")
    if who == "server":  # Lets our key in, but is not one of ours.
        shutil.copy(ours / "authorized_keys", other / "authorized_keys")
        workers, launcher_keys = [ours, other], ours
    else:                # Knows the servers' key, but does not have it.
        shutil.copy(ours / "id_rsa.pub", other / "id_rsa.pub")
        workers, launcher_keys = [ours, ours], other
    start_workers(cluster, tmp_path, workers, programs=programs)
    launcher = start_launcher(cluster, tmp_path, launcher_keys, ["launcher"], programs=programs)
    assert launcher.wait(60) != 0, launcher.text
    assert "started" not in launcher.text
    assert ("Host key verification failed" if who == "server" else "Permission denied (publickey)") in launcher.text


def test_a_worker_that_is_gone_fails_the_launcher(cluster, tmp_path):
    folder = keys(tmp_path)
    programs = fake_worker(tmp_path, "echo started\n")
    start_workers(cluster, tmp_path, [folder], programs=programs)
    launcher = start_launcher(cluster, tmp_path, folder, ["launcher"], hosts=[WORKERS[0], "bearing-group-worker-9"], programs=programs)
    assert launcher.wait(60) != 0, launcher.text
    assert "started" not in launcher.text and "bearing-group-worker-9" in launcher.text


@pytest.mark.parametrize("arguments, complaint", [
    (["launcher", "serve"], "id_rsa cannot be read"), (["sshd"], "id_rsa cannot be read"), (["dance"], 'unknown command "dance"'),
    (["remote"], "starts ranks only")])
def test_what_is_missing_is_named(cluster, arguments, complaint):
    pod = cluster.start(CLIENT, [pods.ENTRYPOINT, *arguments])
    assert pod.wait(20) == 2 and complaint in pod.text, pod.text


def test_a_wrong_number_of_ranks_is_named(cluster):
    pod = cluster.start(CLIENT, [pods.ENTRYPOINT, "group", "serve"], environment={"BEARING_RANKS": "all"})
    assert pod.wait(20) == 2 and 'BEARING_RANKS: must be a number from 1: "all"' in pod.text, pod.text
