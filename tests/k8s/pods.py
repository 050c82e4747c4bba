"""Containers as Kubernetes makes them of the image, without a container engine: a root of its own that nothing can be written to
but the volumes, no way to other processes, a user without capabilities and without a way to get them, an address of its own.

The root holds the programs where the image has them and this machine's /usr (the image is made of the same Debian packages);
or, where BEARING_TEST_IMAGE names the folder of an unpacked image, that image itself.
Needs root, namespaces and the ssh server; skip_unless_possible() says what is missing."""

import dataclasses
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

import manifests

USER = 12345
BIN = manifests.BIN
IMAGE = os.environ.get("BEARING_TEST_IMAGE", "")
ENTRYPOINT = "/opt/bearing/bin/entrypoint"
TOOLS = ("ip", "unshare", "setpriv", "chroot", "ssh", "sshd", "ssh-keygen", "mpirun")
PROGRAMS = ("bearing", "bearing-coordinator", "bearing-worker")

# $1: the root; the rest: the command. Runs as root in mount, process and host name namespaces of its own.
SETUP = r"""
set -euo pipefail
root=$1; shift
hostname "$POD_HOSTNAME"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
read_only() { mkdir -p "$2"; mount --rbind "$1" "$2"; mount -o remount,bind,ro "$2"; }
if [ -n "$POD_IMAGE" ]; then
  mkdir "$root"/{upper,work,merged}
  mount -t overlay -o "lowerdir=$POD_IMAGE,upperdir=$root/upper,workdir=$root/work" overlay "$root/merged"
  root=$root/merged
  rm -rf "$root"/{dev,tmp}
  mkdir -p "$root"/{dev,tmp,run/bearing,scratch}
else
  mkdir -p "$root"/{usr,etc,proc,dev,tmp,run/bearing,home/bearing,var/lib/bearing,opt/bearing/bin,scratch}
  for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
  read_only /usr "$root/usr"
  for name in alternatives openmpi ssl ld.so.conf.d; do [ ! -d "/etc/$name" ] || read_only "/etc/$name" "$root/etc/$name"; done
  cp /etc/ld.so.cache /etc/ld.so.conf "$root/etc/"
  printf 'root:x:0:0::/:/usr/sbin/nologin\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n' >"$root/etc/passwd"
  printf 'bearing:x:12345:12345::/home/bearing:/bin/bash\n' >>"$root/etc/passwd"
  printf 'root:x:0:\nbearing:x:12345:\n' >"$root/etc/group"
  printf 'passwd: files\ngroup: files\nhosts: files\n' >"$root/etc/nsswitch.conf"
  [ ! -d "$POD_TORCH" ] || read_only "$POD_TORCH" "$root$POD_TORCH"
fi
cp "$POD_HOSTS" "$root/etc/hosts"
mount -t proc proc "$root/proc"
for name in null zero full random urandom; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
for name in tmp run/bearing dev/shm scratch; do
  mount -t tmpfs -o mode=770,uid=12345,gid=12345 tmpfs "$root/$name"
done
for program in $POD_PROGRAMS; do cp "$program" "$root/opt/bearing/bin/"; done
chmod 755 "$root"/opt/bearing/bin/*
while read -r from to mode; do
  [ -n "$from" ] || continue
  mkdir -p "$root$to"
  mount --bind "$from" "$root$to"
  [ "$mode" = rw ] || mount -o remount,bind,ro "$root$to"
done <<<"$POD_VOLUMES"
mount -o remount,ro "$root"
cd /
exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/home/bearing $POD_MARK \
  /usr/bin/setpriv --reuid 12345 --regid 12345 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
  -- "$@"
"""


