"""From a foundation's labels to the campaign's own: which structures, by how much energies shift, what is said."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from campaign_kit import content
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from alloop.decisions import DECIDERS
from alloop.decisions.levels import decide_pretrain, energy_shift, spread_over_trajectories
from alloop.decisions.training import _start_from
from alloop.errors import NeedsPersonError
from alloop.report.progress import Watcher
from alloop.state import State
from alloop.store import make_task

ELEMENTS = ["Li", "B", "O", "Si"]
SHIFT_EV = {"Li": 1.0, "B": -2.0, "O": 300.0, "Si": 0.5}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 60))
def test_trajectories_take_turns(sizes: list[int], count: int) -> None:
    groups = {f"t{n}": [f"t{n}.{place}" for place in range(size)] for n, size in enumerate(sizes)}
    found = spread_over_trajectories(groups, count)
    assert len(found) == len(set(found)) == min(count, sum(sizes))
    shares = Counter(key.split(".")[0] for key in found)
    most = max(shares.values(), default=0)
    for name, keys in groups.items():
        assert shares[name] == len(keys) or shares[name] >= most - 1, "with keys left, as many as any, or one less"


@pytest.mark.parametrize("share", [1, 2, 5])
def test_trajectories_are_covered_from_end_to_end(share: int) -> None:
    groups = {f"t{n}": [f"{place}" for place in range(20)] for n in range(10)}
    places = sorted(int(key) for key in spread_over_trajectories(groups, 10 * share))
    thirds = Counter(place * 3 // 20 for place in places)
    assert min(places) <= 2 and max(places) >= 17
    assert all(0.2 < thirds[third] / len(places) < 0.5 for third in range(3))


def test_fewer_keys_than_trajectories_reach_the_last_ones_too() -> None:
    groups = {f"t{n:02d}": [f"t{n:02d}.{place}" for place in range(3)] for n in range(12)}
    found = spread_over_trajectories(groups, 6)
    assert [key.split(".")[0] for key in found] == ["t00", "t02", "t04", "t06", "t08", "t10"]


class Labelled:
    """A campaign of which only twice labelled structures are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.picks: list[dict[str, Any]] = []
        self.state = State(level="own")
        self.state.decisions["promote", 0] = {"picks": self.picks}

    def result(self, key: str) -> Path:
        return self.folder / key

    def add(self, counts: dict[str, int], error_eV: float = 0.0, role: str = "training", done: bool = True) -> str:
        """Label a structure of a composition by both, off by more than the shift if so asked."""
        key = f"k{len(self.picks)}"
        symbols = [element for element, count in counts.items() for _ in range(count)]
        cheap_eV = float(-7 * len(symbols) + len(self.picks))
        own_eV = cheap_eV + sum(SHIFT_EV[symbol] for symbol in symbols) + error_eV
        for name, energy_eV in ((key, own_eV), (f"cheap-{key}", cheap_eV)):
            (self.folder / name).mkdir()
            record = {"structure": {"symbols": symbols}, "energy_eV": energy_eV}
            (self.folder / name / "label.json").write_text(json.dumps(record))
        self.picks.append({"key": key, "of": f"cheap-{key}", "role": role, "level": "own"})
        self.state.picks[f"cheap-{key}"] = {"key": f"cheap-{key}", "role": role, "level": "cheap"}
        self.state.picks[key] = self.picks[-1]
        if done:
            self.state.done.add(key)
        return key

    def relabel(self, level: str, error_eV: float) -> None:
        """Label all structures of now once more, at another level."""
        for key, pick in list(self.state.picks.items()):
            if pick["level"] == self.state.level:
                label = json.loads((self.folder / key / "label.json").read_text())
                (self.folder / f"{level}-{key}").mkdir()
                label["energy_eV"] += error_eV * len(label["structure"]["symbols"])
                (self.folder / f"{level}-{key}" / "label.json").write_text(json.dumps(label))
                self.state.picks[f"{level}-{key}"] = pick | {"key": f"{level}-{key}", "of": key, "level": level}
                self.state.done.add(f"{level}-{key}")
        self.state.level = level

    def shift(self) -> dict[str, float]:
        return energy_shift(self, 1, ELEMENTS)  # type: ignore[arg-type]


