#!/usr/bin/env python3
"""Runs the commands of docs/scaling.md again and puts what they print below them: scripts/make_scaling_tables.py [build/bin]

In the page, a block ```sh with one command that starts with build/bin/bearing is followed by a block ```text with its output.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/scaling.md"
BLOCK = re.compile(r"```sh\n(build/bin/bearing .*?)\n```\n\n```text\n.*?```", re.DOTALL)


def main():
    bin_ = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/bin").resolve()

    def run(match):
        words = shlex.split(match.group(1).replace("\\\n", " "))
        done = subprocess.run([bin_ / "bearing", *words[1:]], cwd=ROOT, check=True, capture_output=True, text=True,
                              env={**os.environ, "COLUMNS": "200"})
        return f"```sh\n{match.group(1)}\n```\n\n```text\n{done.stdout.rstrip()}\n```"

    text, count = BLOCK.subn(run, PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {count} tables")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
