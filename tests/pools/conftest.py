from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))  # campaign_kit is a plain module there
sys.path.insert(0, str(Path(__file__).parent))
import pools_kit


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pools_kit.World]:
    """A batch pool between a fake queue and a fake link."""
    made = pools_kit.World(tmp_path)
    monkeypatch.setenv("FAKE_QUEUE", str(made.queue.folder))
    monkeypatch.setenv("PATH", f"{made.queue.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield made
    made.close()
