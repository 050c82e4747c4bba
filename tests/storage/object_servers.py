"""Object stores for tests, on free loopback ports: SeaweedFS (a real server), moto (S3 in Python), Azurite (Azure's emulator, where
scripts/get_azurite has been run), and SeaweedFS behind a gateway that speaks as Google Cloud Storage does (gcs_gateway.py).

    with object_servers.start("seaweedfs") as environment: subprocess.run(..., env=environment)
    python object_servers.py seaweedfs COMMAND ARGUMENTS...     exit status 77 when the server's package is not installed

The environment holds AWS_* for Bearing and boto3, or AZURE_* or GOOGLE_* for Bearing, and BEARING_TEST_STORE, the address of an empty bucket.
"""
import base64
import contextlib
import ctypes
import email.utils
import hashlib
import hmac
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import gcs_gateway

BUCKET = "bearing-test"
KEY_ID, SECRET = "AKIDBEARINGTEST", "bearing-test-secret-0123456789"
SKIPPED = 77
# The account of the emulator, which its documentation publishes.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Missing(Exception):
    """The server's package is not installed."""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def program(name):
    path = pathlib.Path(sys.executable).parent / name
    if not path.exists():
        raise Missing(name)
    return str(path)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def seaweedfs(folder, signed=True):
    names = ("master", "volume", "filer", "s3")
    ports = dict(zip([n for name in names for n in (name + ".port", name + ".port.grpc")], free_ports(8)))
    config = folder / "s3.json"
    identity = {"name": "test", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    anonymous = [] if signed else [{"name": "anonymous", "actions": identity["actions"]}]
    config.write_text(json.dumps({"identities": [identity, *anonymous]}))
    command = [program("weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
               f"-s3.config={config}", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=512", "-volume.max=60"]
    return command + [f"-{name}={port}" for name, port in ports.items()], ports["s3.port"]


def google(folder):
    return seaweedfs(folder, signed=False)


def moto(folder):
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise Missing("moto")
    (port,) = free_ports(1)
    return [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port


def azurite(folder):
    node = shutil.which("node")
    # Beside the environment of this interpreter, in the cache.
    main = pathlib.Path(sys.executable).parents[2] / "azurite/node_modules/azurite/dist/src/blob/main.js"
    if node is None or not main.exists():
        raise Missing("azurite")
    (port,) = free_ports(1)
    return [node, str(main), "--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck", "--blobHost",
            "127.0.0.1", "--blobPort", str(port)], port


def create_container(port):
    """One request, signed as Azure asks for (shared key)."""
    path, date, version = f"/{AZURE_ACCOUNT}/{BUCKET}", email.utils.formatdate(usegmt=True), "2021-08-06"
    text = "\n".join(["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}", f"/{AZURE_ACCOUNT}{path}",
                      "restype:container"])
    signature = base64.b64encode(hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}?restype=container", method="PUT",
        headers={"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}",
                 "Content-Length": "0"})
    urllib.request.urlopen(request, timeout=60).close()


def create_bucket(environment):
    s3 = client(environment)
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
    s3.delete_object(Bucket=BUCKET, Key="probe")


def settings(kind, port):
    """What Bearing and its tests read from the environment."""
    if kind == "azurite":
        return {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{port}",
                "BEARING_TEST_STORE": f"az://{BUCKET}"}
    if kind == "google":
        # An account that asks nobody for a token.
        account = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True}
        # With what boto3 needs to look into the server behind the gateway.
        return {**settings("seaweedfs", port), "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true",
                "BEARING_TEST_STORE": f"gs://{BUCKET}"}
    return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "BEARING_TEST_STORE": f"s3://{BUCKET}"}


def client(environment):
    import boto3
    from botocore.config import Config
    return boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id=KEY_ID,
                        aws_secret_access_key=SECRET, region_name="us-east-1",
                        config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=60))


@contextlib.contextmanager
def start(kind, endpoint=None):
    """Yields the environment of a fresh server with an empty bucket."""
    if kind != "azurite" and importlib.util.find_spec("boto3") is None:
        raise Missing("boto3")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearing-store-"))
    server = None
    stack = contextlib.ExitStack()
    try:
        command, port = {"seaweedfs": seaweedfs, "moto": moto, "azurite": azurite, "google": google}[kind](folder)
        with open(folder / "log", "w") as log:
            server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, preexec_fn=die_with_parent)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "AZURE_", "GOOGLE_"))}
        environment.update(settings(kind, port), BEARING_TEST_STORE_KIND=kind)
        for attempt in range(120):
            try:
                if attempt:
                    time.sleep(0.5)
                create_container(port) if kind == "azurite" else create_bucket(environment)
                break
            except Exception:
                if server.poll() is not None or attempt == 119:
                    raise RuntimeError(f"{kind} does not come up:\n" + (folder / "log").read_text()[-3000:])
        if kind == "google":
            gateway = stack.enter_context(gcs_gateway.Gateway(f"http://127.0.0.1:{port}"))
            environment["GOOGLE_BASE_URL"] = gateway.endpoint
        yield environment
    finally:
        stack.close()
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    try:
        with start(sys.argv[1]) as environment:
            return subprocess.run(sys.argv[2:], env=environment).returncode
    except Missing as missing:
        print(f"skipped: {missing} is not installed (scripts/requirements.txt, scripts/get_azurite)")
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
