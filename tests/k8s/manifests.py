"""Renders the manifests of k8s/ and finds the pods in them."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
CACHE = Path(os.environ.get("BEARING_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bearing")
TOOLS = CACHE / "k8s"
BIN = Path(os.environ.get("BEARING_BIN", ROOT / "build/bin"))
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
# The overlays choose between these two themselves.
OPTIONAL = [name for name in COMPONENTS if name not in ("tls", "plaintext")]


def render(folder):
    """The objects of a folder with a kustomization."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    # Warnings announce what the next version takes away.
    assert not done.stderr.strip(), f"{folder}: {done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def with_components(tmp_path, overlay, components):
    """The objects of an overlay with components on top, as a user's own overlay would take them."""
    folder = tmp_path / f"{overlay}-{'-'.join(components)}"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / "overlays" / overlay, folder)],
        "components": [os.path.relpath(K8S / "components" / name, folder) for name in components]}))
    return render(folder)


@dataclasses.dataclass
class Pod:
    owner: str  # KIND/NAME, and the part of it.
    metadata: dict
    spec: dict

    @property
    def container(self):
        assert len(self.spec["containers"]) == 1 and not self.spec.get("initContainers"), self.owner
        return self.spec["containers"][0]


def pods(objects):
    found = []
    for one in objects:
        owner = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "MPIJob":
            for role, replica in one["spec"]["mpiReplicaSpecs"].items():
                found.append(Pod(f"{owner}/{role}", replica["template"]["metadata"], replica["template"]["spec"]))
        elif "template" in one.get("spec", {}):
            found.append(Pod(owner, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]))
    return found


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def by_name(objects, kind, name):
    return next(one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)


def schema_errors(objects, versions):
    """[{kind, name, version, error}] of all objects; the pods of an MPIJob are looked at as pods."""
    python = TOOLS / "venv/bin/python"
    if not python.exists():
        pytest.skip("the schemas are not installed: scripts/get_k8s_tools")
    as_pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {**pod.metadata, "name": pod.owner}, "spec": pod.spec}
               for pod in pods(objects) if pod.owner.startswith("MPIJob/")]
    done = subprocess.run([python, "-B", Path(__file__).with_name("check_schemas.py"), *versions],
                          input=yaml.safe_dump_all([*objects, *as_pods]), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def validate_mpijob(job):
    """(exit code, what the MPI Operator's own validation says)."""
    program = TOOLS / "validate-mpijob"
    if not program.exists():
        pytest.skip("the MPI Operator's validation is not built: scripts/get_k8s_tools")
    done = subprocess.run([program], input=yaml.safe_dump(job), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def all_sets():
    """(overlay, components): each alone, each optional component on it, and all that go together."""
    for overlay, extra in itertools.product(OVERLAYS, [(), *((name,) for name in OPTIONAL), tuple(OPTIONAL)]):
        # The two clouds annotate the same accounts.
        yield overlay, tuple(name for name in extra if len(extra) == 1 or name != "gke-workload-identity")


def skip_before_the_service_has_its_ports():
    """Programs that were built before the coordinator got health, metrics and workers on ports of their own."""
    if not (BIN / "bearing-coordinator").exists():
        pytest.skip(f"not built: {BIN / 'bearing-coordinator'}")
    help_text = subprocess.run([BIN / "bearing-coordinator", "--help"], capture_output=True, text=True).stdout
    if "--health-listen" not in help_text:
        pytest.skip("this coordinator has no --health-listen")