def skip_unless_possible():
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # sshd and ip are not in everybody's PATH.
    if os.geteuid() != 0:
        pytest.skip("pods: namespaces need root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"pods: not installed: {', '.join(missing)} (Debian: iproute2 openssh-server openssh-client)")
    if missing := [name for name in PROGRAMS if not (BIN / name).exists()]:
        pytest.skip(f"pods: not built: {', '.join(missing)} in {BIN}")
    asked = subprocess.run(["unshare", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True, text=True)
    if asked.returncode != 0:
        pytest.skip(f"pods: no namespaces here: {asked.stderr.strip()}")


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, timeout=60, **options)


def torch_folder():
    """site-packages with libtorch, as the built worker names it."""
    worker = subprocess.run(["ldd", BIN / "bearing-worker"], capture_output=True, text=True).stdout
    found = next((line.split()[2] for line in worker.splitlines() if "libtorch_cpu.so" in line), None)
    return Path(found).parents[2] if found else Path("/nonexistent")


class Network:
    """Network namespaces on one switch, which is in a namespace too: nothing of the machine's own network is touched."""

    def __init__(self, hosts):
        """hosts: {name: address in 192.0.2.0/24}."""
        self.mark = uuid.uuid4().hex[:6]
        self.addresses = hosts
        self.namespaces = {name: f"bearing-{self.mark}-{i}" for i, name in enumerate(hosts)}
        self.switch = f"bearing-{self.mark}-s"

    def __enter__(self):
        try:
            run("ip", "netns", "add", self.switch)
            run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
            run("ip", "-n", self.switch, "link", "set", "br0", "up")
            for i, (name, address) in enumerate(self.addresses.items()):
                namespace = self.namespaces[name]
                run("ip", "netns", "add", namespace)
                run("ip", "link", "add", f"p{i}", "netns", self.switch, "type", "veth", "peer", "name", "eth0", "netns", namespace)
                run("ip", "-n", self.switch, "link", "set", f"p{i}", "master", "br0", "up")
                run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    run("ip", "-n", namespace, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"pods: no virtual network here: {error.stderr.strip()}")
        return self

    def __exit__(self, *_):
        for namespace in [*self.namespaces.values(), self.switch]:
            for pid in subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)


@dataclasses.dataclass
class Pod:
    """A running container."""
    process: subprocess.Popen
    log: Path

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def wait(self, timeout):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the container did not end within {timeout} s:\n{self.text}")

    def wait_for(self, text, timeout=60):
        deadline = time.monotonic() + timeout
        while text not in self.text:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"no \"{text}\" in:\n{self.text}")
            time.sleep(0.05)

    def kill(self):
        inside = self.pids()
        # The first process of the container takes all others along. `unshare --kill-child` is not enough: the kernel forgets
        # that wish when the process changes its user.
        try:
            os.kill(inside[0] if inside else self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(20)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in inside) and time.monotonic() < deadline:
            time.sleep(0.01)

    def pids(self):
        """Of this machine: the container's first process, then all below it."""
        found, wanted = [], [self.process.pid]
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        while wanted:
            for child in children.get(wanted.pop(), []):
                found.append(child)
                wanted.append(child)
        return found

    def programs(self):
        """{pid: name} of the programs that run in it."""
        names = {}
        for pid in self.pids():
            try:
                names[pid] = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            except OSError:
                pass
        return names

    def terminate(self):
        """What the kubelet does: SIGTERM to the container's first process."""
        os.kill(self.pids()[0], signal.SIGTERM)


class Cluster:
    """Starts containers on the hosts of a network."""

    def __init__(self, folder, network):
        self.folder, self.network = folder, network
        self.torch = torch_folder()
        self.programs = [] if IMAGE else [manifests.K8S / "image/entrypoint", *(BIN / name for name in PROGRAMS)]
        self.hosts = folder / "hosts"
        lines = ["127.0.0.1 localhost"]
        for name, address in network.addresses.items():
            lines.append(f"{address} {name} {name.split('.')[0]}")
        self.hosts.write_text("\n".join(lines) + "\n")
        self.pods = []

    def start(self, host, arguments, volumes=(), environment=None, programs=None):
        """`arguments` as a container's args; volumes: (folder here, place, "ro" or "rw"); environment: of the container."""
        number = len(self.pods)
        root = self.folder / f"root{number}"
        root.mkdir()
        log = self.folder / f"pod{number}.log"
        variables = {
            **os.environ, "POD_HOSTNAME": host.split(".")[0], "POD_HOSTS": str(self.hosts), "POD_TORCH": str(self.torch),
            "POD_IMAGE": IMAGE, "POD_PROGRAMS": " ".join(map(str, programs or self.programs)),
            "POD_MARK": f"BEARING_TEST_RUN={os.environ.get('BEARING_TEST_RUN', '')}",
            "POD_VOLUMES": "\n".join(f"{a} {b} {c}" for a, b, c in volumes)}
        given = [f"{name}={value}" for name, value in (environment or {}).items()]
        command = ["ip", "netns", "exec", self.network.namespaces[host], "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork",
                   "--kill-child", "bash", "-c", SETUP, "setup", str(root), "/usr/bin/env", *given, *map(str, arguments)]
        with open(log, "wb") as out:
            process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.pods.append(Pod(process, log))
        return self.pods[-1]

    def close(self):
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.kill()
