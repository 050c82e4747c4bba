"""Models, prompts and edited checkpoints in a bucket of a real S3 server, against the same things in folders: equal bit for bit."""
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import uuid

import pytest
import service
import support

sys.path.insert(0, str(support.ROOT / "tests" / "storage"))
import fault_proxy  # noqa: E402
import object_servers  # noqa: E402

MODEL = support.TINY / "llama-sharded"
DIRECTION = support.TINY / "directions" / "llama-sharded.safetensors"


@pytest.fixture(scope="module")
def server():
    try:
        with object_servers.start("seaweedfs") as environment:
            before = dict(os.environ)
            os.environ.update(environment)
            yield object_servers.client(environment)
            os.environ.clear()
            os.environ.update(before)
    except object_servers.Missing as missing:
        pytest.skip(f"{missing} is not installed (scripts/requirements.txt)")


def upload(s3, folder, prefix):
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put_object(Bucket=object_servers.BUCKET, Key=f"{prefix}/{path.relative_to(folder).as_posix()}", Body=path.read_bytes())
    return f"s3://{object_servers.BUCKET}/{prefix}"


def hashes_in_bucket(s3, prefix):
    page = s3.list_objects_v2(Bucket=object_servers.BUCKET, Prefix=prefix + "/")
    assert not page["IsTruncated"]
    found = {}
    for item in page.get("Contents", []):
        body = s3.get_object(Bucket=object_servers.BUCKET, Key=item["Key"])["Body"].read()
        found[item["Key"][len(prefix) + 1:]] = hashlib.sha256(body).hexdigest()
    return found


