"""What the probe's short quenches made, and whether that is the same over ensembles and cell sizes."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from campaign_kit import param

from alloop.decisions.probing import probe_criteria, probed
from alloop.store import write_json

GLASS = "LBS-20-60-20"


class Probes:
    """A campaign of which only the probes are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: Any = SimpleNamespace(decisions={}, done=set())

    def result(self, key: str) -> Path:
        return self.folder / key

    def add(self, iteration: int, atoms: int, fractions_4B: list[float | None], **changes: Any) -> None:
        """The final holds of one ensemble's replicas; None for one that was lost."""
        decision = self.state.decisions.setdefault(("probe", iteration), {"tasks": [], "runs": []})
        for replica, fraction in enumerate(fractions_4B):
            key = f"k{iteration}.{atoms}.{replica}"
            decision["tasks"].append({"key": key, "spec": {"analyse_from_step": 0}})
            decision["tasks"].append({"key": f"{key}.melt", "spec": {"analyse_from_step": None}})
            decision["runs"].append({"name": key, "glass": GLASS, "atoms": atoms, "tasks": [f"{key}.melt", key]})
            self.state.done.add(key)
            self.result(key).mkdir()
            frame = {"fraction_4B": fraction, "fraction_5Si": 0.0, "composition": {"B": 12, "O": 30, "Si": 3}} | changes
            frames = [frame | {"rings": {"counts": {"3": count}}} for count in (1, 3)]
            write_json(self.result(key) / "analysis.json", [] if fraction is None else frames)
            write_json(self.result(key) / "summary.json", {"status": "finished" if fraction is not None else "lost"})
            self.rdf(key)

    def rdf(self, key: str, second_peak: float = 5.0) -> None:
        """The g(r) of one final hold; second_peak: height of both pairs' at 2.4 A, beyond all bonds."""
        rows = ["r_A,total,B-O,O-Si", "1.3,0,4,0", "1.5,0,4,0", "1.6,0,0,9", "2.4,5,{0},{0}", "6.0,9,{0},{0}"]
        (self.result(key) / "rdf.csv").write_text("\n".join(rows).format(second_peak) + "\n")


@pytest.fixture
def probes(tmp_path: Path) -> Any:
    return Probes(tmp_path)


