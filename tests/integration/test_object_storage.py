"""Models, prompts and edited checkpoints in a bucket of a real S3 server, against the same things in folders: equal bit for bit."""
import hashlib
import os
import pathlib
import shutil
import sys

import pytest
import support

sys.path.insert(0, str(support.ROOT / "tests" / "storage"))
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


def test_errors_come_before_long_work_and_name_the_address(server, model_address, tmp_path):
    prompts = support.write_prompts(tmp_path / "prompts")
    for path, words in ((f"s3://{object_servers.BUCKET}/no/such/model", "no model there"),
                        ("s3://bearing-no-such-bucket/m", "bearing-no-such-bucket"),
                        ("ftp://host/model", "scheme=ftp"),
                        ("s3://user:canary-password@bucket/m", "credentials")):
        done = support.run_job(support.write_job(tmp_path / "job.json", path, prompts), tmp_path / "out")
        assert done.code in (2, 3), done.text
        assert words in done.err and "canary-password" not in done.text, done.text
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
