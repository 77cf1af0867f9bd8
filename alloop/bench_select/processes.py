"""Run commands a few at a time; none outlives this process, however it ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alloop.errors import NeedsPersonError

_POLL_SECONDS = 0.1
_LOG_LINES_SHOWN = 12


@dataclass(frozen=True)
class Command:
    """One process to run: what it is called, its arguments, and the file that takes all it writes."""

    name: str
    arguments: Sequence[str]
    log: Path


def run_all(
    commands: Sequence[Command], slots: int, environment: dict[str, str], done: Callable[[Command, float], None]
) -> None:
    """Run all commands, at most `slots` at once, and call `done` with each that ends well and its seconds.

    NeedsPersonError with the end of its log if one fails. When this process is interrupted or one command fails, the
    rest are ended. They run in sessions of their own, so that Ctrl-C reaches this process alone, and get a pipe as
    standard input, which closes when this process is gone.
    """
    waiting = list(commands)
    running: list[tuple[Command, float, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                command = waiting.pop(0)
                running.append((command, time.monotonic(), _start(command, environment)))
            for entry in [entry for entry in running if entry[2].poll() is not None]:
                running.remove(entry)
                _finish(entry[2], entry[0])
                done(entry[0], time.monotonic() - entry[1])
            time.sleep(_POLL_SECONDS)
    finally:
        for _, _, process in running:
            process.kill()
            process.wait()


def _start(command: Command, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with command.log.open("ab") as log:
        return subprocess.Popen(
            list(command.arguments),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _finish(process: subprocess.Popen[bytes], command: Command) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode == 0:
        return
    lines = command.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    raise NeedsPersonError(
        f"{command.name} failed with code {process.returncode}; its log, {command.log}, ends with\n  "
        + "\n  ".join(lines or ["(nothing)"])
        + "\n  mend the cause and give the same command again: what is done is kept"
    )
