"""The verdicts of the script that compares campaigns with and without events, on replicas that are made up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import events_campaign

LOST = "Si 1 and O 2 are 1.15 Å apart, closer than the hard gate of 1.20 Å after 3 ps"


def replicas(overlaps: list[int], lost: int = 0) -> list[dict[str, Any]]:
    """So many frames with overlaps of each replica, of which the last few were lost."""
    made = [{"frames": 1000, "share_5Si": 0.1 + 0.01 * n, "overlap_frames": o} for n, o in enumerate(overlaps)]
    return [one | {"lost": LOST if n >= len(made) - lost else None} for n, one in enumerate(made)]


@pytest.mark.parametrize(
    ("overlaps", "lost", "none_at_all", "no_more_than_labeler"),
    [([0, 0, 0], 0, True, True), ([0, 2, 0], 0, False, True), ([0, 3, 0], 0, False, False), ([0] * 3, 1, False, False)],
)
def test_no_overlap_is_none_and_besides_no_more_than_the_labelers(
    overlaps: list[int], lost: int, none_at_all: bool, no_more_than_labeler: bool
) -> None:
    found = events_campaign.no_overlap(replicas(overlaps, lost), replicas([2, 0, 1]))
    assert (found["none_at_all"], found["no_more_than_labeler"]) == (none_at_all, no_more_than_labeler)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_lost_replicas_are_left_out_of_the_shares_and_counted(lost: int) -> None:
    found = events_campaign.compared(replicas([0, 0, 0], lost), replicas([0, 0, 0]))
    assert (found["left_out"], found["labeler_left_out"]) == (lost, 0)
    assert found["verdict"] == ("too few replicas" if lost else "agrees")
