"""Fixtures of the integration tests. BEARING_BIN names the folder of the built programs."""

import os

# Before torch is loaded: spinning threads starve the programs under test.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

import support


def pytest_configure(config):
    if not (support.BIN / "bearing").exists():
        raise pytest.UsageError(f"BEARING_BIN={support.BIN} holds no built programs")


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Whatever a test does, no process that it started may outlive it."""
    yield
    left = support.wait_until_gone(support.SESSION)
    names = [process.command for process in left]
    for process in left:
        process.kill()
    assert not names, f"processes left behind: {names}"


@pytest.fixture
def prompts(tmp_path):
    return support.write_prompts(tmp_path / "prompts")
