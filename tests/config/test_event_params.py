"""Events in `param.json`: presets with what differs, own ones by kind, and what is wrong with them told by its key."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop import config
from alloop.errors import InputError
from alloop.event_params import RESERVED, definitions, never_seen
from alloop.glass.events import ON_BY_DEFAULT, PRESETS
from alloop.select_params import SelectParam
from alloop.selection.events import KINDS, Watch

MINIMAL: dict[str, Any] = {"name": "small", "glasses": ["LBS-20-60-20"]}
OWN: dict[str, dict[str, Any]] = {
    "near": {"kind": "pair_distance", "below_A": {"O-B": 1.2}, "above_A": {"Si-O": 2.5, "O-Si": 3}, "quota": 2},
    "guard": {"kind": "pair_distance", "gate_A": {"X-X": 0.5}},
    "Si3": {"kind": "coordination", "element": "Si", "by": "O", "cutoff_A": 2.1, "at_least": 3, "at_most": 3},
    "O3": {"kind": "coordination", "element": "O", "by": ["B", "Si"], "cutoff_A": {"B": 1.9, "Si": 2}, "at_least": 3},
    "edges": {"kind": "edge_sharing", "formers": "Si"},
    "rings": {"kind": "ring", "formers": ["B"], "size": 3},
    "germania": {"kind": "ring", "formers": ["Ge", "Si"], "size": 4, "cutoff_A": {"Ge": 2.2}},
    "density": {"kind": "density", "lowest_g_cm3": 1.5, "relative_excursion": 0.2, "quota": 0},
    "hot": {"kind": "temperature", "excursion_K": 500},
}


def parsed(events: Any, **more: Any) -> config.Param:
    return config.parse(MINIMAL | {"select": {"events": events} | more})


def test_own_events_of_every_kind():
    events = parsed(OWN).select.events
    assert list(events) == [*ON_BY_DEFAULT, *OWN]
    assert {own["kind"] for own in OWN.values()} == set(KINDS)
    told = definitions(events)
    assert told["Si3"] == {
        "kind": "coordination",
        "element": "Si",
        "by": ["O"],
        "cutoff_A": {"O": 2.1},
        "at_least": 3,
        "at_most": 3,
    }
    assert told["edges"]["cutoff_A"] == {"Si": 2.0} and told["edges"]["by"] == "O"
    assert told["rings"]["cutoff_A"] == {"B": 1.9} and told["rings"]["definition"] == "primitive"
    assert told["germania"]["cutoff_A"] == {"Ge": 2.2, "Si": 2.0}
    assert told["guard"]["gate_A"] == {"any": 0.5}
    assert [events[name].quota for name in ("near", "guard", "density")] == [2, 5, 0]
    assert Watch(json.loads(json.dumps(told))).names == tuple(events), "tasks can use it as it is told"


@pytest.mark.parametrize("events", [{}, {name: {} for name in PRESETS}, OWN, {"overlap": {"below_A": {"O-B": 1.2}}}])
def test_effective_events_read_back_the_same(events):
    param = parsed(events)
    dumped = json.loads(json.dumps(param.model_dump(mode="json")))
    assert config.parse(dumped) == param
    assert config.parse(dumped).model_dump(mode="json") == dumped


def test_a_preset_needs_only_what_differs():
    events = parsed(
        {"overlap": {"below_A": {"O-B": 1.2, "Li-Li": 1.4}}, "five_coordinated_Si": {"quota": 0, "cutoff_A": 2.2}}
    ).select.events
    told = definitions(events)
    preset = PRESETS["overlap"]
    assert told["overlap"]["below_A"] == preset["below_A"] | {"B-O": 1.2, "Li-Li": 1.4}
    assert told["overlap"]["gate_A"] == preset["gate_A"], "the gates stay"
    assert told["five_coordinated_Si"]["cutoff_A"] == {"O": 2.2}
    assert told["five_coordinated_Si"]["at_least"] == 5
    assert events["five_coordinated_Si"].quota == 0


def test_the_quota_is_no_business_of_a_task():
    one, other = (definitions(parsed({"overlap": {"quota": n}}).select.events) for n in (0, 9))
    assert one == other
    assert definitions(parsed({"overlap": {"below_A": {"B-O": 1.2}}}).select.events) != one


PAIRS = {"kind": "pair_distance"}
COUNT = {"kind": "coordination", "element": "Si", "by": "O", "cutoff_A": 2.0}


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ({"five_coordinate_Si": {}}, "is no preset and names no kind; did you mean five_coordinated_Si\\?"),
        ({"mine": {"quota": 3}}, "'mine' is no preset and names no kind; presets are overlap, .* Kinds are pair_dist"),
        ({"mine": {"kind": "densty"}}, "mine is of kind 'densty', which there is not; did you mean density\\?"),
        ({"mine": {"kind": []}}, "mine is of kind \\[\\], which there is not; use one of"),
        ({"overlap": {"kind": "density"}}, "overlap is a preset of kind pair_distance, not 'density'; rename yours"),
        ({"overlap": 5}, 'overlap must be an object such as {} or {"quota": 5}'),
        ({"overlap": None}, "for an event that asks nothing, a quota of 0"),
        ({"a b": {"kind": "density"}}, "'a b' cannot be a name"),
        ([], "select.events: found a list, must be an object"),
        ({"overlap": {"quotas": 4}}, "select.events.overlap.quotas: unknown key; did you mean 'quota'\\?"),
        ({"overlap": {"quota": -1}}, "select.events.overlap.quota: found -1, must be greater than or equal to 0"),
        ({"overlap": {"below": {}}}, "select.events.overlap.below: unknown key; did you mean 'below_A'\\?"),
        ({"overlap": {"gate_A": {"B-O": 1.3}}}, "for B-O gate_A is 1.3 and below_A 1.15; a gate must lie below: lower"),
        ({"overlap": {"gate_A": {"B-O": 1.15}}}, "for B-O gate_A is 1.15 and below_A 1.15"),
        ({"overlap": {"below_A": {"Li-Li": 1.1}}}, "for Li-Li gate_A is 1.2 and below_A 1.1"),
        ({"overlap": {"below_A": {"Li-X": 1.1}}}, "for Li-X gate_A is 1.2 and below_A 1.1"),
        ({"overlap": {"below_A": {"O": 1}}}, "overlap.below_A: 'O' is no pair"),
        ({"overlap": {"below_A": {"X-X": 1}}}, "'any' and 'X-X' are the same pair"),
        ({"overlap": {"gate_A": {"any": 1.6}}}, "for any gate_A is 1.6 and below_A 1.5"),
        ({"overlap": {"below_A": {"B-O": "1"}}}, 'overlap.below_A.B-O: found "1", must be a number without quotes'),
        ({"mine": PAIRS}, "select.events.mine: watches for nothing; give below_A, above_A or gate_A"),
        ({"mine": PAIRS | {"below_A": {"BO": 1}}}, "mine.below_A: 'BO' is no pair; write two species and a hyphen"),
        ({"mine": PAIRS | {"below_A": {"si-O": 1}}}, "'si' no element; did you mean 'Si'\\?"),
        ({"mine": PAIRS | {"below_A": {"B-O": 1, "O-B": 1}}}, "'B-O' and 'O-B' are the same pair; keep one"),
        ({"mine": PAIRS | {"below_A": {"any": 2}, "above_A": {"Si-O": 2}}}, "above_A must be the longest of them"),
        ({"mine": {"kind": "coordination", "elment": "Si"}}, "mine.elment: unknown key; did you mean 'element'\\?"),
        ({"mine": {"kind": "coordination"}}, "select.events.mine.element: is missing"),
        ({"mine": COUNT | {"element": "Sj", "at_least": 3}}, "mine.element: 'Sj' is not a chemical element"),
        ({"mine": COUNT}, "give at_least, at_most or both"),
        ({"mine": COUNT | {"at_least": 5, "at_most": 3}}, "at_least is 5, at_most 3: no number is both"),
        ({"mine": COUNT | {"by": ["O", "N"], "cutoff_A": {"O": 2}, "at_least": 5}}, "has no length for N; give one"),
        ({"mine": COUNT | {"cutoff_A": {"O": 2, "N": 2}, "at_least": 5}}, "has N, which by does not; add it there"),
        ({"mine": {"kind": "ring", "formers": ["Ge"], "size": 3}}, "mine: cutoff_A has no length for Ge; give one in"),
        ({"mine": {"kind": "ring", "size": 99}}, "mine.size: found 99, must be less than or equal to 12"),
        ({"mine": {"kind": "ring", "size": 3, "formers": ["B", "B"]}}, "names one twice"),
        ({"mine": {"kind": "ring", "size": 3, "formers": ["O"], "cutoff_A": 2}}, "formers names O"),
        ({"mine": {"kind": "edge_sharing", "formers": []}}, "mine.formers: found a list, must not be empty"),
        ({"mine": {"kind": "density"}}, "give lowest_g_cm3, highest_g_cm3 or relative_excursion"),
        ({"mine": {"kind": "density", "lowest_g_cm3": 3, "highest_g_cm3": 2}}, "lowest must be below highest"),
        ({"mine": {"kind": "temperature"}}, "select.events.mine.excursion_K: is missing"),
        *(({name: {"kind": "density"}}, f"'{name}' is another reason for a label") for name in RESERVED),
    ],
)
def test_what_is_wrong_with_an_event_is_told_by_its_key(events, message):
    with pytest.raises(InputError, match=message):
        parsed(events)


@pytest.mark.parametrize("edges_K", [[600, 600], [900, 600]])
def test_bands_must_ascend(edges_K):
    with pytest.raises(InputError, match=r"temperature_bands_K: .* do not ascend"):
        parsed({}, temperature_bands_K=edges_K)


@pytest.mark.parametrize(
    ("events", "elements", "found"),
    [
        ({}, ["Si", "O"], None),
        ({"under_coordinated_B": {}}, ["Li", "Si", "O"], "watches B, which elements .* lacks"),
        ({"under_coordinated_B": {}}, ["B", "O"], None),
        ({"edge_sharing_tetrahedra": {}}, ["B", "O"], None),
        ({"overlap": {"below_A": {"Na-O": 1.5}}}, ["B", "O"], "names Na, which elements .* lacks"),
        ({"mine": PAIRS | {"below_A": {"Na-X": 1.5}}}, ["B", "O"], "names Na"),
        ({"mine": COUNT | {"by": "N", "at_least": 1}}, ["Si", "O"], "names N"),
        ({"mine": {"kind": "density", "lowest_g_cm3": 1}}, ["O"], None),
    ],
)
def test_events_that_the_elements_cannot_show(events, elements, found):
    own = SelectParam(events=events).events
    problems = [problem for name, event in own.items() if (problem := never_seen(name, event, elements))]
    assert len(problems) == (found is not None)
    assert found is None or re.search(found, problems[0])


KEYS = sorted({"quota", "gates"} | {key for own in OWN.values() for key in own})
plain = st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["Si", "O", "B-O", "any", "X", *KINDS])
settings_ = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["B-O", "Si", "O", "any"]), inner),
    max_leaves=4,
)


OF_A_KIND = st.fixed_dictionaries(
    {"kind": st.sampled_from(KINDS)}, optional={key: settings_ for key in KEYS if key != "kind"}
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["mine", *PRESETS]), OF_A_KIND | settings_, max_size=2))
def test_anything_is_taken_or_refused_with_a_message(events):
    try:
        param = parsed(events)
    except InputError as error:
        assert "select.events" in str(error)
    else:
        assert Watch(definitions(param.select.events)).names == tuple(param.select.events)
