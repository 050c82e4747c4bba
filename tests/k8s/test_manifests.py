"""The manifests of k8s/, without a cluster: rendered with every component, against the schemas of two versions of Kubernetes,
the MPI Operator's own validation, and the rules that k8s/README.md promises."""

import copy
import functools
import re
import subprocess

import pytest

import manifests

VERSIONS = ("1.33", "1.37")
SETS = list(manifests.all_sets())
USER = 12345
PRODUCT_PORTS = {"grpc", "workers", "health", "metrics", "ssh"}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("k8s")
    return functools.cache(lambda overlay, components: manifests.with_components(folder, overlay, components))


def names(value):
    return "-".join(value) if isinstance(value, tuple) else value


everywhere = pytest.mark.parametrize("overlay, components", SETS, ids=names)


@everywhere
def test_schemas_of_two_versions(rendered, overlay, components):
    errors = manifests.schema_errors(rendered(overlay, components), VERSIONS)
    assert {e["kind"] for e in errors if e["error"] == "no schema"} <= {"MPIJob", "ServiceMonitor"}
    assert not [e for e in errors if e["error"] not in (None, "no schema")]


def test_the_schemas_notice_a_misspelt_field(rendered):
    for place in (lambda o: manifests.by_name(o, "StatefulSet", "bearing-coordinator")["spec"]["template"]["spec"],
                  lambda o: manifests.of_kind(o, "MPIJob")[0]["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]):
        objects = copy.deepcopy(rendered("mpijob", ()))
        place(objects)["enableServiceLink"] = False
        assert [e for e in manifests.schema_errors(objects, VERSIONS) if "enableServiceLink" in (e["error"] or "")]


@pytest.mark.parametrize("components", [c for o, c in SETS if o == "mpijob"], ids=names)
def test_the_mpi_operator_takes_the_job(rendered, components):
    code, said = manifests.validate_mpijob(manifests.of_kind(rendered("mpijob", components), "MPIJob")[0])
    assert code == 0, said


@pytest.mark.parametrize("change, complaint", [
    (lambda spec: spec.update(slotPerWorker=8), "slotPerWorker"),
    (lambda spec: spec["mpiReplicaSpecs"]["Launcher"].update(replicas=2), "must be 1"),
    (lambda spec: spec["mpiReplicaSpecs"]["Worker"].update(restartPolicy="Always"), "restartPolicy"),
    (lambda spec: spec.update(mpiImplementation="openmpi"), "mpiImplementation"),
])
def test_the_mpi_operator_refuses_what_is_wrong(rendered, change, complaint):
    job = copy.deepcopy(manifests.of_kind(rendered("mpijob", ()), "MPIJob")[0])
    change(job["spec"])
    code, said = manifests.validate_mpijob(job)
    assert code == 1 and complaint in said, said


@everywhere
def test_pods_are_restricted(rendered, overlay, components):
    """The fields that the level "restricted" of Pod Security asks for, and more: a read-only root, limits, no API token."""
    objects = rendered(overlay, components)
    rdma = "rdma" in components
    level = manifests.by_name(objects, "Namespace", "bearing")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level == ("privileged" if rdma else "restricted")
    for account in manifests.of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert len(manifests.pods(objects)) == {"local-cpu": 2, "single-node": 2, "mpijob": 3}[overlay]
    for pod in manifests.pods(objects):
        context, container = pod.spec["securityContext"], pod.container
        own = container["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == context["runAsGroup"] == USER, pod.owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.owner
        assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True, pod.owner
        assert own["capabilities"]["drop"] == ["ALL"] and not own.get("privileged"), pod.owner
        has_rank = "coordinator" not in pod.owner and not pod.owner.endswith("/Launcher") and not pod.owner.startswith("Deployment")
        assert own["capabilities"].get("add", []) == (["IPC_LOCK"] if rdma and has_rank else []), pod.owner
        assert not any(pod.spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")), pod.owner
        assert pod.spec["automountServiceAccountToken"] is False and pod.spec["serviceAccountName"].startswith("bearing-")
        for volume in pod.spec["volumes"]:
            kinds = set(volume) - {"name"}
            assert kinds <= {"emptyDir", "secret", "persistentVolumeClaim"}, (pod.owner, volume)
            assert "emptyDir" not in kinds or "sizeLimit" in volume["emptyDir"], (pod.owner, volume)


@everywhere
def test_pods_say_what_they_need(rendered, overlay, components):
    for pod in manifests.pods(rendered(overlay, components)):
        container = pod.container
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]) and "memory" in resources["limits"], pod.owner
        # A tag that says what it is; a digest may follow.
        assert re.search(r":\d+\.\d+\.\d+-(cpu|cuda)(@sha256:[0-9a-f]{64})?$", container["image"]), container["image"]
        assert container["imagePullPolicy"] == "IfNotPresent"
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {"store"} if "coordinator" in pod.owner else set()
        assert mounted == {volume["name"] for volume in pod.spec["volumes"]} | claimed, pod.owner
        listening = {port["name"] for port in container.get("ports", [])}
        assert listening <= PRODUCT_PORTS
        assert ("readinessProbe" in container) == bool(listening), pod.owner
        if "nvidia.com/gpu" in resources["limits"]:
            assert container["image"].split("@")[0].endswith("-cuda")
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]
        if "group" in pod.owner and not pod.owner.endswith("/Launcher"):
            shm = next(volume for volume in pod.spec["volumes"] if volume["name"] == "shm")
            assert shm["emptyDir"]["medium"] == "Memory"
            assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


@everywhere
def test_objects_are_found_by_their_labels(rendered, overlay, components):
    objects = rendered(overlay, components)
    for one in objects:
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "bearing"
    for pod in manifests.pods(objects):
        labels = pod.metadata["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "bearing"
        assert labels["app.kubernetes.io/component"] == ("coordinator" if "coordinator" in pod.owner else "worker")
    service = manifests.by_name(objects, "Service", "bearing-coordinator")
    container = manifests.by_name(objects, "StatefulSet", "bearing-coordinator")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert all(port["targetPort"] in ports and ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["grpc"]["port"] == ports["health"]
    for pod in manifests.pods(objects):
        if (address := [a for a in pod.container["args"] if a.startswith("--coordinator=")]):
            assert address == [f"--coordinator=bearing-coordinator:{ports['workers']}"], pod.owner


@everywhere
def test_the_network_is_closed_but_for_what_is_named(rendered, overlay, components):
    objects = rendered(overlay, components)
    policies = {p["metadata"]["name"]: p["spec"] for p in manifests.of_kind(objects, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            assert rule.get("from") or rule.get("to"), f"{name} opens the pods to everybody"
            assert rule.get("ports") or name == "bearing-group", f"{name} opens all ports"
    if overlay == "mpijob":
        job = manifests.of_kind(objects, "MPIJob")[0]["metadata"]["name"]
        assert policies["bearing-group"]["podSelector"]["matchLabels"] == {"training.kubeflow.org/job-name": job}


@everywhere
def test_tls_or_plaintext_is_chosen_once(rendered, overlay, components):
    objects = rendered(overlay, components)
    arguments = manifests.by_name(objects, "StatefulSet", "bearing-coordinator")["spec"]["template"]["spec"]["containers"][0]["args"]
    plain = "--insecure-allow-plaintext" in arguments
    assert plain == (overlay == "local-cpu")
    assert any(a.startswith("--tls-cert=") for a in arguments) != plain
    assert any(a.startswith("--token-file=") for a in arguments) != plain
    assert [a for a in arguments if a.startswith("--allow-write=")], "jobs could read and write anywhere"


def test_the_base_alone_refuses_to_serve():
    """Neither TLS nor leave to go without: the coordinator ends with a message instead of serving openly."""
    arguments = manifests.by_name(manifests.render(manifests.K8S / "base"), "StatefulSet",
                                  "bearing-coordinator")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert not [a for a in arguments if "tls" in a or "plaintext" in a]


def test_images_of_an_mpijob_follow_the_overlay(rendered):
    images = {pod.owner: pod.container["image"] for pod in manifests.pods(rendered("mpijob", ()))}
    assert images == {"StatefulSet/bearing-coordinator": "registry.example.com/bearing:0.1.0-cpu",
                      "MPIJob/bearing-group/Launcher": "registry.example.com/bearing:0.1.0-cpu",
                      "MPIJob/bearing-group/Worker": "registry.example.com/bearing:0.1.0-cuda"}


def test_what_each_component_is_for_arrives(rendered):
    def group(component):
        return manifests.of_kind(rendered("mpijob", (component,)), "MPIJob")[0]

    assert group("kueue")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "bearing"
    worker = group("rdma")["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["rdma/ib"] == "8"
    for overlay in manifests.OVERLAYS:
        mounts = [pod.owner for pod in manifests.pods(rendered(overlay, ("model-cache",)))
                  if {"name": "models", "mountPath": "/models", "readOnly": True} in pod.container["volumeMounts"]]
        assert len(mounts) == 2, mounts  # The coordinator, and those that hold ranks.
        for component, key in (("irsa", "eks.amazonaws.com/role-arn"), ("gke-workload-identity", "iam.gke.io/gcp-service-account")):
            accounts = manifests.of_kind(rendered(overlay, (component,)), "ServiceAccount")
            assert len(accounts) == 2 and all(key in account["metadata"]["annotations"] for account in accounts)


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_the_programs_take_the_arguments(rendered, overlay, tmp_path):
    """The programs themselves parse what the manifests give them."""
    manifests.skip_before_the_service_has_its_ports()
    programs = {"coordinator": "bearing-coordinator", "group": "bearing-worker", "launcher": "bearing-worker"}
    seen = 0
    for pod in manifests.pods(rendered(overlay, ())):
        command, *arguments = pod.container["args"]
        if command not in programs:
            assert command == "sshd" and not arguments
            continue
        program = manifests.BIN / programs[command]
        if not program.exists():
            pytest.skip(f"not built: {program}")
        done = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True, timeout=60)
        known = set(re.findall(r"--[a-z][a-z-]*", done.stdout))
        used = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
        assert done.returncode == 0 and used <= known, (pod.owner, used - known)
        seen += 1
    assert seen == 2
