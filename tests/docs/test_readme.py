"""Runs every command of the README's fenced blocks marked `sh test`, and checks that all scripts and files it names exist."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("BEARING_BIN", str(ROOT / "build/bin"))


def blocks(kind):
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(rf"```{kind}\n(.*?)```", page.read_text(), re.S):
            text = block.replace("\\\n", " ")
            found += [(page.name, line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return found


@pytest.mark.parametrize("page,command", blocks("sh test"))
def test_command_runs(page, command, tmp_path):
    done = subprocess.run(["bash", "-c", command.replace("build/bin/", BIN + "/")], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{page}: {command}\n{done.stdout}\n{done.stderr}"


def test_there_are_commands():
    assert len(blocks("sh test")) >= 3


@pytest.mark.parametrize("page,command", blocks("sh") + blocks("sh test"))
def test_scripts_and_job_files_exist(page, command):
    for name in re.findall(r"(?:scripts|examples|docs)/[\w./-]+", command):
        assert (ROOT / name).exists(), f"{page}: {command}: {name} does not exist"


def test_links_point_to_files():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_help_of_every_script():
    for name in ("quickstart",):
        assert "Example" in subprocess.run([ROOT / "scripts" / name, "--help"], capture_output=True, text=True, check=True).stdout
