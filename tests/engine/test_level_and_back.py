"""A campaign that is relabelled, and then relabelled back: what was left behind at the first level is wanted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from campaign_kit import LIMIT, asked_labels, bootstrap_content, param

from alloop import config, requests
from alloop.campaign import Campaign
from alloop.decisions.levels import relabel_content
from alloop.report.status import label_counts
from alloop.state import State


def level(name: str) -> dict[str, Any]:
    return {"name": name, "content": {"labeler": name}}


def picks(name: str, count: int = 4) -> dict[str, Any]:
    source = {"task": "b", "frame": 0}
    common = {"role": "training", "source": source, "level": name, "given": False}
    return {"level": level(name), "picks": [common | {"key": f"{name}{n}", "name": f"s{n}"} for n in range(count)]}


def folded(*decisions: tuple[str, dict[str, Any]], state: State | None = None) -> State:
    state = state or State()
    for kind, more in decisions:
        state.apply({"number": state.next_number, "kind": kind, "time": f"2026-01-0{state.next_number + 1}"} | more)
    return state


def test_labels_left_behind_are_wanted_again_at_their_level() -> None:
    levels = {"levels": {"target": level("A"), "foundation": None}}
    state = folded(("campaign", {}), ("start", levels), ("seed_labels", {"iteration": -1} | picks("A")))
    state.settle_done("A0")
    state.begin("A1")
    folded(("quarantine", {"key": "A2", "class": "bug", "message": "m"}), state=state)
    folded(("relabel", {"iteration": 0} | picks("B")), state=state)
    assert set(state.waiting) == {"B0", "B1", "B2", "B3"}
    assert [state.status_of(f"A{n}") for n in range(4)] == ["done", "running", "superseded", "superseded"]
    assert label_counts(state)["superseded"] == 3
    folded(("relabel", {"iteration": 0} | picks("A")), state=state)
    assert [state.status_of(f"A{n}") for n in range(4)] == ["done", "running", "waiting", "waiting"]
    assert state.retried["A2"] == "2026-01-06", "what failed before no longer counts"
    assert state.unfinished["relabel", 0] == {"A1", "A2", "A3"}
    assert state.superseded == {"B0", "B1", "B2", "B3"} and not state.quarantined
    counts = label_counts(state)
    assert (counts["done"], counts["in_flight"], counts["waiting"], counts["superseded"]) == (1, 1, 2, 4)
    state.put_back("A1")
    assert "A1" in state.waiting


CHEAP = {"labeler": "sevennet-0", "iterations": 1, "promote": 4}


def in_the_foundation_phase(root: Path) -> None:
    campaign = Campaign(root)
    campaign.take(with_foundation(CHEAP), take_over=False, limit=LIMIT)
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    campaign.decide("seed_labels", iteration=-1, **asked_labels(campaign, 4))
    campaign.release()


def with_foundation(foundation: dict[str, Any] | None) -> config.Param:
    return param(label={"labeler": "teter-rehearsal", "foundation": foundation})


def same_at(campaign: Campaign, keys: list[str], level: dict[str, Any]) -> list[dict[str, Any]]:
    """Picks of the same structures at another level, without the structures."""
    picks = campaign.state.picks
    common = {"level": level["name"], "given": False}
    return [picks[key] | common | {"key": f"{level['name']}-{picks[key]['name']}", "of": key} for key in keys]


def test_imported_labels_count_again_where_they_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alloop.decisions.levels.at_level", same_at)
    first, second = param(label={"labeler": "teter-rehearsal"}), param(label={"labeler": "sevennet-0"})
    campaign = Campaign(tmp_path)
    campaign.take(first, take_over=False, limit=LIMIT)
    asked = asked_labels(campaign, 3)
    asked["picks"][0]["given"] = True
    campaign.decide("seed_labels", iteration=-1, **asked)
    imported = asked["picks"][0]["key"]
    campaign.state.settle_done(imported)
    campaign.decide("relabel", **relabel_content(campaign, second))
    assert len(campaign.state.decisions["relabel", -1]["picks"]) == 3
    back = relabel_content(campaign, first)
    assert (
        imported not in {campaign.state.picks[pick["of"]]["of"] for pick in back["picks"]} and len(back["picks"]) == 2
    )
    campaign.decide("relabel", **back)
    assert campaign.state.labels("training") == [imported]
    campaign.release()


def test_a_foundation_is_changed_again_and_again_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alloop.decisions.levels.at_level", same_at)
    in_the_foundation_phase(tmp_path)
    other, own = with_foundation(CHEAP | {"labeler": "chgnet"}), with_foundation(None)
    assert requests.relabel(Campaign(tmp_path), other, really=True) == (4, "sevennet-0", "chgnet")
    assert requests.relabel(Campaign(tmp_path), with_foundation(CHEAP), really=True)[1:] == ("chgnet", "sevennet-0")
    assert requests.relabel(Campaign(tmp_path), other, really=True)[1:] == ("sevennet-0", "chgnet")
    campaign = Campaign(tmp_path)
    campaign.take(other, take_over=False, limit=LIMIT)
    assert campaign.state.foundation_level == campaign.state.level == "chgnet"
    assert campaign.state.target_level == "teter-rehearsal"
    campaign.release()
    assert requests.relabel(Campaign(tmp_path), own, really=True)[1:] == ("chgnet", "teter-rehearsal")
    campaign.take(own, take_over=False, limit=LIMIT)
    assert campaign.state.foundation_level is None and campaign.state.level == "teter-rehearsal"
    campaign.release()
