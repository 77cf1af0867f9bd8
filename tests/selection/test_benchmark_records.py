"""Records of the benchmarks of selection say which code they measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import conformal_coverage
import selection_scale


def test_scale_of_selection_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_scale, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(selection_scale, "run", lambda *_: {"frames": 3})
    monkeypatch.setattr(selection_scale, "streamed", lambda *_: {})
    monkeypatch.setattr(sys, "argv", ["selection_scale.py", "--json", str(tmp_path / "record.json")])
    selection_scale.main()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record == {"commit": "0123456789ab", "frames": 3, "streamed": {}}


def test_conformal_coverage_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conformal_coverage").mkdir()
    rows = [[0.1 + 0.01 * n, 0.2 + 0.02 * n, 300.0] for n in range(60)]
    (tmp_path / "conformal_coverage" / "pairs.json").write_text(json.dumps({"recorded": 99, "rows": rows}))
    monkeypatch.setattr(conformal_coverage, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(conformal_coverage, "SPLITS", 2)
    monkeypatch.setattr(conformal_coverage.Campaign, "load", lambda self: None)
    arguments = [str(tmp_path), "--calibration", "40", "--record", str(tmp_path / "record.json")]
    monkeypatch.setattr(sys, "argv", ["conformal_coverage.py", *arguments])
    conformal_coverage.main()
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["commit"], record["tested"]) == ("0123456789ab", 20)


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def kept(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["conformal_coverage", "selection_scale", "events_campaign"])
def test_records_that_are_kept_say_which_code_they_measured(name: str) -> None:
    assert kept(name)["commit"]


def test_the_kept_record_of_bench_select_names_its_version() -> None:
    assert kept("bench_select")["alloop"]


def test_records_that_are_kept_hold_what_is_promised() -> None:
    scale, coverage = kept("selection_scale"), kept("conformal_coverage")
    assert scale["frames"] == 10_000_000 and scale["selection_s"] < 15 and scale["peak_rss_MB"] < 300
    assert (coverage["level"], coverage["calibration"], coverage["tested"]) == (0.9, 800, 400)
    assert 0.86 <= coverage["coverage"] <= 0.94
    events = kept("events_campaign")
    for variant in ("with", "without"):
        assert events[variant]["bootstrap"]["with_events"] == 0 and len(events[variant]["replicas"]) == 3
    assert events["with"]["no_overlap"]["no_more_than_labeler"]
    assert events["with"]["five_coordinated_Si"]["verdict"] == "agrees"
