"""The command line as a person meets it: in this process for speed, in one of its own where that matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import alloop
from alloop import cli, loop

REPOSITORY = Path(alloop.__file__).resolve().parents[1]

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [63]}],
    "label": {"labeler": "teter-rehearsal"},
}


@dataclass(frozen=True)
class Outcome:
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@pytest.fixture
def alloop_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command line in this process; should a command begin work, the test fails instead."""

    def no_work(*_: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(loop, "run", no_work)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["alloop", *map(str, arguments)])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def alloop_process() -> Callable[..., Outcome]:
    """Run the command line in a process of its own, with output to pipes at 80 columns."""

    def call(
        *arguments: str | Path, python: Path | str = sys.executable, env: dict[str, str] | None = None, **options: Any
    ) -> Outcome:
        environment = (
            os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "80", "OMP_NUM_THREADS": "1"} | (env or {})
        )
        command = [str(python), "-m", "alloop", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[..., Path]:
    """Make a campaign folder whose `param.json` is the small one with changes, ``section={...}`` merged into it."""

    def make(text: str | bytes | None = None, **changes: Any) -> Path:
        folder = tmp_path / "campaign"
        folder.mkdir(exist_ok=True)
        param = json.loads(json.dumps(SMALL))
        for key, value in changes.items():
            merge = isinstance(value, dict) and isinstance(param.get(key, {}), dict)
            param[key] = param.get(key, {}) | value if merge else value
        content = json.dumps(param) if text is None else text
        (folder / "param.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return make
