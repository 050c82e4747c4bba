#!/usr/bin/env python3
"""Checks that folders include only the folders below them (docs/architecture.md), and that every header is owned by a target."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# folder -> what it may include besides itself. `proto` is the generated code.
MAY_INCLUDE = {
    "sharding": set(),
    "bridge": {"sharding"},
    "storage": {"bridge", "sharding"},
    "rpc": {"proto", "grpc", "sharding"},
    "jobs": {"proto", "storage", "bridge", "sharding"},
    "coordinator": {"proto", "grpc", "rpc", "jobs", "storage", "bridge", "sharding"},
    "cli": {"proto", "grpc", "rpc", "jobs", "storage", "bridge", "sharding"},
    "worker/comm": {"sharding", "torch"},
    "worker/model": {"worker/comm", "sharding", "torch"},
    "worker/steer": {"worker/model", "worker/comm", "sharding", "torch"},
    "worker/edit": {"sharding"},
    "worker": {"worker/edit", "worker/steer", "worker/model", "worker/comm", "jobs", "storage", "bridge", "sharding", "proto", "grpc",
               "rpc", "torch"},
}
EXTERNAL = [(r"^(ATen|c10|torch)/", "torch"), (r"^(google/protobuf|google/rpc|bearing/v1/.*(?<!grpc)\.pb\.h)", "proto"),
            (r"^(grpc|grpcpp|bearing/v1/.*\.grpc\.pb\.h)", "grpc")]


# Headers of CUDA, NCCL and the CUDA half of libtorch, and the sources of libbearing_cuda.so, which alone may include them.
CUDA_HEADER = re.compile(r"^(cuda|nccl|cublas|cudnn|nv_|nvtx|c10/cuda/|ATen/cuda/|torch/csrc/cuda/)")
CUDA_SOURCES = {"worker/comm/cuda_library.cc", "worker/comm/nccl_communicator.cc"}


def layer(path):
    parts = path.split("/")
    two = "/".join(parts[:2])
    return two if two in MAY_INCLUDE else parts[0] if parts[0] in MAY_INCLUDE else None


def main():
    problems = []
    cmake = {f.parent: f.read_text() for f in ROOT.glob("*/CMakeLists.txt")}
    for path in sorted(p for top in ("sharding", "rpc", "bridge", "storage", "jobs", "coordinator", "cli", "worker")
                       for p in (ROOT / top).rglob("*") if p.suffix in (".h", ".cc") and "target" not in p.parts):
        name = str(path.relative_to(ROOT))
        mine = layer(name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#include\s+["<]([^">]+)[">]', line)
            if not match:
                continue
            header = match.group(1)
            if CUDA_HEADER.match(header) and name not in CUDA_SOURCES:
                problems.append(f"{name}:{number}: only {' and '.join(sorted(CUDA_SOURCES))} may include {header}")
            target = next((kind for pattern, kind in EXTERNAL if re.match(pattern, header)), None) or layer(header)
            if target and target != mine and target not in MAY_INCLUDE[mine]:
                problems.append(f"{name}:{number}: {mine} must not include {header} ({target})")
        top = ROOT / name.split("/")[0]
        relative = str(path.relative_to(top))
        if path.suffix == ".h" and top in cmake and relative not in cmake[top] and path.name not in cmake[top]:
            problems.append(f"{name}: no target in {top.name}/CMakeLists.txt lists this header")
    print("\n".join(problems) or "folder dependencies: ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
