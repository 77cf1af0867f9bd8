"""Protocols: their stages, temperatures and chunks, and the rule for the melting temperature."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.protocol import PROTOCOLS, Stage, chunks, melting_temperature_K, segments, temperature_K

MELT = Stage("melt", "hold", 2000.0, ps=4.0)


def test_the_papers_protocol_has_the_papers_numbers() -> None:
    runs = PROTOCOLS["urata2022"](1700.0)
    assert list(runs) == ["10Kps", "2Kps.200ps", "2Kps.400ps", "2Kps.600ps"]
    fast = [(s.stage.name, s.stage.driver, s.start_K, s.end_K, s.duration_ps) for s in segments(runs["10Kps"])]
    assert fast == [
        ("classical-melt", "force_field", 3500, 3500, 500),
        ("classical-cool", "force_field", 3500, 300, 3200),
        ("classical-glass", "force_field", 300, 300, 300),
        ("heat", "ensemble", 300, 1700, 140),
        ("mix", "ensemble", 1700, 1700, 200),
        ("cool", "ensemble", 1700, 300, 140),
        ("glass", "ensemble", 300, 300, 200),
        ("minimum", "ensemble", 300, 300, 0),
        ("transport", "ensemble", 500, 500, 300),
    ]
    slow = {s.stage.name: s for s in segments(runs["2Kps.400ps"])}
    assert (slow["cool-to-1000K"].duration_ps, slow["anneal"].duration_ps, slow["cool"].duration_ps) == (70, 400, 350)
    assert slow["glass"].stage.analyse_ps == 100
    assert [s.ensemble for s in runs["10Kps"]].count("npt") == 1


def test_runs_of_the_papers_protocol_share_what_comes_before_the_cooling() -> None:
    runs = PROTOCOLS["urata2022"](1600.0)
    assert len({stages[:5] for stages in runs.values()}) == 1


def test_the_short_protocol_fits_a_laptop() -> None:
    for stages in PROTOCOLS["short"](2000.0).values():
        assert sum(s.duration_ps for s in segments(stages)) <= 30
        assert segments(stages)[0].start_K == 2000


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(100, 4000), st.floats(0.5, 50), st.booleans()), min_size=1, max_size=6),
    st.floats(0.3, 30),
)
def test_chunks_join_up_to_the_protocol(rows: list[tuple[float, float, bool]], chunk_ps: float) -> None:
    stages = [Stage("s0", "hold", rows[0][0], ps=rows[0][1])]
    for number, (to_K, amount, hold) in enumerate(rows[1:], start=1):
        if hold or to_K == stages[-1].temperature_K:
            stages.append(Stage(f"s{number}", "hold", to_K, ps=amount, analyse_ps=amount / 3))
        else:
            stages.append(Stage(f"s{number}", "ramp", to_K, rate_K_ps=amount))
    cut = chunks(stages, chunk_ps)
    time_ps = 0.0
    for before, chunk in zip([None, *cut[:-1]], cut, strict=True):
        assert chunk.duration_ps <= 1.5 * chunk_ps + 1e-9
        if before is not None and (chunk.stage.kind == "ramp" or chunk.stage is before.stage):
            assert chunk.start_K == pytest.approx(before.end_K)
        middle = (chunk.start_K + chunk.end_K) / 2
        assert temperature_K(stages, time_ps + chunk.duration_ps / 2) == pytest.approx(middle, rel=1e-6)
        time_ps += chunk.duration_ps
    assert time_ps == pytest.approx(sum(s.duration_ps for s in segments(stages)))
    for stage in stages:
        analysed = [
            c.duration_ps - c.analyse_from_ps for c in cut if c.stage is stage and c.analyse_from_ps is not None
        ]
        assert sum(analysed) == pytest.approx(stage.analyse_ps, abs=1e-6)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "begins with a hold"),
        ([Stage("cool", "ramp", 300.0, rate_K_ps=10.0)], "begins with a hold"),
        ([MELT, MELT], "a name of its own"),
        ([MELT, Stage("cool", "ramp", 2000.0, rate_K_ps=10.0)], "use a hold"),
        ([MELT, Stage("glass", "hold", 300.0, ps=5.0, analyse_ps=6.0)], "cannot be analysed"),
        ([MELT, Stage("again", "hold", 300.0, ps=5.0, driver="force_field")], "returns to the force field"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(stages: list[Stage], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segments(stages)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"kind": "hold", "temperature_K": 300.0}, "a hold needs ps > 0, which is missing"),
        ({"kind": "ramp", "temperature_K": 300.0, "rate_K_ps": -2.0}, "rate_K_ps > 0, found -2"),
        ({"kind": "ramp", "temperature_K": 300.0, "rate_K_ps": 2.0, "ps": 3.0}, "has no ps"),
        ({"kind": "minimise", "temperature_K": 300.0}, "has no temperature_K"),
        ({"kind": "minimise", "driver": "force_field"}, "at fixed cell; leave ensemble and driver out"),
        ({"kind": "freeze"}, "kind is 'freeze'"),
        ({"kind": "hold", "temperature_K": 300.0, "ps": 1.0, "analyse_ps": -1.0}, "analyse_ps is -1"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(own: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage("one", **own)


def test_a_chunk_has_a_length() -> None:
    with pytest.raises(ValueError, match="chunk_ps is 0"):
        chunks([MELT], 0.0)


def test_the_melting_temperature_is_the_lowest_at_which_both_formers_move() -> None:
    moved = {1500.0: {"Si": 1.2, "B": 2.5, "Li": 9.0}, 1600.0: {"Si": 2.1, "B": 3.0}, 1700.0: {"Si": 3.0, "B": 3.1}}
    assert melting_temperature_K(moved) == 1600
    assert melting_temperature_K({1500.0: {"B": 2.1, "O": 1.0}}) == 1500  # a borate has no Si
    with pytest.raises(ValueError, match="no melt at 1500 K"):
        melting_temperature_K({1500.0: {"Si": 1.2, "B": 2.5}})
    with pytest.raises(ValueError, match="network former"):
        melting_temperature_K({1500.0: {"Li": 2.5}})
