#!/usr/bin/env python3
"""Writes seeds for api_fuzzer.cc: lives of jobs as lists of calls. Needs protoc.

    api_seeds.py FOLDER
"""
import subprocess
import sys
from pathlib import Path

PROTO = Path(__file__).resolve().parents[2] / "proto"
METHODS = ["CreateJob", "GetJob", "ListJobs", "CancelJob", "DeleteJob", "ListArtifacts", "AcquireLease", "Heartbeat", "ReportProgress",
           "Complete", "ReportExit", "wait"]
SIDE = 'train {file: "/p/t.txt"} validation {file: "/p/v.txt"} test {file: "/p/e.txt"}'
SPEC = (f'spec {{name: "tiny" model {{path: "/m"}} concept_spec {{name: "refusal" token_ids: [7, 40]}} prompts {{positive {{{SIDE}}} '
        f'negative {{{SIDE}}}}} output: "/out" labels {{key: "team" value: "a"}} priority: 3 ranks: 2 max_attempts: 2}}')
GROUP = 'group {id: "g" ranks: 2 memory_bytes_per_rank: 4000000000 device: "cpu" version: "0.1.0"}'
HELD = 'group_id: "g" job_name: "a" attempt: 1'
TIME = 'stage_times {stage: STAGE_COLLECT seconds: 2}'
LINES = 'log_lines {time {seconds: 1} rank: 1 level: "warning" text: "said"} first_line: 1'

CREATE = ("CreateJob", SPEC + ' job_id: "a" request_id: "0b6e4f7c-93c5-4a53-9f5c-2f1d0a3c7e11"')
LEASE = ("AcquireLease", GROUP)
LIVES = [
    [CREATE, CREATE, ("GetJob", 'name: "a"'), ("ListJobs", 'page_size: 1 labels {key: "team" value: "a"}'), LEASE,
     ("ReportProgress", f'{HELD} progress {{stage: STAGE_COLLECT done: 1 total: 4}} {TIME} {LINES}'),
     ("Complete", f'{HELD} result {{layer: 3 position: -1 manifest: "/out/manifest.json"}} {TIME}'), ("ListArtifacts", 'name: "a"'), ("DeleteJob", 'name: "a"')],
    [CREATE, LEASE, ("CancelJob", 'name: "a"'), ("Heartbeat", HELD), ("Complete", HELD + " cancelled: true"), ("Complete", HELD + " cancelled: true")],
    [CREATE, LEASE, ("ReportExit", 'group_id: "g" rank: 1 signal: 9'), LEASE, ("ReportExit", 'group_id: "g" exit_status: 3'), LEASE],
    [CREATE, LEASE, ("wait", b"\xff"), ("Heartbeat", HELD), LEASE, ("Complete", 'group_id: "g" job_name: "a" attempt: 2 error {message: "no" reason: "BAD"}')],
    [("CreateJob", SPEC + " validate_only: true"), ("CreateJob", SPEC), ("ListJobs", "state: JOB_STATE_QUEUED"), LEASE],
]


def encode(method, text):
    if method == "wait":
        return text
    try:
        return subprocess.run(["protoc", "-I", PROTO, f"--encode=bearing.v1.{method}Request", "bearing/v1/jobs_service.proto",
                               "bearing/v1/worker_service.proto"], input=text.encode(), capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        sys.exit(f"{method}: {error.stderr.decode()}")


def main():
    folder = Path(sys.argv[1])
    for number, life in enumerate(LIVES):
        calls = b""
        for method, text in life:
            body = encode(method, text)
            calls += bytes([METHODS.index(method)]) + len(body).to_bytes(2, "little") + body
        (folder / f"life-{number}").write_bytes(calls)


if __name__ == "__main__":
    main()
