"""Faults at the n-th request: publishing and reading end in success or one clear error, and a rerun ends with the same bytes.

    pytest test_faults.py              every 11th request
    python test_faults.py 1            every request; a second argument "google" for the interface of Google Cloud Storage
"""
import pathlib
import re
import sys
import tempfile
import time

import fault_proxy
import object_servers
import publish_runs
import pytest

# What goes away by trying again; everything else may end in an error.
MUST_SUCCEED = {"503", "500", "reset", "reset_after", "cut", "slow"}
WORDS = {"403": ("PERMISSION_DENIED", "status=403"), "412": ("FAILED_PRECONDITION",), "expired": ("UNAUTHENTICATED", "expired token"),
         "409": ("ALREADY_EXISTS", "FAILED_PRECONDITION")}


@pytest.fixture(scope="module")
def server():
    try:
        with object_servers.start("seaweedfs") as environment:
            with fault_proxy.FaultProxy(environment["AWS_ENDPOINT_URL"]) as proxy:
                yield environment, proxy
    except object_servers.Missing as missing:
        pytest.skip(f"{missing} is not installed (scripts/requirements.txt)")


def endpoint_of(environment):
    return environment.get("GOOGLE_BASE_URL", environment["AWS_ENDPOINT_URL"])


def through(environment, proxy, **more):
    spoiled = {"AWS_ENDPOINT_URL": proxy.endpoint, "AWS_TIMEOUT": "2s"}
    if "GOOGLE_BASE_URL" in environment:
        spoiled = {"GOOGLE_BASE_URL": proxy.endpoint, "GOOGLE_TIMEOUT": "2s"}
    return publish_runs.environment_of_tool(environment, **spoiled, **more)


def check_error(kind, done):
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, f"want one line, got {lines}"
    assert kind not in MUST_SUCCEED, f"{kind} must be tried again: {lines[0]}"
    # Google's answer to a write on condition that nothing is there.
    words = WORDS[kind] + (("ALREADY_EXISTS",) if kind == "412" and "gs://" in lines[0] else ())
    assert any(word in lines[0] for word in words), lines[0]
    assert re.search("(s3|gs)://", lines[0]) and "http" not in lines[0].replace("https", ""), lines[0]


def publish_with_faults(environment, proxy, step):
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "source"
        expected = publish_runs.make_folder(source, shards=1)
        bucket = publish_runs.Bucket(environment, "faults")
        proxy.arm(None, 0)
        assert publish_runs.run(["publish", source, bucket.address], through(environment, proxy)).returncode == 0
        requests = proxy.count
        outcomes = {}
        for i, kind in enumerate(fault_proxy.KINDS):
            for at in range(1 + i % step, requests + 1, step):
                bucket.clear()
                proxy.arm(kind, at)
                done = publish_runs.run(["publish", source, bucket.address], through(environment, proxy))
                where = f"kind={kind} at={at} of {requests}: {done.stderr}"
                assert proxy.hits == 1 or done.returncode == 0, where
                finished = publish_runs.check_no_half_set(bucket, expected)
                if done.returncode == 0:
                    assert finished, where
                else:
                    try:
                        check_error(kind, done)
                    except AssertionError as error:
                        raise AssertionError(where) from error
                    proxy.arm(None, 0)
                    again = publish_runs.run(["publish", source, bucket.address], through(environment, proxy))
                    assert again.returncode == 0, where + again.stderr
                if kind == "slow":
                    # A request that the client has given up reaches the server afterwards; the next run sweeps what it left.
                    time.sleep(proxy.slow_seconds)
                    proxy.arm(None, 0)
                    publish_runs.run(["publish", source, bucket.address], through(environment, proxy))
                publish_runs.check_finished(bucket, expected)
                outcomes.setdefault(kind, []).append(done.returncode)
        return requests, {kind: (codes.count(0), len(codes)) for kind, codes in outcomes.items()}


def test_publishing_with_faults(server):
    print(publish_with_faults(*server, step=11))


def test_publishing_to_the_interface_of_google_with_faults():
    try:
        with object_servers.start("google") as environment, fault_proxy.FaultProxy(endpoint_of(environment)) as proxy:
            print(publish_with_faults(environment, proxy, step=41))
    except object_servers.Missing as missing:
        pytest.skip(f"{missing} is not installed (scripts/requirements.txt)")


