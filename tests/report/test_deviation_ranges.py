"""What `alloop stats` tells of the deviations of all recorded frames, counted chunk by chunk."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from report_kit import begun
from rich.console import Console

from alloop.frames import write_arrays
from alloop.report import statistics

CHUNKS = {
    "a": ([0.0004, 0.011, 0.3, np.nan], [0.01, 0.02, 0.07, np.nan]),
    "b": ([99.0, 250.0, 0.3], [0.5, 1.5, 0.1]),
    "running": ([1e4], [1e4]),
}


@pytest.fixture
def explored(tmp_path: Path) -> Any:
    for key, (force, virial) in CHUNKS.items():
        (tmp_path / key).mkdir()
        columns = {"max_force_deviation_eV_A": np.array(force), "max_virial_deviation_eV": np.array(virial)}
        write_arrays(tmp_path / key / "table.npz", columns)
    decisions = {("explore", 0): {"tasks": [{"key": key} for key in CHUNKS]}, ("explore", 1): {"tasks": []}}
    state = SimpleNamespace(decisions=decisions, done={"a", "b"})
    return SimpleNamespace(state=state, result=lambda key: tmp_path / key)


def test_frames_of_all_finished_chunks_are_counted(explored: Any) -> None:
    found = statistics._deviations(explored, 0)
    edges = statistics._EDGES
    expected = np.histogram([edges[0], 0.011, 0.3, 99.0, edges[-1], 0.3], edges)[0]
    assert found["deviation_histogram"] == expected.tolist() and sum(expected) == 6, "NaN has no place in it"
    assert found["deviation_range_eV_A"] == [0.0004, 250.0]
    assert found["virial_deviation_range_eV"] == [0.01, 1.5]
    nothing = statistics._deviations(explored, 1)
    assert nothing["deviation_range_eV_A"] is nothing["virial_deviation_range_eV"] is None
    assert not any(nothing["deviation_histogram"])


def test_the_largest_are_shown(explored: Any, tmp_path: Path) -> None:
    record = statistics.build_statistics(begun(tmp_path / "campaign"))
    counts = {"classes": {"accurate": 0, "candidate": 0, "failed": 0}, "lost_chunks": 0, "reasons": {}}
    plain = {"iteration": 0, "strata": {}, "events": {}, "audit": None, "trust_levels_eV_A": [0.25, 1.0], "trust": []}
    plain |= {"missed_records": 0, "withdrawn_chunks": 0, "failed_chunks": 0, "limits": {}}
    for number, line in ((0, "largest deviation: force 250 eV/Å, virial 1.5 eV/atom (not chosen by)"), (1, None)):
        shown = record | {"iterations": [plain | counts | statistics._deviations(explored, number)]}
        console = Console(width=120, record=True, file=io.StringIO())
        statistics.print_statistics(shown, console)
        told = console.export_text()
        assert line in told if line else "largest deviation" not in told
