"""The benchmark of what choosing labels costs: both ways choose of the same results and read what they need."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.decisions import selection
from alloop.selection.diversity import Environments
from alloop.tasks.describe import read_environments

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import decide_select

CHUNKS = 40


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    decide_select.write_results(folder, CHUNKS)
    return folder


@pytest.mark.parametrize(("way", "parts"), [("batch", {"decide_s"}), ("streamed", {"take_in_s", "ask_s", "close_s"})])
def test_what_a_way_of_choosing_costs_is_told_per_frame(way: str, parts: set[str], results: Path) -> None:
    found = decide_select.measured(way, results, CHUNKS)
    assert found["of_which"].keys() == parts and found["cpu_s"] > 0
    assert found["ms_per_frame"] == pytest.approx(1e3 * found["cpu_s"] / (CHUNKS * decide_select.FRAMES), rel=0.2)
    assert found["peak_rss_MB"] > found["peak_MB_above_start"] >= 0
    assert sum(found["reasons"].values()) == found["picks"]
    assert found["reasons"]["audit"] > 0


def test_frames_taken_chunk_by_chunk_keep_the_rules_and_only_columns_that_are_looked_at_are_read(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four trajectories of ten chunks, so 32 labels beside the audit; structures and forces stay on the disk."""
    read: Counter[str] = Counter()
    plain: Any = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda self, name: read.update([name]) or plain(self, name)
    )
    made, param = decide_select.campaign(results, CHUNKS)
    picks = decide_select.streamed(made, param, decide_select.Meter())
    assert len({pick["key"] for pick in picks}) == len(picks)
    chosen = Counter(pick["trajectory"] for pick in picks if pick["reason"] != "audit")
    assert {pick["reason"] for pick in picks} == {"audit", *decide_select.EVENTS}
    assert set(chosen.values()) == {param.select.max_per_trajectory} and len(chosen) == 4
    assert len(made.state.picks_in[0]) == chosen.total() and made.state.backlog.newest() is None
    assert read["content"] == 2 * CHUNKS + sum(pick["reason"] == "audit" for pick in picks)
    assert not read.keys() & {"symbols", "positions_A", "n_atoms", "force_deviation_eV_A", "max_force_deviation_atom"}


def test_all_at_once_goes_on_from_what_was_asked_for_frame_by_frame(results: Path) -> None:
    """A driver that streams is followed by one that does not; trajectories are full after 8 labels each."""
    made, param = decide_select.campaign(results, CHUNKS)
    decide_select.streamed(made, param, decide_select.Meter(), close=False)
    before = made.state.picks_in[0][:20]
    made, param = decide_select.campaign(results, CHUNKS)
    made.state.apply({"kind": "pick", "number": 9, "iteration": 0, "level": decide_select.LEVEL, "picks": before})
    for entry in made.state.decisions["explore", 0]["tasks"]:
        made.state.settle_done(entry["key"])
    after = selection.decide_select(made, param, 0)["picks"]
    meant = [pick for pick in [*before, *after] if pick["reason"] != "audit"]
    assert len({pick["key"] for pick in meant}) == len(meant)
    assert len(meant) == 32
    assert set(Counter(pick["trajectory"] for pick in meant).values()) == {param.select.max_per_trajectory}
    for pick, other in combinations(meant, 2):
        apart_ps = abs(pick["time_ps"] - other["time_ps"])
        assert pick["trajectory"] != other["trajectory"] or apart_ps >= param.select.min_separation_ps


def test_labels_in_flight_are_known_and_those_that_came_to_nothing_are_not(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, param = decide_select.campaign(results, CHUNKS)
    decide_select.streamed(made, param, decide_select.Meter(), close=False)
    flying, *_ = picks = made.state.picks_in[0]
    whole = len(Environments.together(selection.in_flight(made)))
    made.state.quarantined |= {pick["key"]: {} for pick in picks[1:]}
    atoms = Environments.together(selection.in_flight(made))
    assert 0 < len(atoms) < whole
    frame = read_environments(made.result(flying["source"]["task"]))[flying["source"]["frame"]]
    assert len(atoms) == sum(map(len, frame.values()))
    seen: list[Any] = []
    monkeypatch.setattr(selection, "pick", lambda *given: seen.append(given[4]) or [])
    made.state.backlog.close_round(0)
    selection.decide_select(made, param, 0)
    assert seen[0].novelty(atoms).max() < 1e-3, "where all frames are chosen from at once, too"
