# Shared by the scripts of this folder: paths, step timing, and the set-up that all of them need. Sourced, not run.
# shellcheck shell=bash

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# What clones share: the Python environment with libtorch, the Rust build, the demo models, the compiler cache.
CACHE=${BEARING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bearing}
BUILD=${BEARING_BUILD:-$ROOT/build}
PYTHON=$CACHE/venv/bin/python
MODELS=$CACHE/models
JOBS=${BEARING_JOBS:-$(nproc)}

APT_PACKAGES=(g++ cmake ninja-build ccache mold pkg-config
  libopenmpi-dev openmpi-bin libgrpc++-dev libgrpc-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev libre2-dev
  libgtest-dev libgmock-dev libcli11-dev libspdlog-dev nlohmann-json3-dev libyaml-cpp-dev libsqlite3-dev libssl-dev
  prometheus-cpp-dev libcpp-httplib-dev
  clang-format-14 clang-tidy-14 clang-14 libclang-rt-14-dev)

die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Says why there is no NVIDIA GPU; fails where there is one. Asks the driver alone.
no_gpu() {
  python3 - <<'PYTHON'
import ctypes, sys
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    print(f"no NVIDIA driver: {error}")
    sys.exit(0)
devices = ctypes.c_int(0)
code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(devices))
if code == 0 and devices.value > 0:
    sys.exit(1)
print(f"the NVIDIA driver finds no device: error {code}")
PYTHON
}

# step NAME COMMAND...: says what is being done and how long it took; shows the log only when it fails, which a function does at
# its first command that fails.
step() {
  local name=$1 start=$SECONDS log status
  shift
  log=$(mktemp)
  printf '%-44s' "$name ..."
  set +e  # Not "if (...)": bash would go on behind a failing command in all that is called there.
  (set -e; "$@") >"$log" 2>&1
  status=$?
  set -e
  if [ "$status" = 0 ]; then
    printf '%5d s\n' "$((SECONDS - start))"
    rm -f "$log"
  else
    printf ' failed\n'
    tail -n 40 "$log" >&2
    rm -f "$log"
    die "$name failed (its last lines are above)"
  fi
}

check_tools() {
  command -v python3 >/dev/null || die "python3 is missing: install Python 3.11 or newer with its venv module (Debian: apt-get install python3 python3-venv)"
  python3 -c 'import venv, ensurepip' 2>/dev/null || die "python3 has no venv module (Debian: apt-get install python3-venv)"
  command -v cargo >/dev/null || die "cargo is missing: install Rust 1.85 or newer with rustup (https://rustup.rs); Debian 12's own is too old"
  local rust
  rust=$(cargo --version | awk '{print $2}')
  [ "$(printf '1.85.0\n%s\n' "$rust" | sort -V | head -n 1)" = 1.85.0 ] ||
    die "cargo $rust is too old: install Rust 1.85 or newer with rustup (https://rustup.rs)"
}

missing_packages() {
  local p
  for p in "${APT_PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
  done
}

install_packages() {
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@"
}

setup_packages() {
  command -v dpkg-query >/dev/null || die "this script installs Debian packages; elsewhere install the equivalents of: ${APT_PACKAGES[*]}"
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} = 0 ] && return
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || die "needs root for: apt-get install ${missing[*]}"
  step "install ${#missing[@]} Debian packages" install_packages "${missing[@]}"
}

install_python() {
  [ -x "$PYTHON" ] || python3 -m venv "$CACHE/venv"
  "$PYTHON" -m pip install -q --disable-pip-version-check --no-cache-dir -r "$ROOT/scripts/requirements.txt"
  cp "$ROOT/scripts/requirements.txt" "$CACHE/venv/requirements.installed"
}

setup_python() {
  cmp -s "$ROOT/scripts/requirements.txt" "$CACHE/venv/requirements.installed" && return
  mkdir -p "$CACHE"
  step "install libtorch and Python tools (2.8 GB)" install_python
}

# Builds with a counter, so that a long build is seen to move.
build() {
  local start=$SECONDS
  if ! cmake --build "$BUILD" -j "$JOBS" 2>&1 | awk -v tty="$([ -t 1 ] && echo 1 || echo 0)" '
      { lines[NR % 60] = $0 }
      /^\[[0-9]+\/[0-9]+\]/ { split(substr($1, 2), n, /[\/\]]/); if (tty) printf "\rbuild %d of %d files", n[1], n[2];
        else if (n[1] % 25 == 0) printf "build %d of %d files\n", n[1], n[2]; fflush() }
      /FAILED|error:/ { bad = 1 }
      END { if (tty) printf "\r"; if (bad) for (i = NR - 59; i <= NR; i++) if (i > 0) print lines[i % 60] }'; then
    die "the build failed (its last lines are above)"
  fi
  printf '%-44s%5d s\n' "build" "$((SECONDS - start))"
}

configure() {
  local site
  site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cmake -G Ninja -S "$ROOT" -B "$BUILD" -DTORCH_SITE="$site" -DBEARING_CARGO_TARGET="$CACHE/cargo-target" \
    -DBEARING_UNITY=ON "$@"
}

# The Rust part compiles while libtorch downloads: one needs the processor, the other the network. The build waits for it by the
# same lock (bridge/build_crate.cmake) and reports its errors.
start_rust_build() {
  mkdir -p "$CACHE/cargo-target" "$BUILD"
  (cmake -D CARGO="$(command -v cargo)" -D CRATE="$ROOT/bridge" -D TARGET_DIR="$CACHE/cargo-target" \
    -D OUTPUT="$BUILD/early_libbearing_bridge.a" -P "$ROOT/bridge/build_crate.cmake" >"$BUILD/cargo.log" 2>&1 || true) &
}

# Everything up to a build; arguments go to cmake.
setup_all() {
  check_tools
  setup_packages
  start_rust_build
  setup_python
  step "configure" configure "$@"
  build
}

# demo_model NAME: fetches and converts a demo model once; its folder is $MODELS/NAME.
demo_model() {
  [ -f "$MODELS/$1/PROVENANCE.json" ] && return
  mkdir -p "$MODELS"
  echo "demo model $1:"
  "$PYTHON" "$ROOT/scripts/make_demo_model.py" "$1" --out "$MODELS/$1" --wheels "$CACHE/wheels"
}
