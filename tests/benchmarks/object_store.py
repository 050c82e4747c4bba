"""Upload to S3: what Bearing stages against the same file by boto3's multipart upload, to the same SeaweedFS, in turns.

    python tests/benchmarks/object_store.py [--mib 512] [--rounds 3]         BEARING_BIN names the folder of store_tool

Bearing's time includes reading the file, its sha256 and the record; boto3's is upload_file with parts of the same size and the
same number of requests at the same time. The ratio of the medians of speed is printed; 0.8 is wanted.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "storage"))
import object_servers  # noqa: E402
import publish_runs  # noqa: E402

PART, REQUESTS = 8 << 20, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from boto3.s3.transfer import TransferConfig
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=REQUESTS)
    with tempfile.TemporaryDirectory() as folder, object_servers.start("seaweedfs") as environment:
        path = pathlib.Path(folder) / "file"
        with open(path, "wb") as out:
            for _ in range(options.mib):
                out.write(os.urandom(1 << 20))
        s3 = object_servers.client(environment)
        speeds = {"boto3": [], "bearing": []}
        peak = 0
        for i in range(options.rounds + 1):
            start = time.monotonic()
            s3.upload_file(str(path), object_servers.BUCKET, "boto3/file", Config=config)
            boto3_s = time.monotonic() - start
            tool = subprocess.run(["/usr/bin/time", "-f", "%M", publish_runs.TOOL, "upload", path, f"s3://{object_servers.BUCKET}/bearing"],
                                  env=environment, capture_output=True, text=True, check=True)
            bearing_s = float(tool.stdout.split()[2])
            peak = max(peak, int(tool.stderr.split()[-1]))
            if i:  # The first of each warms the server up.
                speeds["boto3"].append(options.mib / boto3_s)
                speeds["bearing"].append(options.mib / bearing_s)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:8} {medians[name]:7.1f} MiB/s  (runs: {', '.join(f'{v:.1f}' for v in values)})")
    print(f"ratio    {medians['bearing'] / medians['boto3']:.2f}  peak RSS of the upload {peak / 1024:.0f} MiB, {options.mib} MiB file")


if __name__ == "__main__":
    main()