def of(oxides: dict[str, int]) -> dict[str, int]:
    li, b, si = (oxides.get(name, 0) for name in ("Li2O", "B2O3", "SiO2"))
    return {"Li": 2 * li, "B": 2 * b, "Si": si, "O": li + 3 * b + 2 * si}


def total(shift: dict[str, float], counts: dict[str, int]) -> float:
    return sum(count * shift[element] for element, count in counts.items())


def test_energy_shift_is_found_where_compositions_fix_it(tmp_path: Path) -> None:
    campaign = Labelled(tmp_path)
    for counts in ({"Li": 4, "O": 2}, {"B": 2, "O": 3, "Li": 1}, {"Si": 3, "O": 6}, {"Si": 1, "O": 7}):
        campaign.add(counts)
    assert campaign.shift() == pytest.approx(SHIFT_EV)


def test_energy_shift_of_oxides_holds_for_every_mixture_of_them(tmp_path: Path) -> None:
    campaign = Labelled(tmp_path)
    for oxides in ({"Li2O": 4, "B2O3": 12, "SiO2": 4}, {"Li2O": 4, "B2O3": 2, "SiO2": 4}, {"Li2O": 3, "B2O3": 7}):
        campaign.add(of(oxides))
    found, other = campaign.shift(), of({"Li2O": 1, "B2O3": 5, "SiO2": 9})
    assert total(found, other) == pytest.approx(total(SHIFT_EV, other))
    assert np.linalg.norm(list(found.values())) <= np.linalg.norm(list(SHIFT_EV.values()))


def test_energy_shift_of_one_composition_brings_it_onto_the_scale(tmp_path: Path) -> None:
    campaign = Labelled(tmp_path)
    counts = of({"Li2O": 4, "B2O3": 12, "SiO2": 4})
    for error_eV in (-0.5, 0.5):
        campaign.add(counts, error_eV)
    assert total(campaign.shift(), counts) == pytest.approx(total(SHIFT_EV, counts))


def test_energy_shift_is_not_pulled_by_one_overlap(tmp_path: Path) -> None:
    campaign = Labelled(tmp_path)
    counts = of({"Li2O": 4, "B2O3": 12, "SiO2": 4})
    for _ in range(9):
        campaign.add(counts)
    campaign.add(counts, 80.0)
    atoms = sum(counts.values())
    assert total(campaign.shift(), counts) / atoms == pytest.approx(total(SHIFT_EV, counts) / atoms, abs=0.01)


def test_energy_shift_is_blind_to_held_out_excluded_and_lost_labels(tmp_path: Path) -> None:
    campaign = Labelled(tmp_path)
    counts = of({"Li2O": 1, "B2O3": 3, "SiO2": 1})
    campaign.add(counts)
    campaign.add(counts, 1000.0, role="held_out")
    campaign.add(counts, 1000.0, done=False)
    campaign.state.excluded[campaign.add(counts, 1000.0)] = {}
    assert total(campaign.shift(), counts) == pytest.approx(total(SHIFT_EV, counts))


@pytest.mark.parametrize("done", [True, False])
def test_energy_shift_is_onto_the_level_that_labels_were_made_anew_at(tmp_path: Path, done: bool) -> None:
    """Also where none of the promoted labels was finished before the level changed, twice."""
    campaign = Labelled(tmp_path)
    counts = of({"Li2O": 1, "B2O3": 3, "SiO2": 1})
    campaign.add(counts, done=done)
    campaign.relabel("second", 5.0)
    campaign.relabel("third", 0.5)
    assert total(campaign.shift(), counts) == pytest.approx(total(SHIFT_EV, counts) + 5.5 * sum(counts.values()))


