"""kill -9 at random moments of publishing; every rerun ends with the same bytes, and no reader ever sees half a set.

    pytest test_publish_kills.py                 a few kills
    python test_publish_kills.py 100 [SEED]      as many as you like
"""
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import object_servers
import publish_runs
import pytest


def kill_runs(environment, kills, seed):
    generator = random.Random(seed)
    environment = publish_runs.environment_of_tool(environment)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "source"
        expected = publish_runs.make_folder(source)
        bucket = publish_runs.Bucket(environment, "kills-0")
        start = time.monotonic()
        assert publish_runs.run(["publish", source, bucket.address], environment).returncode == 0
        whole = time.monotonic() - start
        publish_runs.check_finished(bucket, expected)
        killed = finished_before = runs = 0
        while killed < kills:
            runs += 1
            bucket = publish_runs.Bucket(environment, f"kills-{runs}")
            # Several deaths before it may finish, each at a moment of its own.
            for _ in range(generator.randint(1, 3)):
                tool = subprocess.Popen([publish_runs.TOOL, "publish", str(source), bucket.address], env=environment,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    tool.wait(generator.uniform(0, whole * 1.1))
                    finished_before += 1
                except subprocess.TimeoutExpired:
                    tool.kill()
                    tool.wait()
                    killed += 1
                publish_runs.check_no_half_set(bucket, expected)
            done = publish_runs.run(["publish", source, bucket.address], environment)
            assert done.returncode == 0, done.stderr
            publish_runs.check_finished(bucket, expected)
            bucket.clear()
        return killed, finished_before, runs


@pytest.mark.parametrize("kind", ["seaweedfs"])
def test_kills(kind):
    try:
        with object_servers.start(kind) as environment:
            killed, _, _ = kill_runs(environment, kills=10, seed=1)
            assert killed >= 10
    except object_servers.Missing as missing:
        pytest.skip(f"{missing} is not installed (scripts/requirements.txt)")


if __name__ == "__main__":
    with object_servers.start("seaweedfs") as server:
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
        killed, finished_before, runs = kill_runs(server, int(sys.argv[1]), seed)
        print(f"seed {seed}: {killed} kills and {finished_before} runs that were faster, at {runs} destinations: all ended with the "
              "same bytes, no manifest of half a set, no orphan uploads")
