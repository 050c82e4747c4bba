"""Faults at the n-th request of a whole `bearing edit` from a bucket to a bucket: success or one clear error, and a rerun ends with
the same bytes.

    pytest test_edit_faults.py              every 53rd request
    python test_edit_faults.py 1            every request
    python test_edit_faults.py 1 cut slow   of these kinds alone
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

import support

sys.path.insert(0, str(support.ROOT / "tests" / "storage"))
import fault_proxy  # noqa: E402
import object_servers  # noqa: E402
import publish_runs  # noqa: E402

MODEL = support.TINY / "llama-sharded"
DIRECTION = support.TINY / "directions" / "llama-sharded.safetensors"
# What goes away by trying again; everything else may end in an error.
MUST_SUCCEED = {"503", "500", "reset", "reset_after", "cut", "slow"}
# An expired token is named as the store names it, or by us. What 409 and 412 mean depends on the request: somebody else was first, or an object changed while it was read.
WORDS = {"403": "status=403", "expired": "xpired", "409": "", "412": ""}


def edit(environment, model, out):
    # Some shards change, some are copied inside the store.
    command = [support.BIN / "bearing", "edit", "--model", model, "--direction", DIRECTION, "--layers", "0-1", "--out", out]
    done = subprocess.run(list(map(str, command)), env={**environment, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300)
    for secret in (object_servers.SECRET, object_servers.KEY_ID):
        assert secret not in done.stdout + done.stderr, "a credential was printed"
    return done


def check_error(kind, done):
    (line,) = done.stderr.strip().splitlines()
    assert kind not in MUST_SUCCEED, f"{kind} must be tried again: {line}"
    assert WORDS[kind] in line and "s3://" in line, line
    assert done.returncode in (1, 2, 4, 5, 6), done.returncode


def edit_with_faults(environment, proxy, step, folder, kinds=fault_proxy.KINDS):
    local = folder / "expected"
    done = edit(environment, MODEL, local)
    assert done.returncode == 0, done.stderr
    expected = {p.relative_to(local).as_posix(): support.sha256(p) for p in local.rglob("*") if p.is_file()}
    model = publish_runs.Bucket(environment, "fault-models/llama-sharded")
    for path in MODEL.iterdir():
        model.s3.put_object(Bucket=object_servers.BUCKET, Key=f"{model.prefix}/{path.name}", Body=path.read_bytes())
    bucket = publish_runs.Bucket(environment, "edit-faults")
    through = {**environment, "AWS_ENDPOINT_URL": proxy.endpoint, "AWS_TIMEOUT": "2s"}
    proxy.arm(None, 0)
    done = edit(through, model.address, bucket.address)
    assert done.returncode == 0, done.stderr
    requests = proxy.count
    assert bucket.hashes() == expected and bucket.uploads() == []
    outcomes = {}
    for i, kind in enumerate(kinds):
        for at in range(1 + i % step, requests + 1, step):
            bucket.clear()
            proxy.arm(kind, at)
            done = edit(through, model.address, bucket.address)
            where = f"kind={kind} at={at} of {requests}: {done.stderr}"
            assert proxy.hits == 1 or done.returncode == 0, where
            finished = publish_runs.check_no_half_set(bucket, expected)
            if done.returncode == 0:
                assert finished, where
            else:
                try:
                    check_error(kind, done)
                except (AssertionError, ValueError) as error:
                    raise AssertionError(where) from error
                proxy.arm(None, 0)
                again = edit(through, model.address, bucket.address)
                # A fault behind the last step leaves a finished set, which is not written over.
                assert again.returncode == 0 or (finished and again.returncode == 6), where + again.stderr
            if kind == "slow":
                # A request that the client has given up reaches the server afterwards.
                time.sleep(proxy.slow_seconds)
            found = {name: digest for name, digest in bucket.hashes().items() if not name.startswith(".attempts/")}
            assert found == expected, where
            if kind != "slow":
                assert bucket.hashes() == expected and bucket.uploads() == [], where
            outcomes.setdefault(kind, []).append(done.returncode)
    return requests, {kind: (codes.count(0), len(codes)) for kind, codes in outcomes.items()}


def test_edits_with_faults(tmp_path):
    try:
        with object_servers.start("seaweedfs") as environment:
            with fault_proxy.FaultProxy(environment["AWS_ENDPOINT_URL"]) as proxy:
                print(edit_with_faults(environment, proxy, 53, tmp_path))
    except object_servers.Missing as missing:
        pytest.skip(f"{missing} is not installed (scripts/requirements.txt)")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder, object_servers.start("seaweedfs") as real:
        with fault_proxy.FaultProxy(real["AWS_ENDPOINT_URL"]) as spoiling:
            print(edit_with_faults(real, spoiling, int(sys.argv[1]) if len(sys.argv) > 1 else 1, pathlib.Path(folder),
                                   sys.argv[2:] or fault_proxy.KINDS))
