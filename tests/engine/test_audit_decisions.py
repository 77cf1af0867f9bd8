"""What decisions make of the random audit: its pairs, the trust levels that follow them, and where these hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.decisions.calibration import (
    audit_groups,
    audit_pairs,
    audit_record,
    audited,
    calibrate,
    explored_quantiles,
    levels_at,
    measured_audits,
    newest_trust,
    trust_entries,
    trust_moves,
)
from alloop.frames import write_arrays
from alloop.select_params import SelectParam
from alloop.selection.trust import TrustLevels

COLD, HOT = "below 600 K", "1250-2250 K"
GLASS = "LBS-20-60-20"


class Audits:
    """A campaign of which only audits are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: Any = SimpleNamespace(decisions={}, done=set(), picks={}, level="own")
        self.status: dict[str, str] = {}

    def result(self, key: str) -> Path:
        return self.folder / key

    def summary(self, key: str) -> dict[str, str]:
        return {"status": self.status[key]}

    def judge(self, iteration: int, labels: dict[str, tuple[float, float]], **picks: dict[str, Any]) -> None:
        """Measure labels, (deviation, error) in eV/Å, all drawn at random unless `picks` says otherwise."""
        for key in labels:
            record = {
                "level": "own",
                "reason": "audit",
                "stratum": f"{GLASS} 300K",
                "band": COLD,
                "trajectory": key,
                "key": key,
            }
            self.state.picks[key] = {"iteration": iteration, "trust_class": "accurate"} | record | picks.get(key, {})
        drawn = [key for key in labels if self.state.picks[key].pop("drawn", True)]
        own = [self.state.picks[key] for key in labels]
        self.state.decisions["select", iteration] = {"audit": drawn, "picks": own}
        self.state.decisions["evaluate", iteration] = {"tasks": [{"key": f"e{iteration}"}]}
        self.state.done.add(f"e{iteration}")
        self.result(f"e{iteration}").mkdir()
        table = {
            "label": np.array(list(labels)),
            "max_deviation_eV_A": np.array([deviation for deviation, _ in labels.values()]),
            "force_max": np.array([error for _, error in labels.values()]),
            "mean_force_se": np.array([30.0 * error**2 for _, error in labels.values()]),
            "n_atoms": np.full(len(labels), 10),
        }
        write_arrays(self.result(f"e{iteration}") / "errors.npz", table)

    def explore(self, iteration: int, trust: dict[tuple[str, str], TrustLevels], **more: Any) -> None:
        moves = {group: SimpleNamespace(levels=levels, reason="as told") for group, levels in trust.items()}
        self.state.decisions["explore", iteration] = {"trust": trust_entries(moves)} | more  # type: ignore[arg-type]

    def chunk(
        self, iteration: int, name: str, deviations: list[float], target_K: list[float], status: str = "finished"
    ) -> None:
        """Add a finished chunk to an exploration: its records' largest deviations (eV/A) at target temperatures."""
        key = f"x{iteration}.{name}"
        self.state.decisions["explore", iteration].setdefault("tasks", []).append({"key": key, "name": name})
        self.state.done.add(key)
        self.status[key] = status
        self.result(key).mkdir()
        table = {"max_force_deviation_eV_A": np.array(deviations), "target_temperature_K": np.array(target_K)}
        write_arrays(self.result(key) / "table.npz", table)


@pytest.fixture
def audits(tmp_path: Path) -> Any:
    return Audits(tmp_path)


def own(**changes: Any) -> Any:
    return SimpleNamespace(select=SelectParam.model_validate(changes))


def drawn(count: int, name: str, factor: float = 4.0) -> dict[str, tuple[float, float]]:
    """Labels whose error is so many times their deviation, scattered by 20 %."""
    rng = np.random.default_rng(len(name))
    deviations = np.exp(rng.uniform(np.log(0.03), np.log(3.0), count))
    errors = factor * deviations * np.exp(rng.normal(0, 0.2, count))
    return {f"{name}{n}": pair for n, pair in enumerate(zip(deviations.tolist(), errors.tolist(), strict=True))}


def test_a_frame_asked_for_before_it_was_drawn_is_part_of_the_sample(audits: Any) -> None:
    audits.judge(0, {"a": (0.1, 0.4), "b": (0.5, 2.0)}, b={"reason": "candidate", "trust_class": "candidate"})
    pairs = audit_pairs(audits)
    assert [(pair.identity, pair.deviation_eV_A, pair.error_eV_A) for pair in pairs] == [
        ("a", 0.1, 0.4),
        ("b", 0.5, 2.0),
    ]
    assert {pair.reason for pair in pairs} == {"audit"}


