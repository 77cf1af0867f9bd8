"""For tests and benchmarks of campaigns with the doubles: the interpreter to name in a pool, and its environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = str(HERE / "python")
"""What a pool's option `python` is set to."""


def quick_environment(file: Path, **settings: Any) -> dict[str, str]:
    """Write the settings of the doubles (see quick_settings) to a file; return the variables a driver needs."""
    file.write_text(json.dumps(settings) + "\n")
    return {"QUICK_TASKS": str(file.resolve()), "QUICK_TASKS_PYTHON": sys.executable}