def hashes_in_folder(folder):
    return {p.relative_to(folder).as_posix(): support.sha256(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def model_address(server):
    return upload(server, MODEL, "models/llama-sharded")


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_edit_from_bucket_to_bucket(server, model_address, tmp_path, ranks):
    arguments = ["edit", "--direction", DIRECTION, "--ranks", ranks]
    local = support.bearing(*arguments, "--model", MODEL, "--out", tmp_path / "edited")
    assert local.code == 0, local.text
    prefix = f"edited-{ranks}"
    remote = support.bearing(*arguments, "--model", model_address, "--out", f"s3://{object_servers.BUCKET}/{prefix}")
    assert remote.code == 0, remote.text
    assert hashes_in_bucket(server, prefix) == hashes_in_folder(tmp_path / "edited")
    uploads = server.list_multipart_uploads(Bucket=object_servers.BUCKET)
    assert not uploads.get("Uploads"), "orphan uploads"
    # What was published is a model like any other, and is not written over.
    again = support.bearing(*arguments, "--model", MODEL, "--out", f"s3://{object_servers.BUCKET}/{prefix}")
    assert again.code == 6 and "finished set" in again.err, again.text
    if ranks == 1:
        dry = support.bearing(*arguments, "--model", f"s3://{object_servers.BUCKET}/{prefix}", "--dry-run")
        assert dry.code == 0, dry.text


@pytest.mark.parametrize("ranks", [1, 2])
def test_job_with_model_and_prompts_in_a_bucket(server, model_address, tmp_path, ranks):
    prompts = support.write_prompts(tmp_path / "prompts")
    local_job = support.write_job(tmp_path / "local.json", MODEL, prompts)
    local = support.run_job(local_job, tmp_path / "local", ranks)
    assert local.code == 0, local.text

    address = upload(server, prompts, f"prompts-{ranks}")
    spec = support.job_spec(MODEL, prompts)
    spec["model"]["path"] = model_address
    spec["prompts"] = {side: {name: {"file": f"{address}/{side}_{name}.json"} for name in support.SETS} for side in support.SIDES}
    remote = support.run_job(support.write_json(tmp_path / "remote.json", spec), tmp_path / "remote", ranks)
    assert remote.code == 0, remote.text

    # All that is not a report of times and paths.
    for name in support.files_below(tmp_path / "local"):
        if name.endswith(".safetensors") or name in ("candidates.json", "completions.jsonl", "evaluation.json", "collect.json"):
            assert support.sha256(tmp_path / "local" / name) == support.sha256(tmp_path / "remote" / name), name
    assert "checkpoint/model.safetensors.index.json" in support.files_below(tmp_path / "remote")


def test_shards_without_a_change_are_copied_inside_the_store(server, model_address, tmp_path):
    arguments = ["-o", "json", "edit", "--direction", DIRECTION, "--layers", "0-0"]
    local = support.bearing(*arguments, "--model", MODEL, "--out", tmp_path / "edited")
    assert local.code == 0, local.text
    remote = support.bearing(*arguments, "--model", model_address, "--out", f"s3://{object_servers.BUCKET}/few-layers")
    assert remote.code == 0, remote.text
    assert hashes_in_bucket(server, "few-layers") == hashes_in_folder(tmp_path / "edited")
    told = json.loads(remote.out)
    assert told["bytes_cloned"] > 0 and told["bytes_written"] > 0
    assert told["bytes_cloned"] + told["bytes_written"] == sum(p.stat().st_size for p in (tmp_path / "edited").glob("*.safetensors"))


def test_quantized_weights_to_a_bucket(server, tmp_path):
    """Their scales are made a second time, to measure what is written."""
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file
    model = tmp_path / "model"
    shutil.copytree(support.TINY / "qwen2-untied", model)
    tensors, small = load_file(model / "model.safetensors"), {}
    for name, w in tensors.items():
        if "_proj.weight" in name:
            scale = w.abs().amax(1, keepdim=True) / 448
            small[name], small[name + "_scale"] = (w / scale).to(torch.float8_e4m3fn), scale
        else:
            small[name] = w
    save_file(small, model / "model.safetensors", metadata={"format": "pt"})
    config = support.read_json(model / "config.json")
    config["quantization_config"] = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}
    support.write_json(model / "config.json", config)
    arguments = ["edit", "--model", model, "--direction", support.TINY / "directions" / "qwen2-untied.safetensors"]
    local = support.bearing(*arguments, "--out", tmp_path / "edited")
    assert local.code == 0, local.text
    remote = support.bearing(*arguments, "--out", f"s3://{object_servers.BUCKET}/quantized")
    assert remote.code == 0, remote.text
    there, here = hashes_in_bucket(server, "quantized"), hashes_in_folder(tmp_path / "edited")
    assert there.keys() == here.keys() and there["model.safetensors"] == here["model.safetensors"]
    record = json.loads(server.get_object(Bucket=object_servers.BUCKET, Key="quantized/bearing.json")["Body"].read())["verification"]
    wanted = support.read_json(tmp_path / "edited" / "bearing.json")["verification"]
    assert record["tensors"] == wanted["tensors"] and len(wanted["tensors"]) > 0
    assert record["quantization_error"]["all"] == pytest.approx(wanted["quantization_error"]["all"], rel=1e-9)


def test_direction_and_mean_at_addresses(server, tmp_path):
    upload(server, DIRECTION.parent, "directions")
    address = f"s3://{object_servers.BUCKET}/directions/{DIRECTION.name}"
    hashes = []
    for name, direction in (("path", DIRECTION), ("bucket", address), ("file", f"file://{DIRECTION}")):
        done = support.bearing("edit", "--model", MODEL, "--direction", direction, "--out", tmp_path / name, "--ranks", 2)
        assert done.code == 0, done.text
        hashes.append(hashes_in_folder(tmp_path / name))
    assert hashes[0] == hashes[1] == hashes[2]
    done = support.bearing("edit", "--model", MODEL, "--direction", address + "-none", "--out", tmp_path / "out")
    assert done.code == 3 and address + "-none" in done.err and not (tmp_path / "out").exists(), done.text


def test_overwrite_replaces_the_set_and_nothing_else_does(server, tmp_path):
    place = f"s3://{object_servers.BUCKET}/replaced"
    arguments = ["edit", "--model", MODEL, "--direction", DIRECTION]
    for out, found in ((tmp_path / "out", lambda: hashes_in_folder(tmp_path / "out")), (place, lambda: hashes_in_bucket(server, "replaced"))):
        assert support.bearing(*arguments, "--out", out).code == 0
        before = found()
        again = support.bearing(*arguments, "--out", out, "--strength", "0.5")
        assert again.code == 6 and found() == before, again.text
        replaced = support.bearing(*arguments, "--out", out, "--strength", "0.5", "--overwrite")
        assert replaced.code == 0, replaced.text
        assert found().keys() == before.keys() and found() != before
    assert hashes_in_bucket(server, "replaced") == hashes_in_folder(tmp_path / "out")
    # What is no model is left alone.
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    done = support.bearing(*arguments, "--out", tmp_path / "notes", "--overwrite")
    assert done.code == 6 and (tmp_path / "notes" / "text").read_text() == "mine", done.text
    done = support.bearing(*arguments, "--out", MODEL, "--overwrite")
    assert done.code == 2 and "folder of the model itself" in done.err, done.text


SAME_IN_EVERY_RUN = ("candidates.json", "completions.jsonl", "evaluation.json", "collect.json")


def check_like(server, prefix, folder):
    """A job's set in the bucket against its folder: all that is not a report of times and paths."""
    remote, local = hashes_in_bucket(server, prefix), hashes_in_folder(folder)
    wanted = {name: digest for name, digest in local.items() if not name.startswith(".bearing/")}
    assert remote.keys() == wanted.keys()
    for name, digest in wanted.items():
        if name.endswith(".safetensors") or name in SAME_IN_EVERY_RUN:
            assert remote[name] == digest, name
    manifest = json.loads(server.get_object(Bucket=object_servers.BUCKET, Key=f"{prefix}/manifest.json")["Body"].read())
    assert {entry["name"]: entry["sha256"] for entry in manifest["files"]} == {k: v for k, v in remote.items() if k != "manifest.json"}
    assert not server.list_multipart_uploads(Bucket=object_servers.BUCKET).get("Uploads"), "orphan uploads"


@pytest.mark.parametrize("ranks", [1, 2])
def test_job_with_its_output_in_a_bucket(server, tmp_path, monkeypatch, ranks):
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setenv("BEARING_STAGING", str(staging))
    prompts = support.write_prompts(tmp_path / "prompts")
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    local = support.run_job(job, tmp_path / "local", ranks)
    assert local.code == 0, local.text
    place = f"s3://{object_servers.BUCKET}/job-{ranks}"
    remote = support.run_job(job, place, ranks)
    assert remote.code == 0 and f"{place}/report.html" in remote.out and f"{place}/checkpoint" in remote.out, remote.text
    check_like(server, f"job-{ranks}", tmp_path / "local")
    assert list(staging.iterdir()) == [], "the work folder was left behind"
    again = support.run_job(job, place, ranks)
    assert again.code != 0 and "finished set" in again.err and list(staging.iterdir()) == [], again.text
    # The checkpoint in it is a model.
    assert support.bearing("edit", "--model", f"{place}/checkpoint", "--direction", DIRECTION, "--dry-run").code == 0


def test_killed_job_resumes_and_publishes(server, tmp_path, monkeypatch):
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setenv("BEARING_STAGING", str(staging))
    prompts = support.write_prompts(tmp_path / "prompts")
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    local = support.run_job(job, tmp_path / "local", 1)
    assert local.code == 0, local.text
    place = f"s3://{object_servers.BUCKET}/killed-job"
    command = [support.BIN / "bearing", "run", job, "--out", place, "--ranks", "1", "--threads", "1"]
    mark = "-" + uuid.uuid4().hex
    running = subprocess.Popen(command, env=support.environment(mark), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(staging.glob("*/.bearing/stages/select.json")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    running.kill()
    running.wait()
    for process in support.processes(support.SESSION + mark):
        process.kill()
    assert support.wait_until_gone(support.SESSION + mark, 30) == []
    assert "manifest.json" not in hashes_in_bucket(server, "killed-job")
    done = support.run_job(job, place, 1)
    assert done.code == 0, done.text
    lines = support.stage_lines(done.err)
    assert "(resumed)" in lines["collect"] and "(resumed)" in lines["select"], done.err
    check_like(server, "killed-job", tmp_path / "local")
    assert list(staging.iterdir()) == []


@contextlib.contextmanager
def local_service(folder):
    """A coordinator with one rank, in the environment as it is now."""
    coordinator = service.Coordinator(folder)
    try:
        workers = service.Workers(coordinator.server, folder, ranks=1)
        try:
            yield coordinator
        finally:
            workers.stop()
    finally:
        coordinator.stop()


def test_submitted_job_in_a_bucket_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setenv("BEARING_STAGING", str(tmp_path))
    prompts = support.write_prompts(tmp_path / "prompts")
    place = f"s3://{object_servers.BUCKET}/submitted"
    job = support.write_json(tmp_path / "job.json", {**support.job_spec(MODEL, prompts), "output": place})
    with local_service(tmp_path) as coordinator:
        submitted = coordinator.call("submit", "-f", job, "--watch")
        assert submitted.code == 0, submitted.text
        name = submitted.out.split()[0]
        fetched = coordinator.call("fetch", name, tmp_path / "fetched")
        assert fetched.code == 0, fetched.text
        assert hashes_in_folder(tmp_path / "fetched") == hashes_in_bucket(server, "submitted")
        some = coordinator.call("fetch", name, tmp_path / "some", "--include", "direction.*")
        assert some.code == 0 and list(hashes_in_folder(tmp_path / "some")) == ["direction.safetensors"], some.text

        # The next one, with other judges, shares what the first one's model passes gave, though that work folder is gone.
        second = {**support.job_spec(MODEL, prompts, judges=[{"name": "vowels", "markers": ["a"]}]), "output": f"{place}-again"}
        submitted = coordinator.call("submit", "-f", support.write_json(tmp_path / "second.json", second), "--watch")
        assert submitted.code == 0, submitted.text
        log = coordinator.call("logs", submitted.out.split()[0]).out
        assert log.count("the same as in an earlier job") == 3, log
        described = coordinator.call("describe", submitted.out.split()[0]).out
        assert described.count("(from another job)") == 3 and "(resumed)" not in described, described
        first, again = hashes_in_bucket(server, "submitted"), hashes_in_bucket(server, "submitted-again")
        for file in ("means.safetensors", "geometry.json", "candidates.json", "direction.safetensors"):
            assert first[file] == again[file], file


def test_a_job_that_is_cancelled_while_it_is_published(server, tmp_path, monkeypatch):
    """What was staged goes, the finished stages stay: submitted again, the job is published and computes nothing."""
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setenv("BEARING_STAGING", str(staging))
    prompts = support.write_prompts(tmp_path / "prompts")
    place = f"s3://{object_servers.BUCKET}/cancelled"
    job = support.write_json(tmp_path / "job.json", {**support.job_spec(MODEL, prompts), "output": place})
    with fault_proxy.FaultProxy(os.environ["AWS_ENDPOINT_URL"], slow_seconds=0.5) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with local_service(tmp_path) as coordinator:
            proxy.arm("slow", at=1, forever=True)
            name = coordinator.call("submit", "-f", job).out.strip()
            deadline = time.monotonic() + 120
            while not any("/files/" in key for key in hashes_in_bucket(server, "cancelled")):
                assert time.monotonic() < deadline, coordinator.call("describe", name).text
                time.sleep(0.05)
            assert coordinator.call("cancel", name).code == 0
            proxy.arm(None, 0)
            assert coordinator.call("watch", name).code == 7, coordinator.call("describe", name).text
            assert hashes_in_bucket(server, "cancelled") == {}
            assert not server.list_multipart_uploads(Bucket=object_servers.BUCKET).get("Uploads")
            again = coordinator.call("submit", "-f", job, "--watch")
            assert again.code == 0, again.text
            described = json.loads(coordinator.call("describe", again.out.split()[0], "-o", "json").out)
            assert all(t.get("resumed") for t in described["stageTimes"]), described
    assert "manifest.json" in hashes_in_bucket(server, "cancelled") and list(staging.iterdir()) == []


def test_errors_come_before_long_work_and_name_the_address(server, model_address, tmp_path):
    prompts = support.write_prompts(tmp_path / "prompts")
    for path, words in ((f"s3://{object_servers.BUCKET}/no/such/model", "no model there"),
                        ("s3://bearing-no-such-bucket/m", "bearing-no-such-bucket"),
                        ("ftp://host/model", "scheme=ftp"),
                        ("s3://user:canary-password@bucket/m", "credentials")):
        done = support.run_job(support.write_job(tmp_path / "job.json", path, prompts), tmp_path / "out")
        assert done.code in (2, 3), done.text
        assert words in done.err and "canary-password" not in done.text, done.text
    server.put_object(Bucket=object_servers.BUCKET, Key="taken/file", Body=b"x")
    job = support.write_job(tmp_path / "job.json", MODEL, prompts)
    for out, words in ((f"s3://{object_servers.BUCKET}", "a folder in the bucket"), (f"s3://{object_servers.BUCKET}/taken", "not empty"),
                       ("s3://bearing-no-such-bucket/out", "bearing-no-such-bucket"), ("ftp://host/out", "scheme=ftp")):
        done = support.run_job(job, out)
        assert done.code != 0 and words in done.err and done.seconds < 20, done.text
    # A checkpoint whose write was not finished is not read.
    server.put_object(Bucket=object_servers.BUCKET, Key="half/.attempts/a/files/config.json", Body=b"{}")
    done = support.run_job(support.write_job(tmp_path / "job.json", f"s3://{object_servers.BUCKET}/half", prompts), tmp_path / "out")
    assert done.code == 2 and "not finished" in done.err, done.text


def test_file_addresses_and_hub_caches_are_folders(tmp_path):
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc123")
    for i, path in enumerate(sorted(MODEL.iterdir())):
        shutil.copy(path, cache / "blobs" / str(i))
        (snapshot / path.name).symlink_to(pathlib.Path("../../blobs") / str(i))
    expected = None
    for i, model in enumerate([MODEL, f"file://{MODEL}", snapshot, cache, f"file://{cache}"]):
        out = tmp_path / f"edited-{i}"
        done = support.bearing("edit", "--model", model, "--direction", DIRECTION, "--out", out)
        assert done.code == 0, done.text
        found = {name: digest for name, digest in hashes_in_folder(out).items() if name.endswith((".safetensors", "config.json"))}
        expected = expected or found
        assert found == expected, model