def test_labels_asked_for_by_deviation_or_event_never_calibrate(audits: Any) -> None:
    audits.judge(0, {"a": (0.1, 0.4), "b": (0.5, 2.0)}, b={"reason": "candidate", "drawn": False})
    assert [pair.identity for pair in audit_pairs(audits)] == ["a"]


def test_errors_beside_another_level_of_theory_are_none(audits: Any) -> None:
    audits.judge(0, {"a": (0.1, 0.4)}, a={"level": "foundation"})
    audits.judge(1, {"b": (0.1, 0.4)})
    assert [pair.identity for pair in audit_pairs(audits)] == ["b"]


def test_what_was_not_measured_or_has_no_finite_deviation_is_left_out(audits: Any) -> None:
    audits.judge(0, {"a": (0.1, 0.4), "b": (np.nan, 2.0)})
    audits.state.decisions["select", 0]["audit"].append("failed")
    audits.state.picks["failed"] = audits.state.picks["a"] | {"key": "failed"}
    assert [one.pair.identity for one in audited(audits, 0)] == ["a"]
    audits.state.done.clear()
    assert audited(audits, 0) == []


def test_errors_of_the_accurate_part_stand_apart(audits: Any) -> None:
    audits.judge(0, {"a": (0.1, 0.3), "b": (0.2, 0.3), "c": (2.0, 9.0)}, c={"trust_class": "failed"})
    record = audit_record(audits, 0, 1)
    assert record["by_class"]["accurate"]["rmse_eV_A"] == pytest.approx(0.3)
    assert record["errors"][0]["rmse_eV_A"] == pytest.approx(np.sqrt((0.09 + 0.09 + 81) / 3))
    assert "on 3 audit label" in record["errors"][0]["sentence"]


def test_groups_take_in_earlier_audits_only_as_far_as_they_need(audits: Any) -> None:
    """Labels of the newest audit count first; 2 a time of one band, 5 of another, one of a third."""
    for iteration in range(5):
        error = 2.0 - 0.4 * iteration
        labels = {f"i{iteration}.{n}": (0.1, error) for n in range(8)}
        hot = {f"i{iteration}.{n}": {"band": HOT} for n in range(2, 7)}
        lone = {f"i{iteration}.7": {"band": "lone", "trajectory": "same"}}
        audits.judge(iteration, labels, **hot, **lone)
    found = {
        group["band"]: group
        for group in audit_groups(audits, 4, [(GLASS, band) for band in (COLD, HOT, "lone", "none")], 1)
    }
    assert {band: (own["labels"], own["since"]) for band, own in found.items()} == {
        COLD: (6, 2),
        HOT: (5, 4),
        "lone": (5, 0),
    }
    assert found[HOT]["rmse_eV_A"] == pytest.approx(0.4)
    assert found[COLD]["rmse_eV_A"] == pytest.approx(np.sqrt((0.4**2 + 0.8**2 + 1.2**2) / 3))
    assert found["lone"]["trajectories"] == 1
    assert audit_groups(audits, 0, [(GLASS, COLD)], 1)[0]["labels"] == 2, "what came later is not known yet"


def test_fixed_levels_stay_whatever_the_audit_says(audits: Any) -> None:
    audits.judge(0, drawn(200, "a"))
    moves = trust_moves(audits, own(trust="fixed", trust_low_eV_A=0.1, trust_high_eV_A=0.7), {(GLASS, COLD)})
    assert [move.levels for move in moves.values()] == [TrustLevels(0.1, 0.7)]


def test_without_enough_labels_levels_stay_where_they_begin(audits: Any) -> None:
    assert trust_moves(audits, own(), {(GLASS, COLD)})[GLASS, COLD].levels == TrustLevels(0.25, 1.0)
    audits.judge(0, drawn(5, "a"))
    move = trust_moves(audits, own(), {(GLASS, COLD)})[GLASS, COLD]
    assert move.levels == TrustLevels(0.25, 1.0) and "too few" in move.reason


def test_levels_move_step_by_step_to_where_the_error_is(audits: Any) -> None:
    """With errors of four deviations, 0.4 and 2 eV/A are met at 0.1 and 0.5; a step is a quarter at most."""
    param = own(error_low_eV_A=0.4, error_high_eV_A=2.0)
    for iteration in range(8):
        moves = trust_moves(audits, param, {(GLASS, COLD), (GLASS, HOT)})
        audits.explore(iteration, {group: move.levels for group, move in moves.items()})
        before = newest_trust(audits, iteration - 1)[GLASS, COLD] if iteration else TrustLevels(0.25, 1.0)
        levels = newest_trust(audits)[GLASS, COLD]
        assert before.low_eV_A / 1.251 <= levels.low_eV_A <= before.low_eV_A * 1.251
        audits.judge(iteration, drawn(40, f"i{iteration}."))
    assert levels.low_eV_A == pytest.approx(0.1, rel=0.15)
    assert levels.high_eV_A == pytest.approx(0.5, rel=0.15)
    assert calibrate(audits).coverage[0].verdict == "kept"


