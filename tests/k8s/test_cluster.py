"""The overlays in a real cluster, as k8s/README.md has a user install them: jobs of a real model, pods that are deleted in the
middle, TLS and tokens, an MPIJob, and who reaches whom.

BEARING_TEST_KUBECONFIG names the cluster, whose node has the image bearing:0.1.0-cpu, volumes for claims of 20 GiB, the MPI Operator
and a network that enforces policies; tests/k8s/cluster/up makes one. The namespace "bearing" is deleted at the beginning and the
end. Needs BEARING_DEMO_MODELS with smollm2-135m-instruct. Skipped where one is missing."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time

import manifests
import pytest
import yaml

CONFIG = os.environ.get("BEARING_TEST_KUBECONFIG")
TO_CLUSTER = ("--kubeconfig", CONFIG)
MODEL = os.path.join(os.environ.get("BEARING_DEMO_MODELS", ""), "smollm2-135m-instruct")
# One node without GPUs: both workers on it, a rank each.
SMALL_MPIJOB = [
    {"op": "replace", "path": "/spec/slotsPerWorker", "value": 1},
    {"op": "replace", "path": "/spec/mpiReplicaSpecs/Launcher/template/spec/containers/0/args/3", "value": "--device=cpu"},
    {"op": "remove", "path": "/spec/mpiReplicaSpecs/Worker/template/spec/affinity"},
    {"op": "replace", "path": "/spec/mpiReplicaSpecs/Worker/template/spec/containers/0/image", "value": "bearing:0.1.0-cpu"},
    {"op": "replace", "path": "/spec/mpiReplicaSpecs/Worker/template/spec/containers/0/resources",
     "value": {"requests": {"cpu": "300m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}},
    {"op": "replace", "path": "/spec/mpiReplicaSpecs/Worker/template/spec/containers/0/env/1/value", "value": "1"}]


def with_data(pod, read_only):
    """The claim of local-cpu in a pod of another overlay."""
    return [{"op": "add", "path": f"{pod}/volumes/-", "value": {"name": "data", "persistentVolumeClaim": {"claimName": "bearing-data"}}},
            {"op": "add", "path": f"{pod}/containers/0/volumeMounts/-",
             "value": {"name": "data", "mountPath": "/data", "readOnly": read_only}}]


def run(*command, code=0, text=None):
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, timeout=600)
    assert code is None or done.returncode == code, (command, done.stdout, done.stderr)
    return done


def kubectl(*arguments, **options):
    return run("kubectl", *TO_CLUSTER, *arguments, **options).stdout


def bearing(*arguments, **options):
    return run(manifests.BIN / "bearing", *arguments, **options).stdout


def wait_for(what, question, seconds=180):
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, (what, kubectl("-n", "bearing", "get", "pods,mpijob,events", code=None))
        time.sleep(0.5)


@contextlib.contextmanager
def forwarded():
    """The coordinator's address on this machine, until the coordinator's pod goes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["kubectl", *TO_CLUSTER, "-n", "bearing", "port-forward", "svc/bearing-coordinator", f"{port}:7070"],
                               stdout=subprocess.PIPE, text=True)
    try:
        assert "Forwarding" in process.stdout.readline()
        yield f"localhost:{port}"
    finally:
        process.kill()
        process.wait()


class Client:
    def __init__(self, *credentials):
        self.credentials = credentials

    def call(self, *arguments):
        with forwarded() as server:
            return bearing("--server", server, *self.credentials, *arguments)

    def job(self, name):
        return json.loads(self.call("describe", name, "-o", "json"))

    def submit(self, folder, name, count):
        spec = {"apiVersion": "bearing/v1", "kind": "Job", "name": name, "model": {"path": "/data/models/smollm2", "dtype": "float32"},
                "concept": {"name": "french", "markers": [" le ", " la ", " les "]},
                "prompts": {side: {part: {"file": f"/data/prompts/{language}_{part}.json", "count": size}
                                   for part, size in (("train", count), ("validation", 8), ("test", 8))}
                            for side, language in (("positive", "french"), ("negative", "english"))},
                "collect": {"filter": False}, "select": {"induce_min": -5, "kl_max": 0.5, "when_none_passes": "relax_kl"},
                "evaluate": {"max_new_tokens": 24}, "edit": {"keep_tied": False}, "output": f"/data/out/{name}", "ranks": 2}
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(spec))
        return self.call("submit", "-f", file).split()[0]

    def wait_until(self, name, reached, seconds=300):
        def look():
            job = self.job(name)
            assert not job["state"].endswith(("FAILED", "CANCELLED")), job
            return job if reached(job) else None
        return wait_for(f"job {name}", look, seconds)

    def wait_for_end(self, name, seconds=300):
        return self.wait_until(name, lambda job: job["state"].endswith("SUCCEEDED"), seconds)


def in_select(job):
    return job.get("progress", {}).get("stage") == "STAGE_SELECT"


