from __future__ import annotations

from pathlib import Path

import pytest
from harness import Outcome, alloop, outcome, write_param


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny campaign, run to its end without disturbance."""
    folder = write_param(tmp_path_factory.mktemp("reference"))
    finished = alloop(folder, "run", "--barrier")
    (folder / "run.out").write_text(finished.stdout + finished.stderr)
    assert finished.returncode == 3, finished.stdout + finished.stderr
    return folder


@pytest.fixture(scope="session")
def reference_outcome(reference: Path) -> Outcome:
    return outcome(reference)
