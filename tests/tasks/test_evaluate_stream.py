"""Evaluating many labels and ranking a deep backlog: frame by frame, never all of them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alloop.frames import write_frames
from alloop.potential.ensemble import EnsembleEvaluation
from alloop.selection.deviation import DeviationStatistics
from alloop.store import read_json
from alloop.structure import LabeledFrame
from alloop.tasks import describe, evaluate


def frame(number: int) -> Atoms:
    """Of as many atoms as there are frames of its kind, so that no two batches are alike."""
    positions = np.arange(3.0 * (2 + number % 3)).reshape(-1, 3) + 0.01 * number
    return Atoms(["Si", "O", *"O" * (number % 3)], positions=positions, cell=[20, 20, 20], pbc=True)


class OneByOne:
    """Two models that disagree by where the first atom is."""

    def __init__(self, models: list[Path]) -> None:
        pass

    def evaluate_stream(self, structures: Iterable[Atoms]) -> Iterator[tuple[Atoms, EnsembleEvaluation]]:
        for atoms in structures:
            forces = np.zeros((2, len(atoms), 3))
            forces[1, 0, 0] = 2 * atoms.positions[0, 0]
            yield atoms, EnsembleEvaluation(np.zeros(2), forces, np.zeros((2, 3, 3)))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(evaluate, "Ensemble", OneByOne)
    monkeypatch.setattr(evaluate, "model_file", lambda context, key: Path(key))
    monkeypatch.setattr(describe, "describer_of", lambda context: None)
    (tmp_path / "out").mkdir()
    return SimpleNamespace(out=tmp_path / "out", result_of=lambda key: tmp_path / key, spec={"models": ["m"]})


def test_labels_are_read_as_they_are_evaluated(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []

    class Label(LabeledFrame):
        def __del__(self) -> None:
            alive.pop()

    def read_label(result: Path) -> LabeledFrame:
        alive.append(1)
        most.append(len(alive))
        atoms = frame(int(result.name[1:]))
        return Label(atoms, 1.0, np.full((len(atoms), 3), 0.5), np.zeros((3, 3)))

    most: list[int] = []
    monkeypatch.setattr(evaluate, "read_label", read_label)
    keys = [f"l{number:02d}" for number in range(30)]
    context.spec |= {"sets": {"new": keys}}
    evaluate.run(context)
    assert len(most) == 30 and max(most) <= 3, "a whole campaign's labels do not fit into memory"
    with np.load(context.out / "errors.npz") as errors:
        assert errors["label"].tolist() == keys
        assert errors["n_atoms"].tolist() == [2 + number % 3 for number in range(30)]
        np.testing.assert_allclose(errors["max_deviation_eV_A"], 0.01 * np.arange(30), atol=1e-12)
    assert read_json(context.out / "summary.json")["new"]["labels"] == 30


def test_a_backlog_is_ranked_chunk_by_chunk(context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for chunk in range(4):
        (tmp_path / f"c{chunk}").mkdir()
        write_frames(tmp_path / f"c{chunk}" / "frames.npz", [frame(10 * chunk + number) for number in range(6)])
    read: list[str] = []
    true = evaluate.read_structures
    monkeypatch.setattr(
        evaluate, "read_structures", lambda result, frames: read.append(result.name) or true(result, frames)
    )
    told: list[int] = []
    deviation_of = evaluate.force_deviation
    monkeypatch.setattr(evaluate, "force_deviation", lambda forces: told.append(len(read)) or deviation_of(forces))
    context.spec |= {"frames": {f"c{chunk}": [1, 4] for chunk in range(4)}}
    evaluate.run(context)
    assert told == [1, 1, 2, 2, 3, 3, 4, 4], "a chunk is read as its turn comes"
    numbers = [10 * chunk + number for chunk in range(4) for number in (1, 4)]
    with np.load(context.out / "ranks.npz") as ranks:
        assert ranks["frame"].tolist() == [1, 4] * 4
        np.testing.assert_allclose(ranks["max_deviation_eV_A"], 0.01 * np.array(numbers), atol=1e-12)
    summary = read_json(context.out / "summary.json")
    found = DeviationStatistics.from_json(summary["max_deviations_eV_A"])
    assert summary["frames"] == found.total == 8 and found.maximum == pytest.approx(0.34)