def pod_of(role):
    return kubectl("-n", "bearing", "get", "pod", "-l", role, "-o", "jsonpath={.items[0].metadata.name}")


def ready(*names):
    """Do pods whose names start so run, and are ready?"""
    pods = json.loads(kubectl("-n", "bearing", "get", "pods", "-o", "json"))["items"]
    ready_ones = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
                  and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))]
    return all(any(found.startswith(name) for found in ready_ones) for name in names)


def files_of(name):
    """{file: sha256} of what depends on the computation alone."""
    found = kubectl("-n", "bearing", "exec", pod_of("app.kubernetes.io/component=coordinator"), "--", "bash", "-c",
                    f"cd /data/out/{name} && sha256sum means.safetensors candidates.json direction.safetensors checkpoint/model.safetensors")
    return {line.split()[1]: line.split()[0] for line in found.splitlines()}


def remove_everything():
    kubectl("delete", "namespace", "bearing", "--ignore-not-found", "--timeout=180s")
    kubectl("-n", "default", "delete", "pod", "client", "stranger", "--ignore-not-found", "--grace-period=0", "--force")
    # Volumes that were claimed may be claimed again. What is in them goes with the pods' data below /data.
    for volume in json.loads(kubectl("get", "pv", "-o", "json"))["items"]:
        if volume["status"]["phase"] == "Released":
            kubectl("patch", "pv", volume["metadata"]["name"], "--type=json", "-p", '[{"op": "remove", "path": "/spec/claimRef"}]')


@pytest.fixture(scope="module", autouse=True)
def cluster():
    if not CONFIG:
        pytest.skip("BEARING_TEST_KUBECONFIG names no cluster (tests/k8s/cluster/up makes one)")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    if not os.path.isdir(MODEL):
        pytest.skip("BEARING_DEMO_MODELS has no smollm2-135m-instruct")
    remove_everything()
    yield
    remove_everything()


def test_the_api_server_takes_every_set(tmp_path):
    """Its own validation, unknown fields refused; Pod Security of the namespace warns of what it would not start."""
    kubectl("apply", "-f", manifests.K8S / "base/namespace.yaml")
    file = tmp_path / "objects.yaml"
    for overlay, components in manifests.all_sets():
        # What needs operators of its own, which are not in the cluster.
        objects = [one for one in manifests.with_components(tmp_path, overlay, components)
                   if one["kind"] not in ("Namespace", "ServiceMonitor", "LocalQueue")]
        file.write_text(yaml.safe_dump_all(objects))
        done = run("kubectl", *TO_CLUSTER, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file)
        assert len(done.stdout.splitlines()) == len(objects), (overlay, components, done.stderr)
        # IPC_LOCK, which registering memory needs, is the one thing that the level forbids; of MPIJobs the server knows no pods.
        warned = "would violate PodSecurity" in done.stderr
        assert warned == (overlay == "single-node" and "rdma" in components), (overlay, components, done.stderr)


def test_local_cpu(tmp_path):
    """As k8s/README.md says, on a cluster of one's own machine. Pods that go in the middle of a job cost no job."""
    kubectl("apply", "-k", manifests.K8S / "overlays/local-cpu")
    wait_for("local-cpu", lambda: ready("bearing-coordinator-0", "bearing-group"))
    worker = pod_of("app.kubernetes.io/component=worker")
    kubectl("-n", "bearing", "exec", worker, "--", "bash", "-c", "rm -rf /data/* && mkdir -p /data/models")
    kubectl("-n", "bearing", "cp", MODEL, f"{worker}:/data/models/smollm2")
    kubectl("-n", "bearing", "cp", manifests.ROOT / "examples/prompts/language", f"{worker}:/data/prompts")
    client = Client()

    name = client.submit(tmp_path, "alone", 24)
    client.wait_until(name, in_select)
    kubectl("-n", "bearing", "delete", "pod", "bearing-coordinator-0")
    wait_for("the coordinator", lambda: ready("bearing-coordinator-0"))
    job = client.wait_for_end(name)
    assert job["attempt"] == 1 and not job.get("lostAttempts"), job

    name = client.submit(tmp_path, "killed", 20)
    client.wait_until(name, in_select)
    kubectl("-n", "bearing", "delete", "pod", worker, "--grace-period=0", "--force")
    job = client.wait_for_end(name)
    assert job["attempt"] == 2 and len(job["lostAttempts"]) == 1, job
    assert next(time for time in job["stageTimes"] if time["stage"] == "STAGE_COLLECT")["resumed"], job


def check(namespace, pod, host, port):
    """Does a connection from the pod come about?"""
    said = kubectl("-n", namespace, "exec", pod, "--", "bash", "-c",
                   f"timeout 3 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo open || echo closed", code=None)
    assert said.strip() in ("open", "closed"), said
    return said.strip() == "open"


