"""The calibration as `alloop stats` shows it: a curve for each group of the map, and why trust levels moved."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
import pytest
from rich.console import Console

from alloop.cost import Costs
from alloop.decisions.calibration import Calibration
from alloop.report import statistics
from alloop.report.cost import cost_record
from alloop.selection.calibration import AuditPair, fit_map
from alloop.selection.coverage import UNCHANGED

COUNTS = {"accurate": 90, "candidate": 9, "failed": 1}


def pairs(band: str, count: int, factor: float) -> list[AuditPair]:
    """Labels whose error is so many times their deviation."""
    deviations = np.geomspace(0.05, 2.0, count)
    return [AuditPair(f"{band}{n}", "LBS", band, n % 2, d, factor * d, "audit") for n, d in enumerate(deviations)]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of two bands with 30 labels each and one with 5, whose errors differ by a factor of ten."""
    known = [*pairs("cold", 30, 1.0), *pairs("hot", 30, 10.0), *pairs("warm", 5, 3.0)]
    monkeypatch.setattr(statistics, "audit_pairs", lambda _: known)
    monkeypatch.setattr(statistics, "calibrate", lambda _: Calibration(fit_map(known), UNCHANGED, (), len(known)))
    return statistics.calibration_record(None)  # type: ignore[arg-type]


def test_each_group_of_the_map_has_its_own_curve(record: dict[str, Any]) -> None:
    groups = {own["name"]: own for own in record["groups"]}
    assert {"LBS at cold", "LBS at hot", "LBS at all temperatures", "all glasses at hot"} <= groups.keys()
    assert not any("warm" in name for name in groups), "five labels make no map"
    assert np.array(groups["LBS at cold"]["told"])[:, 1] == pytest.approx([0.1, 0.3, 1.0])
    assert np.array(groups["LBS at hot"]["told"])[:, 1] == pytest.approx([1.0, 3.0, 10.0])
    assert len(record["curve"]) == 40 and len(record["curve"][0]) == 3


def test_groups_are_drawn_each_with_its_curve(record: dict[str, Any]) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    statistics.draw_calibration(axes, record)
    lines = {line.get_label(): line for line in axes.get_lines()}
    for name, factor in (("LBS at cold", 1.0), ("LBS at hot", 10.0)):
        x, y = lines[name].get_data()
        assert np.asarray(y) / np.asarray(x) == pytest.approx(factor)
    assert "all pairs" in lines
    points = [line for line in axes.get_lines() if line.get_marker() == "."]
    assert sum(len(line.get_xdata()) for line in points) == 65, "those of no group too"
    plt.close(figure)


def test_without_groups_there_is_the_curve_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pairs("cold", 12, 1.0)
    monkeypatch.setattr(statistics, "audit_pairs", lambda _: known)
    monkeypatch.setattr(statistics, "calibrate", lambda _: Calibration(fit_map(known), UNCHANGED, (), len(known)))
    found = statistics.calibration_record(None)  # type: ignore[arg-type]
    assert found["groups"] == [] and len(found["curve"]) == 40
    (row,) = (line for line in text_of(found).splitlines() if "all pairs" in line)
    assert row.split("│")[2].strip() == "12" and "0.100" in row.split("│")[3], "the text has it, too"


def text_of(calibration: dict[str, Any], **more: Any) -> str:
    entry = COUNTS | {"lost": 2, "labels": 4, "trust_levels_eV_A": [0.2, 0.8]}
    iteration = {"iteration": 0, "classes": COUNTS, "strata": {"LBS 300K": entry}, "events": {}, "audit": None}
    iteration |= {"reasons": {"candidate": 4}, "trust_levels_eV_A": [0.2, 0.8], "lost_chunks": 2, "trust": []}
    iteration |= {"deviation_range_eV_A": None, "virial_deviation_range_eV": None}
    iteration |= {"missed_records": 0, "withdrawn_chunks": 0, "failed_chunks": 0, "limits": {}} | more
    told = {"iterations": [iteration], "calibration": calibration, "final_held_out": [], "eta_hours": None}
    console = Console(width=160, record=True, file=io.StringIO())
    statistics.print_statistics(told | {"cost": cost_record(Costs(), None)}, console)
    return console.export_text()


