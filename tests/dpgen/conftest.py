from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # dpgen_kit is a plain module beside the tests

from dpgen_kit import make_folder


@pytest.fixture
def dpgen_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a DP-GEN folder of some labelled iterations, after which the next ensemble is trained."""

    def make(iterations: int = 2, **more: Any) -> Path:
        return make_folder(tmp_path / "glass", iterations, **more)

    return make
