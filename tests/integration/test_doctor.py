"""`bearing doctor` with the built programs: a machine that works, and one thing broken at a time."""

import contextlib
import email.utils
import json
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import service
import support

SECRET = "AbCdEfSecretKey0123456789"


def doctor(*arguments, environment=None, program=support.BIN / "bearing"):
    done = subprocess.run([program, "doctor", "-o", "json", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=180, env={**support.environment(), **(environment or {})})
    assert SECRET not in done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0) and done.returncode in (0, 1), done.stderr
    for check in answer["checks"]:
        assert (check["mend"] != "") == (check["result"] in ("warning", "broken")), check
    return {check["check"]: check for check in answer["checks"]}


def broken(checks):
    return {name for name, check in checks.items() if check["result"] == "broken"}


@contextlib.contextmanager
def store(code, ahead=0.0):
    """A store that answers every request with one code, and whose clock is `ahead` seconds ahead."""
    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response_only(code)
            self.send_header("Date", email.utils.formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
               "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_machine_that_works(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    checks = doctor("--ranks", 2, "--device", "cpu", "--storage", tmp_path, "--write", "--out", tmp_path, "--listen",
                    f"127.0.0.1:{port}")
    assert not broken(checks)
    assert checks["ranks"]["result"] == "ok" and checks["ranks"]["found"].startswith("2 started")
    assert checks["device"]["found"] == "cpu"
    assert checks[f"storage {tmp_path}"]["found"] == "written, read and deleted"
    assert checks[f"port 127.0.0.1:{port}"]["result"] == "ok"
    assert not os.listdir(tmp_path)


def test_the_table_ends_with_what_to_mend(tmp_path):
    done = support.bearing("doctor", "--ranks", 1, "--out", tmp_path / "missing")
    assert done.code == 1, done.text
    assert done.out.startswith("CHECK") and f"  output: make the folder" in done.out.split("To mend:")[1], done.text


def test_broken_things_are_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checks = doctor("--ranks", 1, "--listen", f"127.0.0.1:{port}", "--server", "127.0.0.1:1")
    assert broken(checks) == {f"port 127.0.0.1:{port}", "server 127.0.0.1:1"}


def make_certificate(folder, name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
                    f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out",
                    folder / f"{name}.pem"], check=True, capture_output=True, timeout=60)


def test_a_server_with_tls_and_tokens(tmp_path):
    for name in ("server", "stranger"):
        make_certificate(tmp_path, name)
    for name, tokens in (("alice", "tokens"), ("mallory", "other-tokens")):
        made = support.bearing("token", "create", "--name", name, "--scope", "read", "--out", tmp_path / name, "--append",
                               tmp_path / tokens)
        assert made.code == 0, made.text
    coordinator = service.Coordinator(tmp_path, "--tls-cert", tmp_path / "server.pem", "--tls-key", tmp_path / "server.key",
                                      "--token-file", tmp_path / "tokens")
    server = coordinator.server

    def check(*arguments):
        # Without mpirun the doctor is soon done with everything else.
        return doctor("--server", server, *arguments, environment={"PATH": str(tmp_path)})[f"server {server}"]

    try:
        right = ("--ca-file", tmp_path / "server.pem", "--token-file", tmp_path / "alice")
        assert check(*right)["result"] == "ok" and "version" in check(*right)["found"]
        for wrong, mend in ((("--token-file", tmp_path / "alice"), "--ca-file"),
                            (("--ca-file", tmp_path / "stranger.pem", "--token-file", tmp_path / "alice"), "--ca-file"),
                            (right[:2], "--token-file"),
                            ((*right[:2], "--token-file", tmp_path / "mallory"), "--token-file")):
            found = check(*wrong)
            assert found["result"] == "broken" and mend in found["mend"], (wrong, found)
        # The certificate is replaced while the server runs: the old CA is wrong from then on, the new one right.
        make_certificate(tmp_path, "next")
        (tmp_path / "old.pem").write_bytes((tmp_path / "server.pem").read_bytes())
        for ending in ("key", "pem"):
            (tmp_path / f"next.{ending}").replace(tmp_path / f"server.{ending}")
        service.wait_for(lambda: "certificates read again" in coordinator.log, lambda: coordinator.log, 10)
        assert check(*right)["result"] == "ok"
        assert check("--ca-file", tmp_path / "old.pem", "--token-file", tmp_path / "alice")["result"] == "broken"
    finally:
        assert coordinator.stop() == 0


def test_a_worker_that_does_not_start(tmp_path):
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\necho 'bearing-worker: error: no luck today' >&2\nexit 3\n")
    worker.chmod(0o755)
    checks = doctor(environment={"BEARING_WORKER": str(worker)})
    assert broken(checks) == {"ranks"}
    assert "exit status 3" in checks["ranks"]["found"] and "no luck today" in checks["ranks"]["found"]


def test_no_mpirun(tmp_path):
    checks = doctor(environment={"PATH": str(tmp_path)})
    assert broken(checks) == {"mpirun"}
    assert "openmpi-bin" in checks["mpirun"]["mend"]


def test_a_missing_gpu_counts_where_one_is_asked_for():
    if doctor("--ranks", 1)["device"]["found"].split()[0] != "cpu":
        pytest.skip("a GPU is here")
    checks = doctor("--ranks", 1, "--device", "cuda")
    assert broken(checks) == {"ranks", "gpu driver"}


@pytest.mark.parametrize("code, result, word", [(404, "ok", "reached"), (403, "broken", "403"), (401, "broken", "401")])
def test_buckets(code, result, word):
    with store(code) as environment:
        checks = doctor("--ranks", 1, "--storage", "s3://bucket/folder", environment=environment)
    check = checks["storage s3://bucket/folder"]
    assert check["result"] == result and word in check["found"], check
    # The store's clock is compared without being asked for.
    assert checks["clock"]["result"] == "ok"


@pytest.mark.parametrize("ahead, result, words", [(0, "ok", "as that of"), (30, "warning", "30 s behind"), (-30, "warning", "ahead of"),
                                                  (3600, "broken", "s behind")])
def test_clocks(ahead, result, words):
    with store(400, ahead) as environment:
        checks = doctor("--ranks", 1, "--clock", environment["AWS_ENDPOINT_URL"])
    assert checks["clock"]["result"] == result, checks["clock"]
    assert words in checks["clock"]["found"].replace("29 s", "30 s"), checks["clock"]
