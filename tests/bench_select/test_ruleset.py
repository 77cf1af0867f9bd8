"""The rules of a comparison: those of a folder, and a campaign's own on its own labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alloop.bench_select.ruleset import DEFAULT, Ruleset, ruleset_of
from alloop.bench_select.strategies import METHODS
from alloop.bench_select.view import PoolView
from alloop.config import parse
from alloop.decisions.selection import selection_rules
from alloop.selection.picks import Rules

Views = Callable[..., PoolView]


def own_rules(**select: Any) -> Ruleset:
    fixed = {"audit": 0, "trust": "fixed"}
    return ruleset_of(parse({"name": "small", "glasses": ["LBS-20-60-20"], "select": fixed | select}))


def test_the_rules_on_a_folder_are_these() -> None:
    quota = {"overlap": 3, "five_coordinated_Si": 3}
    expected = Rules(120, 14, 0.05, 12, quota, (1000.0, 2000.0, 3000.0), before_loss=0, novelty=0.1, event_share=0.5)
    assert DEFAULT.rules(120, 18) == expected
    assert list(DEFAULT.events) == ["overlap", "five_coordinated_Si"]


def test_a_campaigns_rules_hold_as_they_are_for_as_many_labels_as_its_iterations() -> None:
    select = {
        "max_labels": 60,
        "max_per_trajectory": 5,
        "min_separation_ps": 0.2,
        "novelty": 0.03,
        "event_share": 0.25,
        "audit": 9,
        "before_loss": 2,
        "temperature_bands_K": [700.0],
        "events": {"overlap": {"quota": 7}, "five_coordinated_Si": {"quota": 0}, "oxygen_tricluster": {}},
    }
    param = parse({"name": "small", "glasses": ["LBS-20-60-20"], "select": select})
    assert ruleset_of(param).rules(60, 1) == selection_rules(param)
    assert list(ruleset_of(param).events) == ["overlap", "five_coordinated_Si", "oxygen_tricluster"]
    assert ruleset_of(param).events["oxygen_tricluster"]["at_least"] == 3
    half = ruleset_of(param).rules(30, 1)
    assert (half.max_labels, half.max_per_trajectory, half.audit, half.before_loss) == (30, 3, 4, 1)
    assert half.event_quota == {"overlap": 4, "oxygen_tricluster": 3}
    assert (half.min_separation_ps, half.novelty, half.event_share, half.bands_K) == (0.2, 0.03, 0.25, (700.0,))
    assert ruleset_of(param).rules(120, 1).event_quota == {"overlap": 14, "oxygen_tricluster": 10}


def chosen(view: PoolView, n: int = 20) -> list[int]:
    return METHODS["full"](view, n, 0).tolist()


@pytest.mark.parametrize(("quota", "share", "expected"), [(0, 0.5, 0), (2, 0.5, 4), (9, 0.5, 10), (9, 0.1, 2)])
def test_quotas_bands_and_share_of_events_are_the_campaigns(
    quota: int, share: float, expected: int, make_view: Views
) -> None:
    """Frames of two bands all show one event the defaults do not know; nothing else is worth a label."""
    tricluster = {"oxygen_tricluster": {"quota": quota}}
    rules = own_rules(max_labels=20, event_share=share, temperature_bands_K=[1000.0], events=tricluster)
    view = make_view(
        events=[{"oxygen_tricluster": np.array([0])}] * 60,
        max_deviation_eV_A=np.full(60, 0.1),
        temperature_K=np.tile([500.0, 2000.0], 30),
    )
    assert len(chosen(view)) == 2, "the audit of a folder's rules"
    assert len(chosen(make_view(**vars(view) | {"ruleset": rules}))) == expected


def test_limits_on_trajectories_and_time_are_the_campaigns(make_view: Views) -> None:
    columns: dict[str, Any] = {"max_deviation_eV_A": np.full(60, 1.0), "time_ps": np.arange(60) * 0.01}
    narrow = own_rules(max_labels=20, max_per_trajectory=1)
    found = chosen(make_view(ruleset=narrow, **columns))
    assert len(found) == 6 and len({index % 6 for index in found}) == 6
    wide = own_rules(max_labels=20, max_per_trajectory=20, min_separation_ps=0.3)
    times = make_view(ruleset=wide, **columns).time_ps[chosen(make_view(ruleset=wide, **columns))]
    assert len(times) <= 12, "six trajectories of 0.6 ps with two places each"
    close = own_rules(max_labels=20, max_per_trajectory=20, min_separation_ps=0.0)
    assert len(chosen(make_view(ruleset=close, **columns))) == 20


def test_novelty_and_last_good_frames_are_the_campaigns(make_view: Views) -> None:
    events = [{"overlap": np.array([0])}] * 60
    columns: dict[str, Any] = {"events": events, "max_deviation_eV_A": np.full(60, 0.1), "labelled": np.arange(60) < 30}
    some, none = (own_rules(max_labels=20, novelty=least) for least in (0.01, 50.0))
    assert chosen(make_view(ruleset=some, **columns)) and not chosen(make_view(ruleset=none, **columns))
    columns |= {"before_loss": np.arange(60) >= 50, "events": [{}] * 60}
    three = own_rules(max_labels=20, before_loss=3)
    found = chosen(make_view(ruleset=three, **columns))
    assert len(found) == 3 and min(found) >= 50
    assert len(chosen(make_view(**columns))) == 2, "the audit of a folder's rules"


def test_strata_are_the_campaigns(make_view: Views) -> None:
    strata = np.array(["rare"] * 6 + ["common"] * 54)
    view = make_view(stratum=strata, max_deviation_eV_A=np.full(60, 1.0), ruleset=own_rules(max_labels=10))
    assert Counter(strata[chosen(view, 10)].tolist()) == {"rare": 3, "common": 7}, "half alike"


def test_a_frame_that_names_no_stratum_is_of_its_glass_and_temperature(pool_folder: Any) -> None:
    from alloop.bench_select.pool import read_folder

    frames = read_folder(pool_folder).frames
    assert [frame.place for frame in frames[:3]] == ["quartz 0", "quartz 1", "quartz 2"]
    assert all(math.isnan(frame.target_temperature_K) and not frame.before_loss for frame in frames)