def test_pretraining_does_without_the_foundation_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person may take the section out once the foundation has done its part."""
    campaign = Labelled(tmp_path)
    campaign.add(of({"Li2O": 1, "B2O3": 3, "SiO2": 1}))
    campaign.state.done.add("cheap-k0")
    campaign.state.starts.append({"levels": {"target": {"name": "own", "content": {}}, "foundation": None}})
    monkeypatch.setattr("alloop.decisions.levels.training_tasks", lambda *given, **_: {"training": given[4]})
    found = decide_pretrain(campaign, SimpleNamespace(elements=ELEMENTS), 1)  # type: ignore[arg-type]
    assert found == {"training": ["cheap-k0"]}


def test_without_a_structure_of_both_labels_a_person_is_asked(tmp_path: Path) -> None:
    campaign = Labelled(tmp_path)
    campaign.add({"Li": 2, "O": 1}, done=False)
    with pytest.raises(NeedsPersonError, match="label of both"):
        campaign.shift()


MODEL: dict[str, Any] = {"descriptor": {"type": "se_e2_a"}}


def test_pretraining_starts_anew_and_the_first_own_training_from_it() -> None:
    network, state = {"cutoff_A": 6.0}, State()
    campaign = SimpleNamespace(state=state)
    models = {}
    for number, (kind, iteration) in enumerate([("train", 0), ("pretrain", 1), ("train", 1)]):
        found = _start_from(campaign, iteration, kind, network, MODEL)  # type: ignore[arg-type]
        assert found == {"train0": [], "pretrain1": [], "train1": models.get("pretrain1")}[f"{kind}{iteration}"]
        task = make_task("train", "g", "model.00", {"seed": number})
        asked = content([task], {"network": network, "template": {"model": MODEL}, "training": []})
        state.apply({"number": number, "kind": kind, "iteration": iteration} | asked)
        state.settle_done(task.key)
        models[f"{kind}{iteration}"] = [task.key]
    assert _start_from(campaign, 2, "train", network, MODEL) == models["train1"]  # type: ignore[arg-type]


COMMON: dict[str, Any] = {"common": {"training": ["a"], "models": []}, "tasks": [], "picks": [], "inputs": []}
SAID: dict[str, dict[str, Any]] = {
    "promote": {"level": {"name": "vasp-1"}},
    "select": {"classes": {"accurate": 1, "candidate": 0, "failed": 0}, "reasons": {}},
    "verdict": {"converged": False, "reason": "because"},
    "explore": {"withdrawn": ["a"]},
    "rank": {"tasks": [{"spec": {"frames": {"a": [1, 2]}}}]},
    "describe": {"labels": ["a"]},
    "quench": {"converged": True},
    "guard": {"reason": "no run left it"},
}


@pytest.mark.parametrize(("order", "kept"), [(["relabel", "pretrain"], True), (["pretrain", "relabel"], False)])
def test_pretraining_counts_unless_labels_were_made_anew_after_it(order: list[str], kept: bool) -> None:
    network, state = {"cutoff_A": 6.0}, State()
    task = make_task("train", "g", "model.00", {"seed": 1})
    more = {
        "pretrain": {"iteration": 1} | content([task], {"network": network, "template": {"model": MODEL}}),
        "relabel": {"iteration": 0, "level": {"name": "B", "content": {}}, "picks": []},
    }
    for number, kind in enumerate(order):
        state.apply({"number": number, "kind": kind} | more[kind])
    state.settle_done(task.key)
    found = _start_from(SimpleNamespace(state=state), 1, "train", network, MODEL)  # type: ignore[arg-type]
    assert found == ([task.key] if kept else [])


def test_a_longer_training_goes_on_from_its_own_ensemble_if_the_network_is_still_that() -> None:
    network, state = {"cutoff_A": 6.0}, State()
    for number in range(2):
        task = make_task("train", "g", "model.00", {"seed": number})
        trained = content([task], {"network": network, "template": {"model": MODEL}, "training": []})
        state.apply({"number": number, "kind": "train", "iteration": number} | trained)
        state.settle_done(task.key)
    campaign: Any = SimpleNamespace(state=state)
    assert _start_from(campaign, 1, "final_train", network, MODEL) == [task.key]
    assert _start_from(campaign, 1, "final_train", {"cutoff_A": 5.0}, MODEL) == []
    another = {"descriptor": {"type": "se_e3"}}
    assert _start_from(campaign, 1, "final_train", network, another) == [], "the template was edited"


@pytest.mark.parametrize("kind", [*DECIDERS, "relabel"])
def test_every_decision_is_told(kind: str) -> None:
    told = io.StringIO()
    Watcher(Console(file=told)).decided(kind, 1, COMMON | SAID.get(kind, SAID["promote"]))
    assert "iteration 1: " in told.getvalue()
