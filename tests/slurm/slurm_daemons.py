"""A real Slurm on this machine: own munge, controller and three nodes, in one folder and on free ports."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIG = """
ClusterName=alloop
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
MinJobAge=10
SlurmctldTimeout=10
SlurmdTimeout=60
MessageTimeout=5
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=DEFAULT CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
NodeName=c1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=c2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
NodeName=g1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} Gres=gpu:2
PartitionName=cpu Nodes=c1,c2 Default=YES MaxTime=INFINITE DefaultTime=5 DefMemPerCPU=100 State=UP
PartitionName=gpu Nodes=g1 MaxTime=INFINITE DefaultTime=5 DefMemPerCPU=100 State=UP
"""
NODES = ("c1", "c2", "g1")


def missing() -> str | None:
    """Why Slurm cannot be set up here, if so."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)} missing; apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "setting up Slurm needs root"


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Slurm:
    """The daemons, all children of this process; `stop` ends them and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host = platform.node().partition(".")[0]
        ports = _free_ports(4)
        (self.folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=self.folder, ports=ports))
        for number in range(2):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"NodeName=g1 Name=gpu File={self.folder}/gpu[0-1]\n")
        key = self.folder / "munge.key"
        key.touch(0o400)
        key.write_bytes(secrets.token_bytes(1024))
        options = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._run(
            "munged",
            "--foreground",
            "--force",
            *(f"--{name}={self.folder}/munge.{end}" for name, end in options.items()),
        )
        until((self.folder / "munge.sock").exists, 10, "munged")
        self.start_controller(clean=True)
        for node in NODES:
            self._run("slurmd", "-D", "-c", "-N", node)
        until(self._nodes_are_idle, 30, "nodes")

    def _nodes_are_idle(self) -> bool:
        for name, daemon in self._daemons.items():
            assert daemon.poll() is None, f"{name} ended: {(self.folder / f'{name}.out').read_text()}"
        return sorted(set(self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())) == sorted(NODES)

    def start_controller(self, *, clean: bool = False) -> None:
        self._run("slurmctld", "-D", "-i", *(["-c"] if clean else []))

    def kill_controller(self) -> None:
        self._daemons["slurmctld"].kill()
        self._daemons["slurmctld"].wait()

    def save_jobs(self) -> None:
        """Wait until the controller has put its jobs on disk, so that its death loses none of them.

        It does so every few seconds, and later on a busy machine, but only when something has changed. A job that
        has just ended cannot be changed any more: its end is the change then.
        """
        state = self.folder / "state" / "job_state"
        before = state.stat().st_mtime_ns if state.exists() else 0
        for job in self.ask("squeue", "-h", "-o", "%i").split():
            self.ask("scontrol", "update", f"JobId={job}", "Comment=seen")
        until(lambda: state.exists() and state.stat().st_mtime_ns > before, 60, "Slurm's record of its jobs on disk")

    def _run(self, program: str, *arguments: str) -> None:
        name = program if program != "slurmd" else f"slurmd-{arguments[-1]}"
        path = shutil.which(program, path=SEARCH)
        assert path is not None
        with (self.folder / f"{name}.out").open("ab") as stream:
            self._daemons[name] = subprocess.Popen(
                [path, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd="/",
            )

    def ask(self, *command: str) -> str:
        """What a Slurm command prints, empty if it fails."""
        found = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30)
        return found.stdout if found.returncode == 0 else ""

    def stop(self) -> None:
        """Cancel all jobs, then end the daemons in the reverse order of their start."""
        if self._daemons["slurmctld"].poll() is None:
            subprocess.run(["scancel", "--me", "-f"], env=self.environment, capture_output=True, timeout=30)
            with contextlib.suppress(AssertionError):
                until(lambda: not self.ask("squeue", "-h"), 20, "end of jobs")
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
