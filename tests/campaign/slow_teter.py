"""The rehearsal force field, made as slow as a cheap foundation model, so that a label can be met half-way."""

from __future__ import annotations

import time
from typing import Any

from alloop.glass.force_field import TeterCalculator

SECONDS = 0.6


class SlowTeter(TeterCalculator):
    def calculate(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(SECONDS)
        super().calculate(*args, **kwargs)
