"""`buf lint` over proto/, and `buf breaking` against the description of the first version's API. Skipped where scripts/get_buf has not been."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("BEARING_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "bearing")
BUF = shutil.which("buf", path=f"{CACHE / 'buf'}:{os.environ.get('PATH', '')}")
BASELINE = ROOT / "tests/coordinator/data/api-0.1.binpb"

pytestmark = pytest.mark.skipif(BUF is None, reason="buf is not installed: scripts/get_buf builds it")


def buf(*arguments):
    # No registry is asked: proto/ has no dependencies but what buf carries with it.
    return subprocess.run([BUF, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture
def proto(tmp_path):
    """A copy to spoil."""
    return pathlib.Path(shutil.copytree(ROOT / "proto", tmp_path / "proto"))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """The first version with the imports that its description leaves out, of which only timestamp.proto is Google's."""
    folder = tmp_path_factory.mktemp("baseline")
    imports, whole = folder / "imports.binpb", folder / "whole.binpb"
    subprocess.run(["protoc", f"--descriptor_set_out={imports}", "--include_imports", "google/protobuf/timestamp.proto", "-I/usr/include"],
                   check=True)
    whole.write_bytes(imports.read_bytes() + BASELINE.read_bytes())  # Sets of files add up when they are put behind each other.
    return whole


def spoil(proto, file, old, new):
    path = proto / "bearing/v1" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_lint():
    done = buf("lint", ROOT / "proto")
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_sees_a_bad_name(proto):
    spoil(proto, "job.proto", "message Range {", "message range_of {\n}\nmessage Range {")
    done = buf("lint", proto)
    assert done.returncode == 100 and "range_of" in done.stdout


def test_nothing_of_the_first_version_is_broken(baseline):
    done = buf("breaking", ROOT / "proto", "--against", baseline)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file,old,new", [
    ("job.proto", "  int32 max_batch = 2;", "  int64 max_batch = 2;"),
    ("job.proto", "  int32 max_batch = 2;", "  int32 largest_batch = 2;"),
    ("job.proto", "  int32 max_batch = 2;", ""),
    ("job.proto", "  JOB_STATE_CANCELLED = 6;", "  JOB_STATE_STOPPED = 6;"),
    ("jobs_service.proto", "  rpc GetJob(GetJobRequest) returns (GetJobResponse);", ""),
])
def test_a_break_is_seen(proto, baseline, file, old, new):
    spoil(proto, file, old, new)
    assert buf("breaking", proto, "--against", baseline).returncode == 100
