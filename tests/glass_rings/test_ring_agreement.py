"""Primitive rings and coordination of twenty glasses, ring by ring, against matscipy and sovapy.

``peers.json.gz`` holds classical glasses of the eleven compositions (about 150 atoms, quenched in a picosecond, so with
every defect and in boxes that many cycles wind through), and what `benchmarks/analysis_peers.py` has sovapy 0.8.3 say
of them. matscipy is asked here. Where they differ from alloop, every ring is traced to its cause.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from alloop.glass.coordination import DEFAULT_CUTOFFS_A, coordination
from alloop.glass.neighbours import neighbour_list
from alloop.structure import from_record

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def analysis() -> Any:
    """The benchmark, which traces the differences."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import analysis
        import analysis_peers  # noqa: F401
    finally:
        sys.path.remove(str(BENCHMARKS))
    return analysis


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    with gzip.open(Path(__file__).with_name("peers.json.gz"), "rt") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def glasses(recorded: list[dict[str, Any]]) -> list[Atoms]:
    return [from_record(entry["structure"]) for entry in recorded]


def test_rings_of_twenty_glasses(
    analysis: Any, recorded: list[dict[str, Any]], glasses: list[Atoms], monkeypatch
) -> None:
    pytest.importorskip("matscipy.rings")
    max_ring = recorded[0]["max_ring"]
    monkeypatch.setattr(analysis, "MAX_RING", max_ring)
    peers = sys.modules["analysis_peers"]
    differ: dict[str, Counter[str]] = {"matscipy": Counter(), "sovapy": Counter()}
    rings = winding = 0
    for entry, atoms in zip(recorded, glasses, strict=True):
        matscipy = json.loads(json.dumps(peers.by_matscipy(atoms, max_ring)))
        causes = analysis.differences(atoms, matscipy, entry["sovapy"])
        rings += len(analysis.count(atoms)[1])
        winding += entry["sovapy"]["closed"].count(False)
        for library, own in causes.items():
            differ[library] += own
            differ[library]["frames"] += bool(own)
    assert len(glasses) == 20 and rings > 200 and winding > 200
    for library, causes in differ.items():
        assert set(causes) <= {"frames", analysis.BOX, analysis.TRICLUSTER}, (library, causes)
        assert 0 < causes["frames"] < 20, (library, causes)


def test_coordination_of_twenty_glasses(recorded: list[dict[str, Any]], glasses: list[Atoms]) -> None:
    for entry, atoms in zip(recorded, glasses, strict=True):
        found = coordination(neighbour_list(atoms, max(DEFAULT_CUTOFFS_A.values())), DEFAULT_CUTOFFS_A)
        for element in ("B", "Si"):
            assert found.get(element, {}) == entry["sovapy"]["coordination"][element]


def test_windings_are_what_sovapy_calls_not_closed(analysis: Any, recorded: list[dict[str, Any]], glasses) -> None:
    for entry, atoms in zip(recorded, glasses, strict=True):
        network = analysis.AtomNetwork(neighbour_list(atoms, analysis.REACH_A))
        winds = [network.winds(ring) for ring in entry["sovapy"]["rings"]]
        assert winds == [not closed for closed in entry["sovapy"]["closed"]]
