"""Ranks on two hosts that mpirun reaches over ssh: two network namespaces with a host name and an address each, joined by a
virtual cable, and a real sshd in the second one. Needs root, iproute2 and an ssh server; skipped where those are not there."""

import dataclasses
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

import support

TOOLS = ("ip", "unshare", "ssh", "sshd", "ssh-keygen", "mpirun")
NETWORK = "192.0.2.0/24"  # Reserved for examples: nothing real is shadowed.
PORT = 2222
PROGRAM = support.BIN / "mpi_communicator_test"


def run(*command, check=True, **options):
    return subprocess.run([str(part) for part in command], check=check, capture_output=True, text=True, timeout=60, **options)


@dataclasses.dataclass
class Host:
    name: str
    address: str
    namespace: str

    def command(self, *command):
        """`command` on this host."""
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name,
                *map(str, command)]

    def processes(self):
        return [int(pid) for pid in run("ip", "netns", "pids", self.namespace, check=False).stdout.split()]

    def kill_all(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@dataclasses.dataclass
class Cluster:
    here: Host   # Where mpirun runs.
    there: Host  # Where sshd runs.
    folder: Path

    def mpirun(self, ranks_per_host, *command):
        """The options are those that mpirun needs between real hosts; only the port and the keys are this test's own."""
        ssh = (f"-p {PORT} -F none -i {self.folder}/key -o UserKnownHostsFile={self.folder}/known_hosts -o IdentitiesOnly=yes "
               "-o BatchMode=yes -o LogLevel=ERROR")
        return [
            "mpirun", "--allow-run-as-root",
            "--host", f"{self.here.address}:{ranks_per_host},{self.there.address}:{ranks_per_host}",
            "--map-by", "slot",                            # Neighbouring ranks on one host.
            "--bind-to", "none", "--oversubscribe",
            "--mca", "plm_rsh_agent", "ssh", "--mca", "plm_rsh_args", ssh,
            "--mca", "oob_tcp_if_include", NETWORK,        # Between mpirun and its daemons.
            "--mca", "btl_tcp_if_include", NETWORK,        # Between ranks.
            "--mca", "btl", "self,vader,tcp",
            "-x", "OMP_NUM_THREADS", "-x", support.MARK,   # mpirun passes on no other variables.
            *map(str, command)]

    def run(self, ranks_per_host, *command, timeout=120):
        started = time.monotonic()
        process = subprocess.Popen(self.here.command(*self.mpirun(ranks_per_host, *command)), env=support.environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.here.kill_all()
            out, err = process.communicate()
            pytest.fail(f"mpirun did not end within {timeout} s\n{out}\n{err}")
        return support.Finished(process.returncode, out, err, time.monotonic() - started)

    def ranks_left(self):
        """Processes of ranks, on both hosts. They get some seconds to end."""
        deadline = time.monotonic() + 10
        while True:
            left = []
            for pid in self.here.processes() + self.there.processes():
                try:
                    if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == PROGRAM.name:
                        left.append(pid)
                except OSError:
                    pass
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)


def start_sshd(host, folder):
    for key in ("host_key", "key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[{host.address}]:{PORT} {public}")
    (folder / "sshd_config").write_text(
        f"Port {PORT}\nListenAddress {host.address}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PasswordAuthentication no\nPermitRootLogin prohibit-password\nAuthorizedKeysFile {folder}/key.pub\nLogLevel ERROR\n")
    with open(folder / "sshd.log", "wb") as log:
        sshd = subprocess.Popen(host.command(shutil.which("sshd"), "-D", "-e", "-f", folder / "sshd_config"),
                                env=support.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return sshd


def wait_for_ssh(cluster, sshd):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and sshd.poll() is None:
        asked = run(*cluster.here.command("ssh", "-F", "none", "-p", PORT, "-i", cluster.folder / "key", "-o", "BatchMode=yes",
                                          "-o", f"UserKnownHostsFile={cluster.folder}/known_hosts", cluster.there.address,
                                          "hostname"), check=False)
        if asked.returncode == 0:
            return asked.stdout.strip()
        time.sleep(0.2)
    raise AssertionError(f"sshd does not answer: {asked.stderr}\n{(cluster.folder / 'sshd.log').read_text()}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    # sshd is in a folder that is not in every PATH.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        pytest.skip("two hosts: network namespaces need root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"two hosts: not installed: {', '.join(missing)} (Debian: iproute2 openssh-server openssh-client)")
    if not PROGRAM.exists():
        pytest.skip(f"two hosts: not built: {PROGRAM}")
    mark = uuid.uuid4().hex[:6]
    here = Host("bearing-one", "192.0.2.1", f"bearing-{mark}-1")
    there = Host("bearing-two", "192.0.2.2", f"bearing-{mark}-2")
    folder = tmp_path_factory.mktemp("two_hosts")
    separation = Path("/run/sshd")  # sshd does not start without it.
    made = [] if separation.exists() else [separation]
    sshd = None
    try:
        for host in (here, there):
            if (added := run("ip", "netns", "add", host.namespace, check=False)).returncode != 0:
                pytest.skip(f"two hosts: no network namespaces here: {added.stderr.strip()}")
            if (asked := run(*host.command("hostname"), check=False)).stdout.strip() != host.name:
                pytest.skip(f"two hosts: no namespaces for host names here: {asked.stderr.strip()}")
        cable = (f"b{mark}1", f"b{mark}2")
        if (added := run("ip", "link", "add", cable[0], "netns", here.namespace, "type", "veth", "peer", "name", cable[1],
                         "netns", there.namespace, check=False)).returncode != 0:
            pytest.skip(f"two hosts: no virtual network devices here: {added.stderr.strip()}")
        for host, end in zip((here, there), cable):
            run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", end)
            for device in ("lo", end):
                run("ip", "-n", host.namespace, "link", "set", device, "up")
        for path in made:
            path.mkdir(mode=0o755)
        cluster = Cluster(here, there, folder)
        sshd = start_sshd(there, folder)
        assert wait_for_ssh(cluster, sshd) == there.name
        yield cluster
    finally:
        for host in (here, there):
            host.kill_all()
        if sshd is not None:
            sshd.wait(timeout=20)
        for host in (here, there):
            run("ip", "netns", "delete", host.namespace, check=False)  # The cable goes with it.
        for path in made:
            path.rmdir()


def test_ranks_of_both_hosts_are_one_group(cluster):
    """Collectives, grids, and work that is handed out over the network while rank 0 computes."""
    done = cluster.run(2, "sh", "-c", 'hostname; exec "$0"', PROGRAM)
    assert done.code == 0, done.text
    assert sorted(done.out.split("\n")[:-1]) == sorted(
        [cluster.here.name] * 2 + [cluster.there.name] * 2 + ["4 rank(s): ok"]), done.text


def test_a_rank_that_fails_ends_those_of_the_other_host(cluster):
    done = cluster.run(2, PROGRAM, "abort")
    assert done.code != 0 and done.seconds < 30, done.text
    assert "rank=3 stage=select: bad shard" in done.err, done.text
    assert not cluster.ranks_left()


def test_a_rank_that_hangs_ends_those_of_both_hosts(cluster):
    done = cluster.run(2, PROGRAM, "hang")
    assert done.code != 0 and done.seconds < 30, done.text
    assert "stage=collect group=tensor_parallel operation=AllReduce bytes=4096 did not finish within 1s" in done.err, done.text
    assert not cluster.ranks_left()
