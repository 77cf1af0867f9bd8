"""Calculators that misbehave as real ones do: they raise, return no number, hang, or take the process with them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from alloop.glass.force_field import TeterCalculator


class Raises(TeterCalculator):
    def calculate(self, *args: Any, **kwargs: Any) -> None:
        print("SCF step 60: still 3 eV away")
        sys.stdout.flush()
        os.write(2, b"warning from below Python\n")
        raise RuntimeError("the self-consistent cycle did not converge")


class WrongPath(TeterCalculator):
    """Meets a file system that refuses it; `how`: what it attempts."""

    def __init__(self, how: str, place: str) -> None:
        super().__init__()
        self.how, self.place = how, Path(place)

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        if self.how == "launch":
            subprocess.run([str(self.place / "no-such-program")], check=True)
        elif self.how == "launch in no folder":
            subprocess.run(["true"], check=True, cwd=self.place / "nowhere")
        elif self.how == "stale":
            raise OSError(errno.ESTALE, "Stale file handle", str(self.place))
        elif self.how == "denied":
            raise PermissionError(errno.EACCES, "Permission denied", str(self.place))
        elif self.how == "folder":
            self.place.read_text()
        else:
            (self.place / self.how).read_text()


class NoNumber(TeterCalculator):
    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        self.results["forces"][0, 0] = np.nan


class Exits(TeterCalculator):
    def calculate(self, *args: Any, **kwargs: Any) -> None:
        os._exit(3)


class Gated(TeterCalculator):
    """Waits as long as the file `gate` exists, at most a minute."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate = Path(gate)

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        print("labelling", flush=True)
        deadline = time.monotonic() + 60
        while self.gate.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        super().calculate(*args, **kwargs)
