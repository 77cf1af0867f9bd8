"""Protocols as chains of tasks: what runs share, what depends on an ensemble, and what is planned anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from campaign_kit import param

from alloop.decisions.force_fields import ForceField
from alloop.decisions.production import decide_melting, decide_quench, quench_chunks, quench_section
from alloop.decisions.quenching import Sample, chunk_count, packed_start, quench_chains
from alloop.glass.composition import TABLE_1
from alloop.glass.protocol import temperature_K
from alloop.state import State, decision_tasks, quench_runs, task_entries

GLASS = TABLE_1["LBS-20-60-20"]
PAPER = param(
    quench={"protocol": "urata2022", "melting_temperature_K": 1700, "n_atoms": [42, 84], "replicas": 2}
).quench


TETER = ForceField({"name": "teter"}, {})


def chains(
    models: list[str], own: Any = PAPER, replica: int = 0, iteration: int = 4, field: ForceField = TETER
) -> tuple[Any, Any]:
    start = packed_start(GLASS, 42)
    sample = Sample(GLASS, 42, replica, start, (7, iteration), field)
    common = {"models": models, "engine": "lammps", "deviation_every": 20, "frame_every": 500, "events": {}}
    return quench_chains(own, common, sample, own.stages_of(1700.0), "production")


def test_runs_share_what_they_begin_with_and_have_the_rest_to_themselves() -> None:
    tasks, runs = chains(["m"])
    assert [run["run"] for run in runs] == ["10Kps", "2Kps.200ps", "2Kps.400ps", "2Kps.600ps"]
    assert [run["cooling_rate_K_ps"] for run in runs] == [10, 2, 2, 2]
    assert len({task.key for task in tasks}) == len(tasks) == chunk_count(PAPER, GLASS, PAPER.stages_of(1700.0))
    fast, slow, slower, _ = ([task for task in tasks if task.key in run["tasks"]] for run in runs)
    begun = {task.key for task in fast} & {task.key for task in slow}
    assert {task.spec["stage"] for task in tasks if task.key in begun} == {
        "classical-melt",
        "classical-cool",
        "classical-glass",
        "heat",
        "mix",
    }
    longer = [task for task in slower if task.spec["stage"] == "anneal"]
    assert [task for task in slow if task.spec["stage"] == "anneal"] == longer[:20], "the longer stay goes on from it"
    assert len(longer) == 40
    own = next(task for task in slow if task.spec["stage"] == "cool")
    assert own.name.startswith("LBS-20-60-20.n42.2Kps.200ps.r0.s") and own.name.endswith("-cool")
    assert fast[0].name == "LBS-20-60-20.n42.r0.s00-classical-melt", "a shared task names no run"
    assert fast[0].inputs == () and fast[1].inputs == (fast[0].key,)


def test_what_the_force_field_drives_is_the_same_for_every_ensemble() -> None:
    (one, _), (other, _), (replica, _) = chains(["m"]), chains(["n"], iteration=5), chains(["m"], replica=1)
    classical = [task.key for task in one if "force_field" in task.spec]
    assert len(classical) == 400
    common = {"models": ["n"], "engine": "lammps"}
    assert {task.key for task in one} & {task.key for task in other} == set(classical)
    assert not {task.key for task in one} & {task.key for task in replica}
    assert len({task.spec["seed"] for task in [*one[:400], *replica[:400]]}) == 800
    # a decision keeps such tasks apart from what is common to the others
    decision = {
        "kind": "quench",
        "iteration": 5,
        "common": common,
        "inputs": ["n"],
        "tasks": task_entries(other, common),
    }
    back = {task.key: task for task in decision_tasks(decision)}
    for task in other:
        inputs = task.inputs if task.key in classical else ("n", *task.inputs)
        assert back[task.key] == dataclasses.replace(task, inputs=inputs, about={})


def test_chunks_follow_the_protocol_and_only_its_window_is_analysed() -> None:
    tasks, (fast, *_) = chains(["m"])
    by_key = {task.key: task for task in tasks}
    time_ps, stages = 0.0, PAPER.stages_of(1700.0)["10Kps"]
    analysed = []
    for task in (by_key[key] for key in fast["tasks"]):
        if task.spec["stage_kind"] == "minimise":
            assert "condition" not in task.spec and task.spec["minimise"]["steps"] > 0
            continue
        condition = task.spec["condition"]
        length_ps = condition["n_steps"] / 1000
        middle_K = (condition["temperature_start_K"] + condition["temperature_end_K"]) / 2
        assert middle_K == pytest.approx(temperature_K(stages, time_ps + length_ps / 2))
        if task.spec["analyse_from_step"] is not None:
            analysed.append((task.spec["stage"], task.spec["analyse_from_step"], condition["n_steps"]))
        time_ps += length_ps
    assert analysed == [("glass", 0, 10000)] * 10, "the last 100 ps of 200"
    uneven = param(quench={"chunk_ps": 15, "protocol": [
        {"name": "glass", "kind": "hold", "temperature_K": 300, "ps": 30, "analyse_ps": 20},
    ]}).quench  # fmt: skip
    tasks, (run,) = quench_chains(
        uneven, {"models": []}, Sample(GLASS, 42, 0, {"task": "t", "frame": 0}, (7, 1)), uneven.stages_of(None), "g"
    )
    assert [task.spec["analyse_from_step"] for task in tasks] == [10000, 0]
    decision = {"tasks": task_entries(tasks, {}), "runs": [run]}
    (found,) = quench_runs(decision)
    assert found["analysed"] == found["chunks"] == decision["tasks"]


def test_the_section_changes_with_what_is_quenched_and_not_with_when() -> None:
    sections = [
        quench_section(param(**changes))
        for changes in (
            {"quench": {}},
            {"quench": {"when": "always"}},
            {"quench": {"replicas": 2}},
            {"quench": {"protocol": "short"}},
            {"quench": {}, "glasses": [{"name": "LBS-20-60-20", "n_atoms": [84, 168]}]},
        )
    ]
    assert sections[0] == sections[1] and len(set(sections)) == 4
    assert quench_section(param()) == ""


class Finished:
    """A campaign of which the state and what melts are known."""

    def __init__(self, displacements: dict[float, dict[str, float]], root: Path = Path()) -> None:
        self.state, self.root = State(), root
        self.state.starts = [{"config": {"glasses": []}}]
        self.state.decisions["bootstrap", -1] = {"tasks": []}
        self.displacements = displacements

    def summary(self, key: str) -> dict[str, Any]:
        rows = [{"temperature_K": t, "rms_displacement_A": moved} for t, moved in self.displacements.items()]
        return {"displacements": rows}

    def decide(self, own: Any, number: int) -> dict[str, Any]:
        for kind, decide in (("melting", decide_melting), ("quench", decide_quench)):
            self.state.apply({"number": number, "kind": kind, "iteration": 2} | decide(self, own, 2))
            number += 1
        return self.state.decisions["quench", 2]


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ({1500.0: {"B": 1.0, "Si": 1.0}, 1600.0: {"B": 2.5, "Si": 2.1}}, (1600, "rule")),
        ({1500.0: {"B": 1.0, "Si": 1.0}, 2000.0: {"B": 2.5, "Si": 1.9}}, (2000, "highest tried")),
    ],
)
def test_where_a_glass_melts_is_found_by_the_rule_or_the_highest_is_taken(moved: Any, expected: Any) -> None:
    campaign = Finished(moved)
    own = param(quench={"protocol": "urata2022", "when": "always", "n_atoms": [84, 42]})
    decision = campaign.decide(own, 0)
    (melting,) = campaign.state.decisions["melting", 2]["tasks"]
    assert melting["spec"]["atoms"] == 42, "one cell tells it, the smallest"
    found = decision["melting"]["LBS-20-60-20"]
    assert (found["temperature_K"], found["known"]) == expected
    assert found["rms_displacement_A"] == moved[expected[0]]
    planned = quench_chunks(own)
    assert planned == len(decision["tasks"]) + 1 if expected[0] == 2000 else planned > len(decision["tasks"]) + 1
    given = param(quench={"protocol": "urata2022", "when": "always", "melting_temperature_K": {"LBS-20-60-20": 1850}})
    assert decide_melting(campaign, given, 2)["tasks"] == []
    assert decide_quench(campaign, given, 2)["melting"]["LBS-20-60-20"] == {"temperature_K": 1850, "known": "given"}


def test_what_a_changed_protocol_no_longer_wants_is_withdrawn_and_no_more_in_the_way() -> None:
    campaign = Finished({1500.0: {"B": 3.0, "Si": 3.0}})
    section = {"protocol": "urata2022", "when": "always", "n_atoms": [42]}
    first = campaign.decide(param(quench=section), 0)
    state = campaign.state
    keys = [entry["key"] for entry in first["tasks"]]
    running, lost = keys[-1], keys[-2]
    state.settle_done(keys[0])
    state.begin(running)
    state.settle_quarantine(lost, {"message": "three failures"})
    second = campaign.decide(param(quench=section | {"runs": ["10Kps"]}), 2)
    wanted = {entry["key"] for entry in second["tasks"]}
    assert wanted < set(keys) and keys[0] in wanted and not {running, lost} & wanted
    assert set(second["withdrawn"]) == set(keys) - wanted
    assert set(state.waiting) == (wanted - {keys[0]}) | {state.decisions["melting", 2]["tasks"][0]["key"]}
    assert not state.quarantined, "a chunk that nobody wants stops nothing"
    state.put_back(running)
    assert running not in state.waiting
    third = campaign.decide(param(quench=section), 4)
    assert set(keys) - {keys[0]} <= set(state.waiting) and third["withdrawn"] == []


def test_the_rule_for_a_melting_temperature_has_its_documented_numbers() -> None:
    section = {"protocol": "urata2022", "when": "always", "n_atoms": [42]}
    (search,) = decide_melting(Finished({1500.0: {"B": 3.0, "Si": 3.0}}), param(quench=section), 2)["tasks"]
    wanted = {"temperatures_K": [1500, 1600, 1700, 1800, 1900, 2000], "ps": 20}
    wanted |= {"melt_K": 3500, "melt_ps": 10, "equilibrate_ps": 5}
    assert {key: search["spec"][key] for key in wanted} == wanted


def test_a_search_that_is_no_longer_needed_is_withdrawn_with_its_failure() -> None:
    campaign = Finished({1500.0: {"B": 3.0, "Si": 3.0}})
    section = {"protocol": "urata2022", "when": "always", "n_atoms": [42]}
    campaign.state.apply(
        {"number": 0, "kind": "melting", "iteration": 2} | decide_melting(campaign, param(quench=section), 2)
    )
    (search,) = campaign.state.decisions["melting", 2]["tasks"]
    campaign.state.settle_quarantine(search["key"], {"message": "three failures"})
    given = param(quench=section | {"melting_temperature_K": 1800})
    campaign.state.apply({"number": 1, "kind": "quench", "iteration": 2} | decide_quench(campaign, given, 2))
    assert not campaign.state.quarantined and search["key"] in campaign.state.superseded


def test_sizes_that_the_bootstrap_lacks_are_packed_and_its_own_are_taken_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alloop.decisions import production

    asked: list[tuple[str, int, float]] = []

    def apart(glass: str, size: int, temperature: float, *_: Any) -> list[dict[str, Any]]:
        asked.append((glass, size, temperature))
        return [{"task": "b", "frame": 0}]

    monkeypatch.setattr(production, "Starts", lambda campaign: SimpleNamespace(apart=apart))
    own = param(quench={"protocol": "short", "when": "always", "n_atoms": [84, 168]})
    decision = decide_quench(Finished({}), own, 2)
    starts = [run["chunks"][0]["spec"]["start"] for run in quench_runs(decision)]
    assert asked == [("LBS-20-60-20", 84, 2000.0)]
    assert starts[0] == {"task": "b", "frame": 0}
    assert sum(starts[1]["packed"]["counts"].values()) == 168


SETTINGS = 'name = "FMP-LBS"\ntables = "fmp.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n'


def with_tables(folder: Path, text: str = "# rows") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fmp.toml").write_text(SETTINGS)
    (folder / "fmp.table").write_text(text)
    return folder


def told(decision: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    """Force field that drives, force field that packs, and files, of every task of a decision."""
    return [
        (
            entry["spec"].get("force_field"),
            entry["spec"]["start"].get("packed", {}).get("force_field"),
            entry.get("files", {}),
        )
        for entry in decision["tasks"]
    ]


def test_one_force_field_packs_drives_and_melts_the_one_told_or_the_first_of_the_bootstrap(tmp_path: Path) -> None:
    with_tables(tmp_path)
    section = {"protocol": "urata2022", "runs": ["10Kps"], "when": "always", "n_atoms": [42]}
    melted = {1500.0: {"B": 3.0, "Si": 3.0}}
    keys = []
    for given, seeds, expected in (
        ({}, ["shik", "teter"], "shik"),
        ({"force_field": "bmp-shrm"}, ["shik", "teter"], "bmp-shrm"),
        ({"force_field": "fmp.toml"}, ["teter"], "FMP-LBS"),
        ({}, ["fmp.toml", "teter"], "FMP-LBS"),
    ):
        campaign = Finished(melted, tmp_path)
        decision = campaign.decide(param(quench=section | given, bootstrap={"force_fields": seeds}), 0)
        files = {"force_field": "fmp.toml"} if expected == "FMP-LBS" else {}
        (search,) = told(campaign.state.decisions["melting", 2])
        first, *rest = told(decision)
        for drives, packs, own_files in (search, first):
            assert drives == packs and drives["name"] == expected and own_files == files
            assert ("sha256" in drives) == bool(files)
        classical = [own for own in rest if own[0]]
        assert len(classical) == 399 and all(own == (first[0], None, files) for own in classical)
        assert not any(own[2] for own in rest if not own[0]), "what models drive needs no tables"
        keys.append({entry["key"] for entry in decision["tasks"]})
    assert not keys[0] & keys[1] and not keys[1] & keys[2], "no result is another force field's"
    assert keys[2] == keys[3]


def test_tables_of_ones_own_enter_the_keys_of_a_quench_by_their_content(tmp_path: Path) -> None:
    section = {"when": "always", "protocol": [
        {"name": "pack", "kind": "hold", "temperature_K": 3000, "ps": 1, "driver": "force_field"},
        {"name": "mix", "kind": "hold", "temperature_K": 2000, "ps": 1},
    ], "force_field": "fmp.toml"}  # fmt: skip
    places = [with_tables(tmp_path / "one"), with_tables(tmp_path / "two"), with_tables(tmp_path / "three", "# others")]
    found = [
        [e["key"] for e in decide_quench(Finished({}, place), param(quench=section), 2)["tasks"]] for place in places
    ]
    assert found[0] == found[1] and not set(found[0]) & set(found[2])


def test_another_force_field_is_another_section() -> None:
    own = {"quench": {"protocol": "urata2022"}}
    sections = [
        quench_section(param(**own, bootstrap={"force_fields": seeds})) for seeds in (["teter"], ["shik", "teter"])
    ]
    given = param(quench={"protocol": "urata2022", "force_field": "teter"}, bootstrap={"force_fields": ["shik"]})
    assert sections[0] != sections[1] and quench_section(given) == sections[0]


def test_what_models_pack_by_the_force_field_tells_it_too(tmp_path: Path) -> None:
    own = param(quench={"protocol": "short", "when": "always", "n_atoms": [168], "force_field": "shik"})
    (first, *_) = told(decide_quench(Finished({}), own, 2))
    assert first == (None, {"name": "shik"}, {})
    nothing = Sample(GLASS, 168, 0, packed_start(GLASS, 168), (7, 2))
    with pytest.raises(ValueError, match="need a force field"):
        quench_chains(own.quench, {}, nothing, own.quench.stages_of(None), "g")
