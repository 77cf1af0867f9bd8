from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import slurm_daemons


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_daemons.Slurm]:
    """A real Slurm with the partitions cpu (two nodes) and gpu (one node, two GPUs)."""
    problem = slurm_daemons.missing()
    if problem is not None:
        pytest.skip(problem)
    found = slurm_daemons.Slurm(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", found.environment["SLURM_CONF"])
        try:
            found.start()
            yield found
        finally:
            found.stop()
