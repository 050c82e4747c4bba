"""kill -9 at random moments of `bearing edit`, to a folder and to a bucket: every rerun ends with the same bytes, and no reader ever
sees an incomplete set as a finished one.

    pytest test_edit_kills.py                           a few kills
    python test_edit_kills.py --kills 100 [--seed N]    as many as you like, each way; prints what came of them
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

import support

sys.path[:0] = [str(support.ROOT / "tests" / "storage"), str(support.ROOT / "tests" / "benchmarks")]
import edit_speed  # noqa: E402
import object_servers  # noqa: E402
import publish_runs  # noqa: E402


def make_model(folder, megabytes):
    """A Llama of many small shards, and a direction beside it."""
    edit_speed.SHAPES["kills"] = (1024, 2816, 1024, 256, 4096)
    edit_speed.SHARD_BYTES = 12_000_000
    edit_speed.make_model(folder, "kills", megabytes * 1_000_000)
    for name in ("tokenizer.json", "generation_config.json"):
        (folder / name).write_text("{}")
    return folder.parent / "direction.safetensors"


def hashes(folder):
    return {p.relative_to(folder).as_posix(): support.sha256(p) for p in folder.rglob("*") if p.is_file()}


class Folder:
    """A destination on this machine, as a reader sees it."""

    def __init__(self, path):
        self.path = self.address = path

    def check_no_half_set(self, expected):
        # Its name is all that says that it is finished.
        if not self.path.exists():
            return False
        assert hashes(self.path) == expected, "an incomplete folder has its name"
        return True

    def check_finished(self, expected):
        assert hashes(self.path) == expected
        assert not pathlib.Path(f"{self.path}.partial").exists()

    def is_begun(self):
        return any(pathlib.Path(f"{self.path}.partial").glob(".note-*"))

    def clear(self):
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(f"{self.path}.partial", ignore_errors=True)


class Bucket(publish_runs.Bucket):
    def is_begun(self):
        return bool(self.keys())

    def check_no_half_set(self, expected):
        return publish_runs.check_no_half_set(self, expected)

    def check_finished(self, expected):
        found = self.hashes()
        assert found == expected, "other files than those of the set"
        assert self.uploads() == [], "orphan uploads"


class Editor:
    def __init__(self, model, direction, environment):
        self.model, self.direction, self.environment = model, direction, environment

    def start(self, out, ranks, processes=False):
        """`processes`: ranks are processes that MPI starts, not threads of one."""
        mark = "-" + uuid.uuid4().hex
        what = ["--model", self.model, "--direction", self.direction, "--out", out]
        if processes:
            command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", ranks, support.BIN / "bearing-worker",
                       "edit", "--json", *what]
        else:
            command = [support.BIN / "bearing", "-o", "json", "edit", "--ranks", ranks, *what]
        environment = {**self.environment, support.MARK: support.SESSION + mark, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(list(map(str, command)), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        return process, support.SESSION + mark

    def run(self, out, ranks):
        process, _ = self.start(out, ranks)
        text, errors = process.communicate(timeout=300)
        return process.returncode, text, errors

    def kill_after(self, begun, seconds, out, ranks, generator):
        """Kills it so long after `begun`. True when it was killed, False when it was faster."""
        process, mark = self.start(out, ranks, processes=ranks > 1 and generator.random() < 0.5)
        while process.poll() is None and not begun():
            time.sleep(0.002)
        try:
            process.communicate(timeout=seconds)
            return False
        except subprocess.TimeoutExpired:
            victims = support.processes(mark)
            # The whole group, or one of it: the others end by themselves.
            if generator.random() < 0.5 and victims:
                victims = [generator.choice(victims)]
            for victim in victims:
                victim.kill()
            process.communicate(timeout=60)
            assert support.wait_until_gone(mark, 60) == []
            return True


def kill_runs(editor, places, expected, kills, seed):
    """`places` gives new destinations. The number of kills, of faster runs, of destinations, and of reruns that kept something."""
    generator = random.Random(seed)
    place = next(places)
    process, _ = editor.start(place.address, 1)
    start = time.monotonic()
    while process.poll() is None and not place.is_begun():
        time.sleep(0.002)
    begin = time.monotonic() - start
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    whole = time.monotonic() - start
    place.check_finished(expected)
    place.clear()
    killed = faster = runs = resumed = 0
    while killed < kills:
        runs += 1
        place = next(places)
        finished = False
        # Several deaths before it may finish, each at a moment of its own and with as many ranks as it likes.
        for _ in range(generator.randint(1, 3)):
            # Most of the time goes by before the first byte is written: two of three kills come behind it.
            if generator.random() < 0.33:
                begun, seconds = (lambda: True), generator.uniform(0, 1.1) * whole
            else:
                begun, seconds = place.is_begun, generator.uniform(0, 1.1) * (whole - begin)
            if editor.kill_after(begun, seconds, place.address, generator.choice((1, 1, 2)), generator):
                killed += 1
            else:
                faster += 1
            finished = place.check_no_half_set(expected)
        code, text, errors = editor.run(place.address, generator.choice((1, 2)))
        # Exit code 6: the finished set of a run that died, or ended, behind the last step.
        assert code == 0 or (code == 6 and finished), errors
        if code == 0:
            resumed += json.loads(text)["bytes_kept"] > 0
        place.check_finished(expected)
        place.clear()
    assert resumed > 0 or kills < 30, "nothing was ever kept: the kills come at the wrong moments"
    return f"seed {seed}: {killed} kills and {faster} runs that were faster, at {runs} destinations, {resumed} of them resumed"


def expected_of(editor, folder):
    code, _, errors = editor.run(folder / "expected", 1)
    assert code == 0, errors
    return hashes(folder / "expected")


def folder_kills(folder, megabytes, kills, seed):
    editor = Editor(folder / "model", make_model(folder / "model", megabytes), os.environ)
    places = (Folder(folder / f"out-{i}") for i in range(1 << 30))
    return kill_runs(editor, places, expected_of(editor, folder), kills, seed)


def bucket_kills(environment, folder, megabytes, kills, seed):
    editor = Editor(folder / "model", make_model(folder / "model", megabytes), environment)
    places = (Bucket(environment, f"edit-kills-{i}") for i in range(1 << 30))
    return kill_runs(editor, places, expected_of(editor, folder), kills, seed)


def test_kills_of_an_edit_to_a_folder(tmp_path):
    print(folder_kills(tmp_path, 120, kills=6, seed=1))


def test_kills_of_an_edit_to_a_bucket(tmp_path):
    try:
        with object_servers.start("seaweedfs") as environment:
            print(bucket_kills(environment, tmp_path, 120, kills=6, seed=2))
    except object_servers.Missing as missing:
        pytest.skip(f"{missing} is not installed (scripts/requirements.txt)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--megabytes", type=int, default=240)
    parser.add_argument("--folder", type=pathlib.Path, help="where the disk is to be used (default: TMPDIR)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print("folder:", folder_kills(pathlib.Path(folder), arguments.megabytes, arguments.kills, arguments.seed), flush=True)
    for part in range(0, arguments.kills, 40):
        # A server of its own: what is deleted takes room in it until it cleans up, which is seldom.
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, object_servers.start("seaweedfs") as environment:
            kills = min(40, arguments.kills - part)
            print("bucket:", bucket_kills(environment, pathlib.Path(folder), arguments.megabytes, kills, arguments.seed + part),
                  flush=True)


if __name__ == "__main__":
    main()
