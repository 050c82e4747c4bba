"""What the scripts share (scripts/lib.sh)."""

import subprocess
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "scripts/lib.sh"


def run(body):
    return subprocess.run(["bash", "-c", f'. "{LIB}"\n{body}'], capture_output=True, text=True)


def test_a_step_ends_at_its_first_command_that_fails(tmp_path):
    """A download that failed is not taken for one that is installed."""
    mark = tmp_path / "installed"
    done = run(f'install() {{ echo "cannot reach it"; false; touch "{mark}"; }}\nstep "install it" install\necho behind')
    assert done.returncode == 1 and not mark.exists(), done
    assert done.stdout == "install it ...                               failed\n", done.stdout
    assert "cannot reach it" in done.stderr and "install it failed" in done.stderr, done.stderr


def test_a_step_that_works_shows_its_time_alone(tmp_path):
    mark = tmp_path / "installed"
    done = run(f'install() {{ echo noise; touch "{mark}"; }}\nstep "install it" install\nfalse\necho behind')
    assert mark.exists() and done.stdout.startswith("install it ...") and done.stdout.endswith(" s\n"), done.stdout
    assert done.returncode == 1 and done.stderr == "", "what fails behind a step ends the script as before"