def test_reading_with_faults(server):
    environment, proxy = server
    model = pathlib.Path(__file__).parent.parent / "golden" / "tiny" / "llama-sharded"
    bucket = publish_runs.Bucket(environment, "reading")
    for path in model.iterdir():
        bucket.s3.put_object(Bucket=object_servers.BUCKET, Key=f"{bucket.prefix}/{path.name}", Body=path.read_bytes())
    local = publish_runs.run(["weights", model], environment)
    assert local.returncode == 0, local.stderr
    proxy.arm(None, 0)
    assert publish_runs.run(["weights", bucket.address], through(environment, proxy)).stdout == local.stdout
    requests = proxy.count
    for i, kind in enumerate(fault_proxy.KINDS):
        for at in range(1 + i % 9, requests + 1, 9):
            proxy.arm(kind, at)
            done = publish_runs.run(["weights", bucket.address], through(environment, proxy))
            if done.returncode == 0:
                assert done.stdout == local.stdout, f"kind={kind} at={at}: other bytes"
            else:
                check_error(kind, done)


def test_a_server_that_never_recovers_is_one_error(server):
    environment, proxy = server
    for kind, words in (("503", "status=503"), ("reset", "no answer")):
        proxy.arm(kind, 1, forever=True)
        done = publish_runs.run(["verify", "s3://bearing-test/x"], through(environment, proxy, STORE_TOOL_RETRIES="2"))
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("UNAVAILABLE:") and words in line and "s3://bearing-test/x/manifest.json" in line, line


def test_no_server_and_wrong_keys_are_clear(server):
    environment, _ = server
    (port,) = object_servers.free_ports(1)
    nobody = {**environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "STORE_TOOL_RETRIES": "1"}
    done = publish_runs.run(["verify", "s3://bearing-test/x"], nobody)
    assert done.returncode == 1 and done.stderr.startswith("UNAVAILABLE:") and "no answer" in done.stderr, done.stderr
    plain_http = {**environment, "AWS_ALLOW_HTTP": "false", "STORE_TOOL_RETRIES": "1"}
    assert publish_runs.run(["verify", "s3://bearing-test/x"], plain_http).returncode == 1
    missing = publish_runs.run(["verify", "s3://bearing-no-such-bucket/x"], environment)
    assert missing.returncode == 1 and missing.stderr.startswith("NOT_FOUND:"), missing.stderr


def test_credentials_are_never_shown(server):
    environment, _ = server
    canaries = {"AWS_SECRET_ACCESS_KEY": "canary-secret-value", "AWS_SESSION_TOKEN": "canary-token-value",
                "AWS_ACCESS_KEY_ID": "AKIDCANARYVALUE"}
    for extra in ({}, {"AWS_REGION": "canary-secret-value"}, {"AWS_ENDPOINT_URL": "http://canary-token-value.invalid"}):
        for command in (["verify", "s3://bearing-test/x"], ["weights", "s3://bearing-test/x"],
                        ["verify", "s3://user:canary-secret-value@bearing-test/x"]):
            done = publish_runs.run(command, {**environment, **canaries, **extra, "STORE_TOOL_RETRIES": "1"})
            assert done.returncode == 1
            for canary in canaries.values():
                assert canary not in done.stdout + done.stderr, done.stderr


def test_credentials_of_the_shared_file_are_used(server, tmp_path):
    environment, _ = server
    plain = {k: v for k, v in environment.items() if k not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[other]\naws_access_key_id = x\n[test]\naws_access_key_id = {object_servers.KEY_ID}\n"
                           f"aws_secret_access_key = {object_servers.SECRET}\n")
    plain |= {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_PROFILE": "test"}
    done = publish_runs.run(["verify", "s3://bearing-test/x"], plain)
    assert done.stderr.startswith("NOT_FOUND:"), done.stderr


if __name__ == "__main__":
    with object_servers.start(sys.argv[2] if len(sys.argv) > 2 else "seaweedfs") as real:
        with fault_proxy.FaultProxy(endpoint_of(real)) as spoiling:
            print(publish_with_faults(real, spoiling, step=int(sys.argv[1]) if len(sys.argv) > 1 else 1))