def error(glass: str | None, band: str | None, rmse: float, labels: int, *interval: float) -> dict[str, Any]:
    low, high = interval or (None, None)
    found = {"glass": glass, "band": band, "rmse_eV_A": rmse, "labels": labels}
    return found | {"low_eV_A": low, "high_eV_A": high}


def test_errors_of_the_audit_are_shown_by_glass_and_band_coldest_first(record: dict[str, Any]) -> None:
    bands = ("600-1250 K", "from 2250 K", "below 600 K")
    audit = {
        "errors": [error(None, None, 0.4, 9, 0.31, 0.52), error(None, bands[0], 0.3, 2), error("A", bands[0], 0.9, 1)],
        "groups": [error("A", bands[0], 0.25, 6, 0.2, 0.3)],
    }
    explored = [{"glass": glass, "band": band, "reason": "fixed"} for glass in "AB" for band in bands]
    lines = text_of(record, audit=audit, trust=explored).splitlines()
    (title,) = (line for line in lines if line.startswith("┃ audit "))
    assert title.index("below 600 K") < title.index("600-1250 K") < title.index("from 2250 K")

    def cells(name: str, below: int = 0) -> list[str]:
        row = next(number for number, line in enumerate(lines) if line.startswith(f"│ {name} "))
        return [cell.strip() for cell in lines[row + below].strip("│").split("│")]

    assert cells("all glasses") == ["all glasses", "0.400 (9)", "-", "0.300 (2)", "-"]
    assert cells("all glasses", 1) == ["", "0.31-0.52", "", "", ""]
    assert cells("A") == ["A", "-", "-", "0.250 (6)", "-"], "of a glass in a band the audits before count, too"
    assert cells("B") == ["B", "-", "-", "-", "-"], "explored, and nothing known"


def test_labels_and_events_are_told_beside_their_quotas(record: dict[str, Any]) -> None:
    bands = {"below 600 K": {"seen": 70, "labelled": 4}, "from 600 K": {"seen": 9, "labelled": 1}}
    events = {"five_coordinated_Si": {"seen": 79, "labelled": 5, "quota": 4, "bands": bands}}
    limits = {"all": 60, "audit": 6, "before_loss": 5}
    text = text_of(record, events=events, limits=limits, reasons={"audit": 6, "candidate": 40})
    assert "labels: 6 of 6 audit, 0 of 5 before_loss, 40 candidate, 46 of at most 60 in all" in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert ["below 600 K", "70", "4", "4 of 4"] in rows and ["from 600 K", "9", "1", "1 of 4"] in rows
    assert ["five_coordinated_Si", "79", "5", "4"] in rows
    assert "labels: 4 candidate\n" in text_of(record), "of a decision without limits on record"


def test_levels_that_stay_everywhere_for_one_reason_are_told_once(record: dict[str, Any]) -> None:
    trust = [{"glass": glass, "band": band, "reason": "stayed"} for glass in "AB" for band in "cd"]
    assert "trust:  all 4 glasses and temperature bands: stayed" in text_of(record, trust=trust)
    trust[0]["reason"] = "moved"
    assert "trust:  A at d, B at c, B at d: stayed" in text_of(record, trust=trust)


def test_text_tells_groups_reasons_of_levels_and_what_was_missed(record: dict[str, Any]) -> None:
    trust = [{"glass": "LBS", "band": band, "low_eV_A": 0.2, "high_eV_A": 0.8, "reason": "moved"} for band in "ab"]
    trust.append({"glass": "LBS", "band": "third", "low_eV_A": 0.2, "high_eV_A": 0.8, "reason": "fixed"})
    text = text_of(record, trust=trust, missed_records=7, withdrawn_chunks=3)
    assert "trust:  LBS at a, LBS at b: moved" in text and "LBS at third" not in text
    assert "7 record(s) that lost trajectories never made" in text and "3 chunk(s) withdrawn" in text
    row = next(line for line in text.splitlines() if "LBS at hot" in line)
    assert "30" in row and "1.000 (1.000)" in row and "10.000 (10.000)" in row
    bare = text_of({"pairs": [], "curve": [], "all": None, "groups": [], "level": 0.9, "coverage": [], "widened": ""})
    assert "missed:" not in bare and "trust:" not in bare
