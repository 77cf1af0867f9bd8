"""Rings on the page of `alloop report`: the cooling part of a run, read by chunk, and the structures that are shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from alloop.frames import write_frames
from alloop.glass.ring_history import ring_history
from alloop.report.html import rings
from alloop.report.html.figures import Figure
from alloop.report.html.structures import glass_drawings, ring_figures

BOX_A = 14.0


def boroxol(*, whole: bool) -> Atoms:
    """A boroxol ring with three outer O, across the corner of its box; not whole: one ring O is out of the plane."""
    turn = np.pi * np.arange(6) / 3
    ring = 1.37 * np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
    atoms = Atoms("BOBOBO", positions=ring) + Atoms("O3", positions=2 * ring[::2])
    if not whole:
        atoms.positions[1] += (0, 0, 1.8)
    atoms.set_cell([BOX_A] * 3)
    atoms.pbc = True
    atoms.wrap()
    return atoms


def chunk(folder: Path, start_K: float, end_K: float, pattern: str, every: int = 500) -> rings.Chunk:
    """A chunk of one frame per character (whole or not), 0.5 ps apart."""
    folder.mkdir()
    steps = every * np.arange(1, len(pattern) + 1)
    write_frames(folder / "frames.npz", [boroxol(whole=c == "1") for c in pattern], step=steps)
    condition = {"temperature_start_K": start_K, "temperature_end_K": end_K, "timestep_fs": 1.0}
    return condition | {"n_steps": every * len(pattern)}, folder


@pytest.fixture
def run(tmp_path: Path) -> list[rings.Chunk]:
    """Melt, heat, melt, two chunks that cool by 100 K/ps, a hold, and a warmer one."""
    return [
        chunk(tmp_path / "0", 2000, 2000, "0" * 4),
        chunk(tmp_path / "1", 2000, 300, "1" * 4),
        chunk(tmp_path / "2", 300, 2000, "0" * 4),
        chunk(tmp_path / "3", 2000, 2000, "0" * 4),
        chunk(tmp_path / "4", 2000, 1500, "0" * 3 + "1" * 7),
        chunk(tmp_path / "5", 1500, 1000, "1" * 3 + "0" * 3 + "1" * 4),
        chunk(tmp_path / "6", 1000, 1000, "1" * 4),
        chunk(tmp_path / "7", 1300, 1300, "0" * 4),
    ]


def test_cooling_begins_after_the_last_heating_and_ends_before_what_is_warmer(run: list[rings.Chunk]) -> None:
    part = rings.cooling_part(run)
    assert [(begun, result.name) for begun, (_, result) in part] == [(8.0, "4"), (13.0, "5"), (18.0, "6")]
    assert rings.cooling_part(run[2:4]) == []
    assert rings.cooling(run[2:4]) is None


def test_cooling_is_the_history_of_its_frames(run: list[rings.Chunk]) -> None:
    found = rings.cooling(run)
    assert found is not None
    pattern = "0001111111" + "1110001111" + "1111"
    assert found["three_rings"] == [int(c) for c in pattern]
    assert found["times_ps"][:2] == [8.5, 9.0] and found["times_ps"][-1] == 20.0
    assert found["temperatures_K"][0] == 1950 and found["temperatures_K"][-1] == 1000
    frames = [boroxol(whole=c == "1") for c in pattern]
    history = ring_history(frames, times_ps=found["times_ps"], temperatures_K=found["temperatures_K"])
    kinds = [event.kind for event in history.events]
    assert (found["formed"], found["broken"]) == (kinds.count("formation"), kinds.count("decomposition")) == (2, 1)
    assert found["survival"] == list(history.survival().present)


def test_frames_of_one_chunk_at_a_time_are_in_memory(run: list[rings.Chunk], monkeypatch: pytest.MonkeyPatch) -> None:
    read_from: list[str] = []
    truly = rings.read_structures
    monkeypatch.setattr(
        rings, "read_structures", lambda folder, numbers: read_from.append(folder.name) or truly(folder, numbers)
    )
    frames = rings._frames(rings.cooling_part(run))
    next(frames)
    assert read_from == ["4"]
    assert sum(1 for _ in frames) == 23 and read_from == ["4", "5", "6"]


def shown_figures(run: list[rings.Chunk]) -> tuple[dict[str, Any], list[Figure]]:
    found = rings.cooling(run)
    assert found is not None
    own = {"run": "glass.r0", "glass": "LBS-20-60-20", "cooling": found}
    return found, list(ring_figures([own]))


def test_a_few_structures_of_each_kind_are_shown(run: list[rings.Chunk]) -> None:
    found, figures = shown_figures(run)
    kinds = [shown["kind"] for shown in found["shown"]]
    assert kinds == [rings.FROM_THREE, rings.FROM_THREE, rings.BREAKS, rings.LASTS]
    (first, second, broke, lasts) = found["shown"]
    assert first["lifetime_ps"] == pytest.approx(5.0) and first["complete"]  # the longest-lived first
    assert second["lifetime_ps"] == pytest.approx(3.5) and not second["complete"]
    assert [one["time_ps"] for one in first["structures"]] == [9.5, 10.0]
    assert broke["boron"] == [[3, 3, 3], [2, 2, 3]]
    assert [one["time_ps"] for one in lasts["structures"]] == [16.5, 18.0, 20.0]
    names = [tag for figure in figures for tag in figure.counterparts]
    assert names == ["Fig. 7b", "Fig. 7b", "Fig. 7c", "Fig. 7d"]  # no ring came from one of four
    assert "2 shown" in figures[0].counterparts["Fig. 7b"]


def test_structures_can_be_taken_along_as_extxyz(run: list[rings.Chunk]) -> None:
    figures = shown_figures(run)[1]
    (file,) = figures[2].downloads
    assert file.name == "ring_breaks_1.extxyz"
    head, _, content = file.uri.partition("base64,")
    assert head.startswith("data:chemical/x-xyz;")
    before, after = read(io.StringIO(base64.b64decode(content).decode()), ":", format="extxyz")
    assert before.arrays["in_ring"].sum() == 6 and before.symbols[:6].get_chemical_formula() == "B3O3"
    assert np.ptp(before.positions[:6, 2]) < 1e-3 and np.ptp(after.positions[:6, 2]) == pytest.approx(1.8, abs=1e-3)
    assert (before.info["time_ps"], after.info["time_ps"]) == (14.5, 15.0)


def test_a_ring_of_the_last_frame_alone_is_shown_as_it_is(tmp_path: Path) -> None:
    only_last = [chunk(tmp_path / "0", 2000, 1500, "0" * 9 + "1")]
    found = rings.cooling(only_last)
    assert found is not None and found["shown"] == []  # it is not known to last
    cluster = {**shown_figures_of("1" * 4, tmp_path / "1")[0]["structures"][0]}
    own = {"kind": rings.LASTS, "lifetime_ps": 0.0, "complete": False, "boron": [], "structures": [cluster]}
    (figure,) = ring_figures([{"run": "glass.r0", "cooling": {"shown": [own]}}])
    assert "at least 0.0 ps" in figure.caption and figure.size_in[0] >= 6
    figure.write(tmp_path)


def shown_figures_of(pattern: str, folder: Path) -> list[dict[str, Any]]:
    found = rings.cooling([chunk(folder, 2000, 1500, pattern)])
    assert found is not None
    return list(found["shown"])


def test_drawings_are_drawn(run: list[rings.Chunk], tmp_path: Path) -> None:
    figures = shown_figures(run)[1]
    for figure in (figures[0], figures[3]):
        figure.write(tmp_path)
        assert (tmp_path / f"{figure.name}.svg").stat().st_size > 5000
        assert figure.as_uri().startswith("data:image/svg+xml;base64,")


def test_a_glass_is_drawn_with_its_rings() -> None:
    record = rings.with_rings(_record(boroxol(whole=True)))
    (ring,) = record["rings_A"]
    sides = np.linalg.norm(np.array(ring) - np.roll(ring, 1, axis=0), axis=1)
    assert sides == pytest.approx([1.37] * 6, abs=1e-3)  # in turn around the ring, brought together through the box
    broken = rings.with_rings(_record(boroxol(whole=False)))
    glasses = [
        {"run": f"{glass}.r{number}", "glass": glass, "structure": structure}
        for number, (glass, structure) in enumerate([("A", broken), ("A", record), ("B", broken), ("C", None)])
    ]
    (figure,) = glass_drawings(glasses)
    assert figure.name == "structure_A.r1" and figure.counterparts == {"Fig. 4b-e": "1 of 4 glasses"}
    assert figure.as_uri().startswith("data:image/svg+xml;base64,")


def _record(atoms: Atoms) -> dict[str, Any]:
    cell, positions = atoms.cell.array.tolist(), atoms.positions.tolist()
    return {"symbols": atoms.get_chemical_symbols(), "cell_A": cell, "positions_A": positions}