def test_high_goes_no_lower_than_most_of_what_was_explored(audits: Any) -> None:
    """With errors of nine deviations 3 eV/A are met at 0.33 eV/A, below most records of the hot band."""
    groups, param = {(GLASS, COLD), (GLASS, HOT)}, own()
    for iteration in range(9):
        moves = trust_moves(audits, param, groups)
        audits.explore(iteration, {group: move.levels for group, move in moves.items()})
        ramp = np.linspace(0.4, 0.8, 11).tolist() + [0.05] * 40
        audits.chunk(iteration, f"{GLASS}.n63.2000-300K.t00.c00", ramp, [2000.0] * 11 + [300.0] * 40)
        audits.judge(iteration, drawn(40, f"i{iteration}.", 9.0))
    assert moves[GLASS, HOT].levels.high_eV_A == pytest.approx(0.76), "nine of ten records are below"
    assert moves[GLASS, COLD].levels.high_eV_A == pytest.approx(0.33, rel=0.15)
    assert "90% of what was explored is below 0.760 eV/A" in moves[GLASS, HOT].reason
    assert "of what was explored" not in moves[GLASS, COLD].reason


def test_what_was_explored_is_that_of_the_newest_exploration_inside_the_gates(audits: Any) -> None:
    bands, both = SelectParam().temperature_bands_K, {GLASS, f"{GLASS}.n2"}
    levels = TrustLevels(0.1, 0.5)
    for iteration in (0, 1):
        audits.explore(iteration, {(glass, band): levels for glass in both for band in (COLD, HOT)})
    audits.chunk(0, f"{GLASS}.n63.300K.t00.c00", [0.1, 0.1], [300.0] * 2)
    audits.chunk(0, f"{GLASS}.n63.2000K.t00.c00", [9.0, 9.0], [2000.0] * 2)
    audits.chunk(1, f"{GLASS}.n63.2000K.t00.c01", [0.2, 0.3, 50.0], [2000.0] * 3, "lost")
    audits.chunk(1, f"{GLASS}.n63.2000K.t01.c01", [0.4, np.nan], [2000.0] * 2)
    audits.chunk(1, f"{GLASS}.n2.n63.2000K.t00.c01", [0.7], [2000.0])
    audits.state.decisions["explore", 1]["tasks"].append({"key": "withdrawn", "name": f"{GLASS}.n63.2000K.t02.c01"})
    groups = {(glass, band) for glass in both for band in (COLD, HOT)} | {("new", HOT)}
    found = explored_quantiles(audits, groups, bands, 0.5)
    assert found == pytest.approx({(GLASS, COLD): 0.1, (GLASS, HOT): 0.3, (f"{GLASS}.n2", HOT): 0.7})


def test_pairs_are_tested_by_the_map_that_was_there_when_their_exploration_began(audits: Any) -> None:
    """Streaming: ensemble 1 explores before the audit of ensemble 0 is measured, so its labels had no bound yet."""
    audits.explore(0, {}, audits=measured_audits(audits))
    audits.explore(1, {}, audits=measured_audits(audits))
    audits.judge(0, drawn(40, "a"))
    audits.explore(2, {}, audits=measured_audits(audits))
    audits.judge(1, drawn(40, "b"))
    audits.judge(2, drawn(40, "c"))
    assert audits.state.decisions["explore", 2]["audits"] == [0]
    assert measured_audits(audits) == [0, 1, 2]
    assert (calibrate(audits).coverage[0].tested, calibrate(audits).coverage[0].untested) == (40, 80)
    for iteration in range(3):
        del audits.state.decisions["explore", iteration]["audits"]
    assert calibrate(audits).coverage[0].tested == 80, "where it is not recorded all earlier ones count"
    audits.state.done.clear()
    assert measured_audits(audits) == []


def test_levels_hold_for_their_glass_and_band_only() -> None:
    trust = {(GLASS, HOT): TrustLevels(0.1, 0.5)}
    select = SelectParam()
    assert levels_at(trust, GLASS, 2000.0, select) == (0.1, 0.5)
    assert levels_at(trust, GLASS, 300.0, select) == levels_at(trust, "other", 2000.0, select) == (0.25, 1.0)


def test_campaign_from_before_levels_were_recorded_is_understood(audits: Any) -> None:
    audits.judge(0, {"a": (0.1, 0.4), "b": (0.5, 2.0)}, b={"reason": "candidate"})
    del audits.state.decisions["select", 0]["audit"]
    assert audit_pairs(audits) == [], "those audits were of accurate frames only"
    assert newest_trust(audits) == {}
    audits.state.decisions["explore", 0] = {"tasks": []}
    assert newest_trust(audits) == {}
