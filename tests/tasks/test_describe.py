"""Environments of kept frames and of training data, with a stand-in for the model that describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alloop.selection.diversity import Environments
from alloop.store import read_json
from alloop.tasks import describe
from alloop.tasks.describe import describe_kept, describe_labels, most_uncertain, read_environments, read_known


class Positions:
    """Describes an atom by where it is."""

    dimensions = 3

    def describe(
        self, structures: Sequence[Atoms], atoms_of_interest: Sequence[np.ndarray] | None = None
    ) -> list[Environments]:
        wanted = [np.arange(len(atoms)) for atoms in structures] if atoms_of_interest is None else atoms_of_interest
        return [
            Environments(atoms.numbers[own].astype(np.int16), atoms.positions[own].astype(np.float32))
            for atoms, own in zip(structures, wanted, strict=True)
        ]


def molecule(shift: float) -> Atoms:
    return Atoms("SiO2", positions=np.arange(9.0).reshape(3, 3) + shift, cell=[20, 20, 20], pbc=True)


def context(tmp_path: Path, spec: dict[str, Any], name: str = "out") -> Any:
    out = tmp_path / name
    out.mkdir()
    return SimpleNamespace(spec=spec, out=out, result_of=lambda key: tmp_path / key, progress=lambda share, what: None)


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "describer_of", lambda context: Positions())
    labels = {f"l{n}": SimpleNamespace(atoms=molecule(float(n))) for n in range(9)}
    monkeypatch.setattr(describe, "read_label", lambda result: labels[result.name])


def test_environments_of_the_offending_atoms_come_back_by_frame_and_reason(tmp_path: Path, described: None) -> None:
    frames = [molecule(0.0), molecule(10.0), molecule(20.0)]
    offending = {"overlap": [np.array([1, 2]), np.array([], dtype=int), np.array([0])]}
    here = context(tmp_path, {})
    describe_kept(here, frames, [np.eye(3)[atom] for atom in (0, 2, 1)], offending)
    found = read_environments(here.out)
    assert [sorted(by_reason) for by_reason in found] == [
        ["candidate", "overlap"],
        ["candidate"],
        ["candidate", "overlap"],
    ]
    assert found[0]["overlap"].vectors.tolist() == frames[0].positions[[1, 2]].tolist()
    assert found[1]["candidate"].elements.tolist() == [8]
    assert found[2]["candidate"].vectors.tolist() == frames[2].positions[[1]].tolist()


def test_an_event_of_all_atoms_is_told_by_the_same_ones_in_whatever_order_they_are_listed(
    tmp_path: Path, described: None
) -> None:
    """As a frame's density or temperature is: else whichever element is listed first would stand for the frame."""
    rng = np.random.default_rng(1)
    atoms = Atoms("Si3B30O60Li2", positions=rng.uniform(0, 20, (95, 3)), cell=[20, 20, 20], pbc=True)
    deviation, everyone = rng.uniform(0.01, 1.0, 95), np.arange(95)
    told = []
    for name, order in (("listed", everyone), ("mixed", rng.permutation(95)), ("backwards", everyone[::-1])):
        here = context(tmp_path, {}, name)
        describe_kept(here, [atoms[order]], [deviation[order]], {"density": [everyone]})
        found = read_environments(here.out)[0]["density"]
        told.append({(n, *v) for n, v in zip(found.elements.tolist(), found.vectors.tolist(), strict=True)})
    assert told[0] == told[1] == told[2] and len(told[0]) == 16
    chosen = most_uncertain(everyone, atoms.numbers, deviation)
    turns = Counter(atoms.symbols[chosen])
    assert (turns["Si"], turns["Li"]) == (3, 2) and {turns["B"], turns["O"]} == {5, 6}, "every element has its turns"
    for element in ("B", "O"):
        own = np.flatnonzero(atoms.symbols == element)
        taken = np.intersect1d(own, chosen)
        assert deviation[taken].min() > deviation[np.setdiff1d(own, taken)].max()


def test_chunk_without_a_kept_frame_and_campaign_without_a_describing_model(
    tmp_path: Path, described: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = context(tmp_path, {})
    describe_kept(here, [], [], {"overlap": []})
    assert read_environments(here.out) == []
    monkeypatch.setattr(describe, "describer_of", lambda context: None)
    bare = context(tmp_path, {}, "bare")
    describe_kept(bare, [molecule(0.0)], [np.ones(3)], {})
    assert list(bare.out.iterdir()) == [] and read_environments(bare.out) == []


def test_training_data_are_known_and_later_labels_join_them_on_the_same_scale(tmp_path: Path, described: None) -> None:
    first = context(tmp_path, {"labels": ["l0", "l1", "l2"], "before": None}, "first")
    describe_labels(first)
    second = context(tmp_path, {"labels": ["l7"], "before": "first"}, "second")
    describe_labels(second)
    before, after = read_known(first.out), read_known(second.out)
    assert before is not None and after is not None
    (old,), (new,) = Positions().describe([molecule(1.0)]), Positions().describe([molecule(7.0)])
    assert before.novelty(old).max() < 1e-6 and before.novelty(new).min() > 0.1
    assert max(after.novelty(old).max(), after.novelty(new).max()) < 1e-6
    assert all(map(np.array_equal, vars(before.scale).values(), vars(after.scale).values()))
    assert read_json(second.out / "summary.json") == {"labels": 1}


def test_nothing_to_describe_leaves_nothing_known(tmp_path: Path, described: None) -> None:
    here = context(tmp_path, {"labels": [], "before": None})
    describe_labels(here)
    assert read_known(here.out) is None and read_json(here.out / "summary.json") == {"labels": 0}