def address(pod, namespace="bearing"):
    return kubectl("-n", namespace, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")


def check_who_reaches_whom():
    for pod, labels in (("client", {"bearing-client": "true"}), ("stranger", {})):
        spec = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels},
                "spec": {"containers": [{"name": "c", "image": "bearing:0.1.0-cpu", "command": ["sleep", "600"]}]}}
        kubectl("-n", "default", "apply", "-f", "-", text=json.dumps(spec))
    kubectl("-n", "default", "wait", "--for=condition=Ready", "pod/client", "pod/stranger", "--timeout=60s")
    coordinator, worker = address("bearing-coordinator-0"), address("bearing-group-worker-0")
    launcher = pod_of("training.kubeflow.org/job-role=launcher")
    wait_for("the policies of new pods", lambda: check("default", "client", coordinator, 7070), 30)
    expected = {
        ("default", "client", "bearing-coordinator.bearing.svc", 7070): True,
        ("default", "client", coordinator, 7071): False,  # Workers alone.
        ("default", "client", coordinator, 8081): False,  # The kubelet alone.
        ("default", "client", coordinator, 9090): False,  # Needs the component servicemonitor.
        ("default", "client", worker, 2222): False,
        ("default", "stranger", coordinator, 7070): False,
        ("default", "stranger", coordinator, 7071): False,
        ("default", "stranger", worker, 2222): False,
        ("bearing", "bearing-group-worker-0", "bearing-coordinator", 7071): True,
        ("bearing", "bearing-group-worker-0", "bearing-coordinator", 7070): False,
        ("bearing", "bearing-group-worker-0", "bearing-coordinator", 9090): False,
        ("bearing", "bearing-group-worker-0", "bearing-group-worker-1.bearing-group", 2222): True,
        ("bearing", launcher, "bearing-group-worker-1.bearing-group", 2222): True,
        ("bearing", "bearing-coordinator-0", worker, 2222): False,
    }
    found = {key: check(*key) for key in expected}
    assert found == expected, {key: found[key] for key in expected if found[key] != expected[key]}


def test_mpijob_with_tls(tmp_path):
    """As k8s/README.md says; the same job as in local-cpu ends with the same bytes, over two pods."""
    alone = files_of("alone")
    kubectl("-n", "bearing", "delete", "deployment/bearing-group", "statefulset/bearing-coordinator")
    text = (manifests.K8S / "README.md").read_text()
    # The README's own commands up to where the Secrets are there.
    commands = re.search(r"```sh\nkubectl create namespace bearing\n(.*?)kubectl apply -k my-cluster\n", text, re.DOTALL).group(1)
    environment = {**os.environ, "KUBECONFIG": CONFIG, "PATH": f"{manifests.BIN}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, env=environment, check=True, capture_output=True)
    overlay = tmp_path / "my-cluster"
    overlay.mkdir()
    allow = {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--allow-write=/data"}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [os.path.relpath(manifests.K8S / "overlays/mpijob", overlay)],
        "images": [{"name": "registry.example.com/bearing", "newName": "bearing"}],
        "patches": [
            {"target": {"kind": "StatefulSet"}, "patch": json.dumps([allow, *with_data("/spec/template/spec", True)])},
            {"target": {"kind": "MPIJob"},
             "patch": json.dumps([*SMALL_MPIJOB, *with_data("/spec/mpiReplicaSpecs/Worker/template/spec", False)])}]}))
    kubectl("apply", "-k", overlay)
    everybody = ("bearing-coordinator-0", "bearing-group-launcher", "bearing-group-worker-0", "bearing-group-worker-1")
    wait_for("mpijob", lambda: ready(*everybody))
    with forwarded() as server:
        bearing("--server", server, "--ca-file", tmp_path / "ca.crt", "list", code=4)  # No token.
    client = Client("--ca-file", tmp_path / "ca.crt", "--token-file", tmp_path / "alice.token")
    name = client.submit(tmp_path, "over-two-pods", 24)
    job = client.wait_for_end(name)
    assert job["attempt"] == 1 and job["owner"] == "alice" and not any(time.get("resumed") for time in job["stageTimes"]), job
    assert files_of("over-two-pods") == alone
    check_who_reaches_whom()

    # A worker that goes ends the group; the job waits for the next one.
    name = client.submit(tmp_path, "lost-worker", 20)
    client.wait_until(name, in_select)
    kubectl("-n", "bearing", "delete", "pod", "bearing-group-worker-1", "--grace-period=0", "--force")
    wait_for("the end of the MPIJob", lambda: "Failed" in kubectl("-n", "bearing", "get", "mpijob", "bearing-group", "-o",
                                                                 "jsonpath={.status.conditions[?(@.status=='True')].type}"))
    client.wait_until(name, lambda job: job["state"].endswith("QUEUED"))
    kubectl("-n", "bearing", "delete", "job,mpijob", "bearing-group", "--ignore-not-found")
    kubectl("apply", "-k", overlay)
    job = client.wait_for_end(name)
    assert job["attempt"] == 2, job
    assert files_of("lost-worker") == files_of("killed")
