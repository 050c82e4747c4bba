"""What goes into the image: programs that find libtorch beside themselves wherever they are put, and the list of parts."""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import manifests

IMAGE = manifests.K8S / "image"
SITE = next(Path(sys.prefix).glob("lib/python3*/site-packages"))


def collect(variant, folder):
    if missing := [tool for tool in ("patchelf", "strip") if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: patchelf binutils)")
    if not (manifests.BIN / "bearing-worker").exists():
        pytest.skip(f"not built: {manifests.BIN}/bearing-worker")
    done = subprocess.run([IMAGE / "collect", manifests.BIN, SITE, variant, folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def without_places():
    """The environment, without what says where libraries are."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "OMPI_", "PMIX_"))}


def linked_to(program):
    """What ldd says of a program or library that has been moved."""
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, env=without_places()).stdout
    assert "not found" not in linked and ".cache" not in linked and sys.prefix not in linked, linked
    return linked


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    # Not below /tmp's usual places alone: the folder's name must not matter.
    folder = tmp_path_factory.mktemp("collect") / f"any where {uuid.uuid4().hex[:4]}"
    collect("cpu", folder)
    yield folder
    shutil.rmtree(folder)


def test_the_programs_run_where_they_are_put(collected):
    for name in ("bearing", "bearing-coordinator", "bearing-edit", "bearing-worker"):
        linked_to(collected / "bin" / name)
    done = subprocess.run([collected / "bin/bearing-worker", "check", "--device", "cpu"], capture_output=True, text=True,
                          env=without_places(), timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["ranks"] == 1, done.stdout + done.stderr


def test_the_cpu_variant_has_no_gpu_half(collected):
    names = {path.name for path in collected.rglob("*.so*")}
    assert "libtorch_cpu.so" in names and not {"libtorch_cuda.so", "libbearing_cuda.so"} & names
    assert sum(path.stat().st_size for path in collected.rglob("*") if path.is_file()) < 700e6


def test_the_gpu_half_finds_its_libraries(tmp_path):
    """It is loaded by name, so that what the programs have loaded before does not help it."""
    if not (manifests.BIN / "libbearing_cuda.so").exists() or not (SITE / "nvidia").exists():
        pytest.skip("built without CUDA")
    folder = tmp_path / "moved"
    try:
        collect("cuda", folder)
        linked = linked_to(folder / "bin/libbearing_cuda.so")
        assert re.search(rf"libnccl\.so\.2 => {re.escape(str(folder))}/", linked), linked
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_image_installs_what_the_programs_are_linked_to(collected):
    if missing := [tool for tool in ("apt-cache", "dpkg-query") if shutil.which(tool) is None]:
        pytest.skip(f"not Debian: {', '.join(missing)}")
    runtime = (IMAGE / "Dockerfile").read_text().split("AS runtime\n")[1].split("&& rm -rf")[0]
    named = [word for word in runtime.split("--no-install-recommends")[1].split() if word != "\\"]
    switches = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    closure = subprocess.run(["apt-cache", "depends", "--recurse", *switches, *named], capture_output=True, text=True, check=True).stdout
    installed = {line.split(":")[0] for line in closure.splitlines() if not line.startswith((" ", "<"))}
    linked = subprocess.run(["ldd", *(collected / "bin").iterdir()], capture_output=True, text=True).stdout
    libraries = {os.path.realpath(path) for path in re.findall(r"=> (/\S+)", linked) if not path.startswith(str(collected))}
    found = subprocess.run(["dpkg-query", "-S", *libraries], capture_output=True, text=True).stdout
    packages = {line.split(":")[0] for line in found.splitlines()}
    assert len(packages) > 10 and not packages - installed, packages - installed


def test_the_list_of_parts(collected, tmp_path):
    status = Path("/var/lib/dpkg/status")
    if not status.exists():
        pytest.skip("no dpkg here")
    out = tmp_path / "sbom.json"
    command = [sys.executable, IMAGE / "sbom.py", "--dpkg", status, "--cargo", manifests.ROOT / "bridge/Cargo.lock", "--programs",
               collected, "--out", out]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    first = out.read_bytes()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert out.read_bytes() == first
    document = json.loads(first)
    # What SPDX 2.3 asks of every document, package and file.
    assert document["spdxVersion"] == "SPDX-2.3" and document["dataLicense"] == "CC0-1.0" and document["SPDXID"] == "SPDXRef-DOCUMENT"
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    parts = document["packages"] + document["files"]
    identifiers = [part["SPDXID"] for part in parts]
    assert len(set(identifiers)) == len(identifiers)
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", identifier) for identifier in identifiers)
    assert all(package["name"] and package["downloadLocation"] for package in document["packages"])
    known = {*identifiers, "SPDXRef-DOCUMENT"}
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= known
    assert {relation["relatedSpdxElement"] for relation in document["relationships"]} == set(identifiers)
    locators = {reference["referenceLocator"] for package in document["packages"] for reference in package["externalRefs"]}
    versions = dict(line.split("==") for line in (manifests.ROOT / "scripts/requirements.txt").read_text().splitlines()
                    if line.startswith("torch=="))
    assert f"pkg:pypi/torch@{versions['torch']}" in locators
    assert any(locator.startswith("pkg:cargo/tokenizers@") for locator in locators)
    assert any(locator.startswith("pkg:deb/debian/openmpi-bin@") for locator in locators)
    files = {file["fileName"]: file["checksums"][0]["checksumValue"] for file in document["files"]}
    sums = subprocess.run(["sha256sum", collected / "bin/bearing"], capture_output=True, text=True, check=True).stdout
    assert files["./opt/bearing/bin/bearing"] == sums.split()[0].removeprefix("\\")


@pytest.mark.parametrize("arguments, complaint", [(["a", "b"], "collect BIN SITE_PACKAGES cpu|cuda OUT"),
                                                  (["a", "b", "tpu", "c"], 'must be cpu or cuda: "tpu"')])
def test_wrong_arguments_are_named(arguments, complaint):
    done = subprocess.run([IMAGE / "collect", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and complaint in done.stderr
