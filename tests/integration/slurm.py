"""A Slurm cluster of one node, this one, for tests: controller, node daemon and their authentication on ports and in folders of their
own. Nothing of a Slurm that is installed here is used but its programs."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "sinfo", "squeue")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Slurm:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.processes = []
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self):
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        if os.geteuid() != 0:
            pytest.skip("Slurm: its daemons need root")
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            pytest.skip(f"Slurm: not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
        folder, host = self.folder, socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        (folder / "slurm.conf").write_text(f"""ClusterName=bearing
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
        # munged refuses sockets below folders that others may write to, which --force turns into a warning.
        self.start("munged", "--foreground", "--force", f"--socket={folder}/munge.sock", f"--key-file={folder}/munge.key",
                   f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed")
        self.start("slurmctld", "-D", "-c")
        self.start("slurmd", "-D")
        deadline = time.monotonic() + 30
        while "idle" not in (said := self.run("sinfo", "-h", "-o", "%t", check=False)).stdout:
            if time.monotonic() > deadline:
                pytest.skip(f"Slurm does not come up here: {said.stdout} {said.stderr} {self.logs()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name, *arguments):
        with open(self.folder / f"{name}.out", "wb") as log:
            self.processes.append(subprocess.Popen([shutil.which(name), *arguments], env=self.environment, cwd=self.folder,
                                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def logs(self):
        return " | ".join(path.read_text(errors="replace")[-300:] for path in self.folder.glob("*.out"))

    def run(self, *command, check=True, environment=None, timeout=120):
        return subprocess.run([str(part) for part in command], check=check, capture_output=True, text=True, timeout=timeout,
                              env={**(environment or self.environment), "SLURM_CONF": self.environment["SLURM_CONF"]}, stdin=subprocess.DEVNULL)
