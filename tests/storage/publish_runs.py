"""What the tests of kills and of faults share: a folder to publish, runs of store_tool, and what must hold after each."""
import hashlib
import os
import pathlib
import random
import subprocess

import object_servers

TOOL = os.path.join(os.environ.get("BEARING_BIN", "build/bin"), "store_tool")
PART = 5 << 20


def make_folder(folder, shards=2, shard_bytes=2 * PART + 1234, seed=1):
    """Files of every kind: empty, small, in a subfolder, and some of several parts."""
    generator = random.Random(seed)
    folder = pathlib.Path(folder)
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "empty").write_bytes(b"")
    (folder / "sub" / "notes.txt").write_text("notes")
    for i in range(shards):
        (folder / f"shard-{i}.safetensors").write_bytes(generator.randbytes(shard_bytes))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def environment_of_tool(environment, **more):
    return {**environment, "STORE_TOOL_PART_BYTES": str(PART), "STORE_TOOL_COPY_BYTES": str(PART + 1), **more}


def run(arguments, environment, timeout=120):
    done = subprocess.run([TOOL, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=timeout)
    for secret in (object_servers.SECRET, object_servers.KEY_ID):
        assert secret not in done.stdout + done.stderr, "a credential was printed"
    return done


class Bucket:
    """The destination as another program sees it."""

    def __init__(self, environment, prefix):
        self.s3 = object_servers.client(environment)
        self.prefix = prefix
        self.address = f"{environment['BEARING_TEST_STORE']}/{prefix}"

    def keys(self):
        found, token = [], {}
        while True:
            page = self.s3.list_objects_v2(Bucket=object_servers.BUCKET, Prefix=self.prefix + "/", **token)
            found += [item["Key"] for item in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def content(self, name):
        return self.s3.get_object(Bucket=object_servers.BUCKET, Key=f"{self.prefix}/{name}")["Body"].read()

    def hashes(self):
        names = [key[len(self.prefix) + 1:] for key in self.keys()]
        return {name: hashlib.sha256(self.content(name)).hexdigest() for name in names}

    def uploads(self):
        page = self.s3.list_multipart_uploads(Bucket=object_servers.BUCKET, Prefix=self.prefix + "/")
        return [upload["Key"] for upload in page.get("Uploads", [])]

    def clear(self):
        for key in self.keys():
            self.s3.delete_object(Bucket=object_servers.BUCKET, Key=key)


def check_no_half_set(bucket, expected):
    """A manifest may be there only with everything it names."""
    names = {key[len(bucket.prefix) + 1:] for key in bucket.keys()}
    if "manifest.json" not in names:
        return False
    hashes = bucket.hashes()
    for name, digest in expected.items():
        assert hashes.get(name) == digest, f"a manifest is there, but not its file {name}"
    return True


def check_finished(bucket, expected):
    hashes = bucket.hashes()
    manifest = hashes.pop("manifest.json", None)
    assert manifest is not None, "no manifest"
    assert hashes == expected
    assert bucket.uploads() == [], "orphan uploads"
