"""The typed configuration: defaults, round trips, and what it refuses beyond single values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alloop
from alloop import config
from alloop.errors import InputError
from alloop.glass.composition import TABLE_1
from alloop.glass.events import ON_BY_DEFAULT, PRESETS
from alloop.labelers.levels import target_level
from alloop.param_file import ConfigError, read_json_object
from alloop.select_params import SelectParam

SHIPPED = Path(alloop.__file__).resolve().parents[1] / "param.json"
MINIMAL: dict[str, Any] = {"name": "small", "glasses": ["LBS-20-60-20"]}


def assert_round_trip(param: config.Param) -> None:
    dumped = param.model_dump(mode="json")
    assert config.parse(dumped) == param
    assert config.parse(json.loads(json.dumps(dumped, allow_nan=False))) == param
    assert config.parse(dumped).model_dump(mode="json") == dumped


@pytest.mark.parametrize(("labels", "audit"), [(1, 1), (4, 2), (6, 3), (20, 5), (100, 10)])
def test_a_small_batch_is_not_all_audit(labels, audit):
    assert config.parse(MINIMAL | {"select": {"max_labels": labels}}).select.audit_labels == audit


def test_a_name_and_a_glass_are_enough():
    param = config.parse(MINIMAL)
    assert param.train.models == 4
    assert param.elements == ["Li", "B", "O", "Si"]
    assert param.glasses[0].glass() == TABLE_1["LBS-20-60-20"]
    assert param.quench is None
    assert_round_trip(param)


def test_shipped_campaign_round_trips_and_is_short():
    param = config.load(SHIPPED)
    assert param.name == "lbs-quickstart"
    assert [glass.name for glass in param.glasses] == ["LBS-20-60-20", "LBS-40-20-40"]
    assert_round_trip(param)


def test_protocols_of_the_glass_page_are_possible_and_round_trip():
    page = (SHIPPED.parent / "docs" / "glass.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert_round_trip(config.parse(MINIMAL | json.loads("{" + block + "}")))
    param = config.parse(
        MINIMAL | {"quench": {"protocol": "urata2022", "melting_temperature_K": {"LBS-20-60-20": 1700}}}
    )
    assert_round_trip(param)
    assert param.quench.uses_force_field and not param.quench.melting_sought("LBS-20-60-20")
    assert config.parse(MINIMAL | {"quench": {"protocol": "urata2022"}}).quench.melting_sought("LBS-20-60-20")
    assert not config.parse(MINIMAL | {"quench": {"protocol": "short"}}).quench.uses_force_field


@pytest.mark.parametrize("protocol", ["urata2022", "short"])
def test_named_protocols_are_at_constant_volume_or_at_pressure(protocol):
    def ensembles(**own):
        stages = config.parse(MINIMAL | {"quench": {"protocol": protocol} | own}).quench.stages_of(1700.0)
        return {stage.name: (stage.driver, stage.kind, stage.ensemble) for run in stages.values() for stage in run}

    volume, pressure = ensembles(), ensembles(ensemble="npt")
    assert volume.keys() == pressure.keys()
    assert {name for name, stage in volume.items() if stage[-1] == "npt"} <= {"transport"}
    for name, (driver, kind, ensemble) in pressure.items():
        moves = driver == "ensemble" and kind != "minimise"
        assert ensemble == ("npt" if moves else "nvt") and volume[name][:2] == (driver, kind)
    with pytest.raises(config.ConfigError, match="the ase engine has no NPT ramps"):
        ensembles(ensemble="npt", engine="ase")


def test_stages_of_ones_own_say_their_ensemble_themselves():
    stages = [{"name": "glass", "kind": "hold", "temperature_K": 300, "ps": 5, "ensemble": "npt"}]
    assert config.parse(MINIMAL | {"quench": {"protocol": stages}}).quench.stages_of(None)[""][0].ensemble == "npt"
    with pytest.raises(config.ConfigError, match="say it in each of your own stages"):
        config.parse(MINIMAL | {"quench": {"protocol": stages, "ensemble": "npt"}})


def test_effective_configuration_names_every_default():
    dumped = config.parse(MINIMAL | {"quench": {}}).model_dump(mode="json")
    assert set(dumped) == set(config.Param.model_fields)
    sections = {
        "bootstrap": config.BootstrapParam,
        "train": config.TrainParam,
        "explore": config.ExploreParam,
        "select": SelectParam,
        "label": config.LabelParam,
        "stop": config.StopParam,
        "quench": config.QuenchParam,
    }
    for name, section in sections.items():
        assert set(dumped[name]) == set(section.model_fields)


positive = st.floats(1e-3, 1e4, allow_nan=False)
glasses = st.one_of(
    st.sampled_from(sorted(TABLE_1)),
    st.builds(
        lambda name, n_atoms: {"name": name, "n_atoms": n_atoms},
        st.sampled_from(sorted(TABLE_1)),
        st.lists(st.integers(12, 20000), min_size=1, max_size=3, unique=True),
    ),
    st.builds(
        lambda share, density, percent: {
            "name": "own",
            "mole_fractions": {"SiO2": share * percent, "B2O3": (1 - share) * percent},
            "density_g_cm3": density,
        },
        st.floats(0, 1),
        st.floats(0.5, 5),
        st.sampled_from([1, 100]),
    ),
)


plain_values = st.integers() | st.booleans() | positive | st.text(max_size=5)
quotas = st.fixed_dictionaries(
    {name: st.builds(lambda quota: {"quota": quota}, st.integers(0, 9)) for name in ON_BY_DEFAULT},
    optional={name: st.just({}) for name in PRESETS if name not in ON_BY_DEFAULT},
)


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(positive, positive).filter(lambda pair: pair[0] != pair[1])))
    sections = {
        "train": {
            "models": draw(st.integers(2, 9)),
            "steps": draw(st.integers(1, 10**7)),
            "neuron": draw(st.none() | st.lists(st.integers(1, 200), max_size=3)),
        },
        "explore": {
            "temperatures_K": draw(st.lists(positive, min_size=1, max_size=4, unique=True)),
            "ramps": [{"from_K": low, "to_K": high}],
            "ensembles": draw(st.sampled_from([["nvt"], ["npt"], ["npt", "nvt"]])),
            "pressure_bar": draw(st.floats(-1e5, 1e5)),
        },
        "select": {"trust_low_eV_A": low, "trust_high_eV_A": high, "events": draw(quotas)}
        | ({} if high >= 1.5 * low else {"trust": "fixed"}),
        "label": {
            "labeler": "ase.calculators.lj:LennardJones",
            "options": draw(st.dictionaries(st.text(max_size=5), plain_values, max_size=3)),
        },
        "quench": {"final_temperature_K": low, "melt_temperature_K": high},
    }
    chosen = draw(st.sets(st.sampled_from(sorted(sections))))
    others = {"glasses": [draw(glasses)], "seed": draw(st.integers(0, 2**31 - 1))}
    return MINIMAL | others | {key: sections[key] for key in chosen}


@settings(max_examples=60, deadline=None)
@given(parameters())
def test_effective_configuration_round_trips(data):
    param = config.parse(data)
    assert_round_trip(param)
    for section, values in data.items():
        if isinstance(values, dict):
            for key, value in values.items():
                if key == "events":
                    assert param.select.events.keys() == value.keys()
                elif section != "explore" or key != "ramps":
                    assert getattr(getattr(param, section), key) == value


some_keys = st.sampled_from(["name", "glasses", "train", "models", "x"])
any_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(some_keys, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(any_json)
def test_any_json_is_taken_or_refused_with_a_message(data):
    try:
        config.parse(data)
    except InputError as error:
        assert str(error).startswith("param.json: ")


def test_whole_floats_are_whole_numbers():
    assert config.parse(MINIMAL | {"train": {"steps": 1e6}}).train.steps == 1000000


def test_configuration_cannot_be_changed_in_place():
    param = config.parse(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        param.train.models = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("duration_ps", "timestep_fs", "multiple", "expected"),
    [(1.0, 1.0, 1, 1000), (1.0, 0.5, 20, 2000), (0.0305, 1.0, 20, 40), (0.3, 0.1, 1, 3000), (1e-6, 1.0, 10, 10)],
)
def test_steps_of_a_duration(duration_ps, timestep_fs, multiple, expected):
    assert config.steps(duration_ps, timestep_fs, multiple) == expected


def test_level_of_theory_tells_options_apart():
    def level(**label: Any) -> str:
        param = config.parse(MINIMAL | {"label": label})
        return target_level(param.label, param.elements, Path()).name

    assert level(labeler="teter-rehearsal") == "teter-rehearsal"
    assert level(options={"a": 1}) != level(options={"a": 2}) != level()
    assert level(options={"a": 1, "b": 2}) == level(options={"b": 2, "a": 1})
    assert level(options={"a": 1}).startswith("sevennet-0-")
    assert level(max_attempts=9) == level()


def test_all_problems_at_once_each_with_its_key():
    with pytest.raises(ConfigError) as refused:
        config.parse({"glasses": [{"name": "LBS-20-60-20", "n_atoms": [84, "x"]}], "train": {"modells": 1}, "seed": -1})
    assert [key for key, _ in refused.value.problems] == ["name", "seed", "glasses[0].n_atoms[1]", "train.modells"]
    assert refused.value.problems[0][1] == "is missing"


def test_problem_shows_no_endless_value():
    with pytest.raises(ConfigError) as refused:
        config.parse(MINIMAL | {"train": {"backend": "x" * 5000}})
    assert len(str(refused.value)) < 400


def test_slots_are_as_given_or_the_cores():
    assert config.slots(config.parse(MINIMAL | {"pools": {"local": {"slots": 5}}})) == 5
    assert config.slots(config.parse(MINIMAL)) >= 1


def test_json_is_read_as_utf8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    (tmp_path / "param.json").write_bytes('{"name": "ü", "a": 1.5e3, "b": [2, true, null]}'.encode())
    assert read_json_object(tmp_path / "param.json") == {"name": "ü", "a": 1500.0, "b": [2, True, None]}


@pytest.mark.parametrize(
    ("select", "stop", "message"),
    [
        ({}, {}, "only labels of the audit calibrate"),
        ({"trust": "calibrated"}, {"audit_force_rmse_eV_A": 0.3}, "only labels of the audit calibrate"),
        ({"trust": "fixed"}, {"audit_force_rmse_eV_A": 0.3}, "only labels of the audit can measure"),
        ({"trust": "fixed"}, {}, None),
    ],
)
def test_without_an_audit_nothing_calibrates_and_nothing_measures_it(
    select: dict[str, Any], stop: dict[str, Any], message: str | None
) -> None:
    asked = MINIMAL | {"select": {"audit": 0} | select, "stop": stop}
    if message is None:
        assert config.parse(asked).select.audit == 0
    else:
        with pytest.raises(ConfigError, match=message):
            config.parse(asked)
    assert config.parse(MINIMAL | {"select": {"audit": 1} | select, "stop": stop}).select.audit == 1