def test_values_are_means_over_replicas_with_the_error_between_them(probes: Any) -> None:
    probes.add(0, 63, [0.3, 0.4, 0.5])
    (found,) = probed(probes, 0)
    assert (found["glass"], found["atoms"], found["replicas"]) == (GLASS, 63, 3)
    assert found["4B"]["value"] == pytest.approx(0.4)
    assert found["4B"]["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
    assert found["3-membered rings"]["value"] == pytest.approx(2 / 12), "two a frame, of twelve boron"
    bond_A = (1.3**3 + 1.5**3) / (1.3**2 + 1.5**2)  # atoms at r are r^2 g(r)
    assert found["B-O bond"]["value"] == pytest.approx(bond_A)
    assert found["Si-O bond"]["value"] == pytest.approx(1.6), "whichever way round the pair is named"


def test_a_lost_replica_is_left_out_and_one_alone_tells_nothing(probes: Any) -> None:
    probes.add(0, 63, [0.3, None, 0.5])
    probes.add(1, 63, [0.3, None, None])
    assert probed(probes, 0)[0]["4B"]["replicas"] == 2
    assert probed(probes, 1)[0]["4B"] is None
    assert probed(probes, 2) == []


def test_glass_without_boron_has_no_rings_to_count(probes: Any) -> None:
    probes.add(0, 63, [0.0, 0.0], fraction_4B=None, composition={"Si": 3})
    (found,) = probed(probes, 0)
    assert found["4B"] is None and found["3-membered rings"] is None and found["5Si"]["value"] == 0.0


def states(probes: Any, iteration: int, **changes: Any) -> dict[str, str]:
    criteria = probe_criteria(probes, param(stop={"probe": {"iterations": 2} | changes}), iteration)
    return {f"{one.name} {'atoms' if 'over atoms' in one.sentence else ''}".strip(): one.state for one in criteria}


def test_the_last_ensembles_must_make_the_same_glass(probes: Any) -> None:
    for iteration, values in enumerate([[0.10, 0.11, 0.12], [0.40, 0.41, 0.42], [0.41, 0.40, 0.43]]):
        probes.add(iteration, 63, values)
    name = f"stability of 4B of {GLASS}"
    assert states(probes, 0)[name] == "unknown"
    assert states(probes, 1)[name] == "unmet"
    assert states(probes, 2)[name] == "met"
    assert states(probes, 2, iterations=3)[name] == "unmet"


def test_noise_that_could_hide_a_change_is_not_stability(probes: Any) -> None:
    for iteration, middle in enumerate((0.3, 0.4, 0.5)):
        probes.add(iteration, 63, [middle - 0.14, middle, middle + 0.14])  # +- 0.08
    own = param(stop={"probe": {"iterations": 3}})
    (found,) = [one for one in probe_criteria(probes, own, 2) if one.name == f"stability of 4B of {GLASS}"]
    assert found.state == "unknown"
    assert "not resolved" in found.sentence and "0.15 allowed" in found.sentence and "more replicas" in found.sentence
    assert states(probes, 2, iterations=3, tolerance={"fraction": 1.0})[found.name] == "met"


def test_a_quench_that_blew_up_is_told_and_keeps_the_probe_from_being_met(probes: Any) -> None:
    for iteration in range(2):
        probes.add(iteration, 63, [0.40, 0.41, 0.42, None] if iteration else [0.40, 0.41, 0.42])
    found = probe_criteria(probes, param(stop={"probe": {}}), 1)
    (lost,) = [one for one in found if one.name == "quenches of the probe"]
    assert lost.state == "unknown" and lost.sentence.startswith("1 of 4 quenches of the probe made no glass: ")
    assert not [one for one in probe_criteria(probes, param(stop={"probe": {}}), 0) if one.name == lost.name]


def test_cell_sizes_are_compared_for_the_newest_ensemble(probes: Any) -> None:
    for iteration in range(2):
        probes.add(iteration, 63, [0.40, 0.41, 0.42])
        probes.add(iteration, 189, [0.20, 0.21, 0.22])
    found = states(probes, 1)
    assert found[f"stability of 4B of {GLASS}"] == "met"
    assert found[f"stability of 4B of {GLASS} atoms"] == "unmet"


def test_without_a_finished_quench_nothing_is_known_and_without_a_probe_nothing_is_asked(probes: Any) -> None:
    assert list(states(probes, 0).values()) == ["unknown"]
    assert probe_criteria(probes, param(), 0) == []


def test_what_was_lost_altogether_is_unknown_and_not_left_out(probes: Any) -> None:
    for iteration in range(2):
        probes.add(iteration, 63, [0.40, 0.41, 0.42])
        probes.add(iteration, 189, [None, None, None] if iteration else [0.4, 0.41, 0.42])
    found = states(probes, 1)
    assert found[f"stability of 4B of {GLASS}"] == "met"
    assert found[f"stability of 4B of {GLASS} atoms"] == "unknown"
    probes.state.done.clear()
    assert set(states(probes, 1).values()) == {"unknown"}


def test_chunks_of_one_final_hold_are_one_replica(probes: Any) -> None:
    probes.add(0, 63, [0.3, 0.5])
    decision = probes.state.decisions["probe", 0]
    first = decision["tasks"][0]
    decision["runs"][0]["tasks"].append(first["key"])
    (found,) = probed(probes, 0)
    assert found["replicas"] == 2 and found["4B"]["standard_error"] == pytest.approx(0.1)
    decision["tasks"].append(first | {"key": "gone"})
    decision["runs"][0]["tasks"][-1] = "gone"
    assert probed(probes, 0)[0]["replicas"] == 1, "a hold of which a part is missing"


def test_g_of_r_beyond_the_bonds_must_be_the_same(probes: Any) -> None:
    """Fractions and bond lengths agree throughout; the newest ensemble's second shell does not."""
    name = f"stability of g(r) of {GLASS}"
    for iteration in range(2):
        for atoms in (63, 189):
            probes.add(iteration, atoms, [0.40, 0.41, 0.42])
    keys = {where: [f"k{where[0]}.{where[1]}.{n}" for n in range(3)] for where in ((0, 63), (1, 63), (1, 189))}
    for spread in keys.values():
        for key, height in zip(spread, (4.9, 5.0, 5.1), strict=True):
            probes.rdf(key, height)
    assert states(probes, 1)[name] == states(probes, 1)[f"{name} atoms"] == "met"
    for key, height in zip(keys[1, 189], (6.9, 7.0, 7.1), strict=True):
        probes.rdf(key, height)
    found = states(probes, 1)
    assert found[name] == "met" and found[f"{name} atoms"] == "unmet"
    for key, height in zip(keys[1, 63], (6.9, 7.0, 7.1), strict=True):
        probes.rdf(key, height)
    found = states(probes, 1)
    assert found[name] == "unmet" and found[f"{name} atoms"] == "met"
    assert {state for own, state in found.items() if "g(r)" not in own} == {"met"}, "nothing else sees it"
    assert states(probes, 1, tolerance={"rdf_A": 9.0})[name] == "met", "allowed"
    assert states(probes, 1, tolerance={"rdf_A": 0.01})[f"{name} atoms"] == "unknown", "hidden in the spread"


def test_g_of_r_of_one_replica_is_not_known(probes: Any) -> None:
    probes.add(0, 63, [0.3, 0.4, 0.5])
    probes.add(1, 63, [0.3, None, None])
    assert states(probes, 1)[f"stability of g(r) of {GLASS}"] == "unknown"


def test_the_melt_of_a_probe_is_hot_and_long_enough_for_copies_to_part() -> None:
    own = param(stop={"probe": {}}).stop.probe
    assert own is not None and own.melt_temperature_K >= 2500 and own.melt_ps >= 5
