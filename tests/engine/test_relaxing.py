"""Relaxing with the labeler: the true task on a crystal, the criterion, and when it is asked for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from campaign_kit import param
from engine_kit import REHEARSAL, attempt_command
from hypothesis import given
from hypothesis import strategies as st

from alloop.attempt import TaskError
from alloop.decisions import relaxing
from alloop.decisions.production import quenched_samples
from alloop.decisions.relaxing import decide_relax, decide_relax_glass, relax_criteria, relax_tasks, unchanged
from alloop.frames import write_frames
from alloop.glass.crystals import crystal
from alloop.state import decision_tasks
from alloop.store import Store, begin_attempt, make_task, publish, write_json
from alloop.structure import LabeledFrame
from alloop.tasks import relax

GLASS = "LBS-20-60-20"
RELAX: dict[str, Any] = {"probe": {}, "relax": {}}


def relaxed(root: Path, steps: int) -> tuple[int, Path]:
    """Relax a rattled B2O3-II with the rehearsal force field, as an attempt does."""
    store = Store(root)
    source = make_task("quench", "iter.000000/probe", "crystal", {"n": 1})
    folder = store.prepare(source, "campaign-id", {})
    attempt = begin_attempt(folder)
    atoms = crystal("B2O3-II") * (2, 2, 2)
    atoms.rattle(0.05, seed=1)
    write_frames(attempt.out / "frames.npz", [crystal("B2O3-I"), atoms])
    assert publish(attempt, source.key, {"seconds": 1.0, "threads": 1})
    relax = {"force_eV_A": 0.05, "steps": steps, "cell": False}
    spec = {"glass": GLASS, "start": {"task": source.key, "frame": -1}, "level": REHEARSAL, "relax": relax}
    spec |= {"minimum": None, "analysed": []}
    task = make_task("relax", "iter.000000/relax", "crystal", spec, (source.key,))
    place = store.prepare(task, "campaign-id", {source.key: str(folder.relative_to(store.iterations))})
    return subprocess.run(attempt_command(place), check=False, capture_output=True).returncode, place


def test_a_crystal_keeps_its_coordination_and_loses_energy(tmp_path: Path) -> None:
    code, folder = relaxed(tmp_path, 500)
    assert code == 0
    record = json.loads((folder / "result" / "relaxed.json").read_text())
    assert record["after"]["energy_eV"] < record["before"]["energy_eV"] < 0
    assert record["before"]["fraction_4B"] == record["after"]["fraction_4B"] == 1.0
    assert record["before"]["fraction_5Si"] is None and record["before"]["three_rings"] == 32
    assert 0 < record["rms_displacement_A"] <= record["max_displacement_A"] < 1.0
    summary = json.loads((folder / "result" / "summary.json").read_text())
    assert summary == {key: record[key] for key in ("relaxed_from", "averaged", "before", "after")}
    assert summary["relaxed_from"] == "last frame"


def by_a_code(monkeypatch: pytest.MonkeyPatch, folder: Path, labeler: str, **told: Any) -> dict[str, Any]:
    """Relax a crystal with a code that says this of its run, and return the summary."""
    atoms = crystal("B2O3-II")
    write_frames(folder / "frames.npz", [atoms])
    frame = LabeledFrame(atoms, -70.0, np.zeros((len(atoms), 3)), np.zeros((3, 3)))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(relax, "labelled", lambda context, level, atoms: asked.append(level) or (frame, dict(told)))
    spec = {"start": {"task": "made", "frame": 0}, "level": {"labeler": labeler}, "relax": {"NSW": "9"}}
    spec |= {"minimum": None, "analysed": []}
    relax.run(SimpleNamespace(spec=spec, out=folder, result_of=lambda key: folder))
    assert asked == [{"labeler": labeler, "relax": {"NSW": "9"}}], "one run tells both energies"
    return dict(json.loads((folder / "summary.json").read_text()))


def test_a_code_tells_the_energy_before_in_its_first_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = by_a_code(monkeypatch, tmp_path, "vasp", first_energy_eV=-69.0, ionic_steps=4, flags=[])
    assert (found["before"]["energy_eV"], found["after"]["energy_eV"]) == (-69.0, -70.0)


def test_what_the_models_minimised_is_relaxed_beside_the_mean_over_the_glass_in_motion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    still = crystal("B2O3-II")
    moving = still.copy()
    moving.rattle(0.1, seed=2)
    for name, atoms in (("hold", moving), ("minimum", still), ("earlier", moving)):
        (tmp_path / name).mkdir()
        write_frames(tmp_path / name / "frames.npz", [atoms])
    for name, values in (("earlier", [0.1, 0.2]), ("hold", [0.6])):
        told = [{"fraction_4B": own, "fraction_5Si": None, "rings": {"counts": {"3": 2}}} for own in values]
        write_json(tmp_path / name / "analysis.json", told)
    asked: list[Any] = []

    def labelled(context: Any, level: Any, atoms: Any) -> Any:
        asked.append(atoms)
        return LabeledFrame(moving, -70.0, np.zeros((len(moving), 3)), np.zeros((3, 3))), {"first_energy_eV": -69.0}

    monkeypatch.setattr(relax, "labelled", labelled)
    spec = {"start": {"task": "hold", "frame": -1}, "minimum": "minimum", "analysed": ["earlier", "hold"]}
    spec |= {"level": {"labeler": "vasp"}, "relax": {}}
    context: Any = SimpleNamespace(spec=spec, out=tmp_path, result_of=lambda key: tmp_path / key)
    relax.run(context)
    assert len(asked) == 1 and asked[0].positions == pytest.approx(still.positions)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["averaged"] == pytest.approx({"fraction_4B": 0.3, "fraction_5Si": None, "three_rings": 2})
    assert summary["relaxed_from"] == "minimum of the models" and summary["before"]["fraction_4B"] == 1.0


def test_a_code_that_did_not_relax_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="not relaxed after 9 steps"):
        by_a_code(monkeypatch, tmp_path, "vasp", first_energy_eV=-69.0, ionic_steps=9, flags=["unrelaxed"])
    with pytest.raises(TaskError, match="single points"):
        by_a_code(monkeypatch, tmp_path, "cp2k")


def test_a_structure_that_does_not_settle_is_given_up(tmp_path: Path) -> None:
    code, folder = relaxed(tmp_path, 1)
    assert code == 1 and not (folder / "result").exists()


def test_equal_pairs_agree_and_a_common_shift_does_not() -> None:
    assert unchanged("5Si", "of Si", [(0.0, 0.0)] * 3, 0.15).state == "met"
    assert unchanged("5Si", "of Si", [(0.1, 0.0), (0.0, 0.0), (0.0, 0.0)], 0.15).state == "met"
    assert unchanged("5Si", "of Si", [(0.2, 0.05), (0.25, 0.1), (0.2, 0.1)], 0.15).state == "unmet"
    assert unchanged("5Si", "of Si", [(0.1, 0.0)] * 3, 0.15).state == "unmet", "no scatter makes it sure, not unknown"
    assert unchanged("5Si", "of Si", [(0.1, 0.1)], 0.15).state == "unknown"


def test_changes_that_cancel_are_changes() -> None:
    found = unchanged("4B", "of B", [(0.5, 0.1), (0.3, 0.3), (0.1, 0.5)], 0.15)
    assert found.state == "unmet" and "changes by 0.27 on average, 0.15 allowed" in found.sentence


def test_an_error_that_could_hide_more_than_is_tolerated_leaves_it_unknown() -> None:
    pairs = [(0.0, 0.06), (0.1, 0.0)]
    assert unchanged("4B", "of B", pairs, 0.2).state == "met"
    found = unchanged("4B", "of B", pairs, 0.1)
    assert found.state == "unknown" and "up to 0.16 could go unnoticed" in found.sentence


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6), st.randoms())
def test_the_order_of_replicas_and_of_before_and_after_changes_nothing(pairs: Any, random: Any) -> None:
    own = unchanged("4B", "of B", pairs, 0.15)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert unchanged("4B", "of B", shuffled, 0.15).state == own.state
    assert unchanged("4B", "of B", [(after, before) for before, after in pairs], 0.15).state == own.state


class Probed:
    """A campaign of which a probe and its relaxations are known."""

    def __init__(self) -> None:
        entries = [
            {"key": f"q{r}{part}", "spec": {"analyse_from_step": first}}
            for r in range(3)
            for part, first in enumerate((None, 0))
        ]
        runs = [
            {"name": f"{GLASS}.n{atoms}.r{r}", "glass": GLASS, "atoms": atoms, "tasks": [f"q{r}0", f"q{r}1"]}
            for r, atoms in enumerate((63, 63, 126))
        ]
        self.state: Any = SimpleNamespace(
            decisions={("probe", 1): {"tasks": entries, "runs": runs}}, done={entry["key"] for entry in entries}
        )
        self.level = {"name": "teter-rehearsal", "content": REHEARSAL}
        self.summaries: dict[str, dict[str, Any]] = {key: {"status": "finished"} for key in self.state.done}

    def summary(self, key: str) -> dict[str, Any]:
        return self.summaries[key]

    def relaxed(self, *fractions_5Si: float) -> None:
        entries = []
        for number, fraction in enumerate(fractions_5Si):
            key = f"x{number}"
            entries.append({"key": key, "name": f"{GLASS}.n63.r{number}", "spec": {"glass": GLASS}})
            self.state.done.add(key)
            before = {"fraction_4B": None, "fraction_5Si": 0.0, "three_rings": 0}
            self.summaries[key] = {"before": before, "after": before | {"fraction_5Si": fraction}}
        self.state.decisions["relax", 1] = {"tasks": entries}


def test_last_frames_of_whole_quenches_up_to_a_size_are_relaxed() -> None:
    probed = Probed()
    own = param(stop=RELAX).stop.relax
    found = relax_tasks(probed, own, probed.state.decisions["probe", 1], 100, "iter.000001/relax")
    assert [task.inputs for task in found] == [("q01",), ("q11",)]
    assert [(task.spec["minimum"], task.spec["analysed"]) for task in found] == [(None, ["q01"]), (None, ["q11"])]
    assert all(task.spec["start"]["frame"] == -1 and task.spec["level"] == REHEARSAL for task in found)
    assert len({task.key for task in found}) == 2
    probed.summaries["q11"]["status"] = "lost"
    assert len(relax_tasks(probed, own, probed.state.decisions["probe", 1], None, "g")) == 2


def minimised(probed: Probed, stage_kinds: dict[str, str], converged: bool = True) -> Any:
    """The relaxation of one run whose analysed end these stages follow, all of them finished."""
    quench = probed.state.decisions["probe", 1]
    for key, kind in stage_kinds.items():
        quench["tasks"].append({"key": key, "spec": {"stage_kind": kind}})
        probed.state.done.add(key)
        probed.summaries[key] = {"status": "finished", "converged": converged}
    quench["runs"] = [quench["runs"][0] | {"tasks": ["q00", "q01", *stage_kinds]}]
    (task,) = relax_tasks(probed, param(stop=RELAX).stop.relax, quench, None, "g")
    return task


def test_the_minimum_of_the_models_is_relaxed_where_a_run_went_to_one() -> None:
    task = minimised(Probed(), {"m": "minimise", "transport": "hold"})
    assert (task.spec["start"]["task"], task.spec["minimum"], task.inputs) == ("q01", "m", ("q01", "m"))
    assert minimised(Probed(), {"transport": "hold", "m": "minimise"}).spec["minimum"] is None, "of another temperature"
    assert minimised(Probed(), {"m": "minimise"}, converged=False).spec["minimum"] is None, "it is no minimum"
    lost = Probed()
    minimised(lost, {"m": "minimise"})
    lost.summaries["m"] = {"status": "lost"}
    (task,) = relax_tasks(lost, param(stop=RELAX).stop.relax, lost.state.decisions["probe", 1], None, "g")
    assert task.spec["minimum"] is None and task.inputs == ("q01",)


def test_of_glasses_in_cells_too_large_to_relax_the_energy_is_asked_for() -> None:
    probed = Probed()
    probed.state.decisions["quench", 1] = probed.state.decisions["probe", 1]
    probed.state.superseded, probed.state.asked_in = set(), {}
    own = param(quench={"relax": {"largest_atoms": 100}})
    decision = decide_relax_glass(probed, own, 1)
    assert [entry["name"] for entry in decision["tasks"]] == [f"{GLASS}.n63.r{r}" for r in range(2)]
    (point,) = decision["points"]
    assert point["name"] == f"{GLASS}.n126.r2" and point["spec"]["relax"] is None and point["inputs"] == ["q21"]
    asked = decision_tasks({"kind": "relax_glass", "iteration": 1} | decision)
    assert [task.key for task in asked] == [entry["key"] for entry in (*decision["tasks"], point)]
    old = {"tasks": [], "points": [point]}
    probed.state.decisions["relax_glass", 0] = old
    probed.state.asked_in = {point["key"]: {("relax_glass", 0)}}
    less = decide_relax_glass(probed, param(quench={"relax": {"largest_atoms": 200}}), 1)
    assert less["withdrawn"] == [point["key"]] and not less["points"]
    large = param(quench={"relax": {}, "n_atoms": [84, 300, 1000], "replicas": 2})
    assert (quenched_samples(large), quenched_samples(large, 150)) == (6, 4)


def test_an_energy_is_one_label_of_the_structure_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    atoms = crystal("B2O3-II")
    write_frames(tmp_path / "frames.npz", [atoms])
    frame = LabeledFrame(atoms, -70.0, np.zeros((len(atoms), 3)), np.zeros((3, 3)))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(relax, "labelled", lambda context, level, atoms: asked.append(level) or (frame, {}))
    spec = {"start": {"task": "made", "frame": -1}, "level": {"labeler": "vasp"}, "relax": None}
    spec |= {"minimum": None, "analysed": []}
    relax.run(SimpleNamespace(spec=spec, out=tmp_path, result_of=lambda key: tmp_path))  # type: ignore[arg-type]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert asked == [{"labeler": "vasp"}] and summary["after"] is None
    assert (summary["before"]["energy_eV"], summary["before"]["fraction_4B"]) == (-70.0, 1.0)


def test_what_the_force_field_made_is_relaxed_once_for_all_runs_that_go_on_from_it() -> None:
    probed = Probed()
    quench = probed.state.decisions["probe", 1]
    for entry in quench["tasks"]:
        if entry["key"] in ("q00", "q20"):
            entry["spec"]["force_field"] = {"name": "teter"}
    quench["runs"][1]["tasks"] = ["q00", "q11"]
    own = param(quench={"relax": {"largest_atoms": 1000}}).quench.relax
    found = {task.name: task.spec["start"]["task"] for task in relax_tasks(probed, own, quench, None, "g")}
    assert found == {
        f"{GLASS}.n63.r0": "q01",
        f"{GLASS}.n63.r0.force-field": "q00",
        f"{GLASS}.n63.r1": "q11",
        f"{GLASS}.n126.r2": "q21",
        f"{GLASS}.n126.r2.force-field": "q20",
    }
    urata = param(quench={"protocol": "urata2022", "runs": ["10Kps"], "relax": {}, "replicas": 2})
    assert quenched_samples(urata) == 2 * 2, "the glass and what the force field made of it, of two replicas"


def test_it_is_asked_for_only_when_all_else_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    from alloop.decisions import convergence
    from alloop.selection.convergence import at_most

    probed, own = Probed(), param(stop=RELAX)
    for error, count in ((0.5, 0), (0.1, 3)):
        monkeypatch.setattr(convergence, "judged", lambda *_, error=error: [at_most("force RMSE", error, 0.2)])
        assert len(decide_relax(probed, own, 1)["tasks"]) == count
    assert decide_relax(probed, param(stop={"probe": {}}), 1) == {"tasks": []}


def test_criteria_wait_then_say_what_changed() -> None:
    probed, own = Probed(), param(stop=RELAX)
    assert relax_criteria(probed, param(stop={"probe": {}}), 1) == []
    (waiting,) = relax_criteria(probed, own, 1)
    assert waiting.state == "unknown" and "waits until all else is met" in waiting.sentence
    probed.relaxed(0.0, 0.0, 0.0)
    assert [one.state for one in relax_criteria(probed, own, 1)] == ["met"], "a glass without B has no 4B"
    probed.state.done.remove("x2")
    (partly,) = relax_criteria(probed, own, 1)
    assert partly.state == "unknown" and partly.sentence.endswith("1 of 3 structures could not be relaxed")
    probed.state.done.add("x2")
    probed.relaxed(0.2, 0.3, 0.25)
    (unmet,) = relax_criteria(probed, own, 1)
    assert unmet.state == "unmet" and "0 of Si before relaxing with the labeler and 0.25 after" in unmet.sentence
    probed.state.done -= {"x1", "x2"}
    assert relax_criteria(probed, own, 1)[0].state == "unknown"


def test_a_glass_of_which_nothing_could_be_relaxed_is_unknown_beside_one_that_agrees() -> None:
    probed, own = Probed(), param(stop=RELAX)
    probed.relaxed(0.0, 0.0, 0.0)
    probed.state.decisions["relax", 1]["tasks"].append({"key": "lost", "name": "other", "spec": {"glass": "other"}})
    states = {one.name: one.state for one in relax_criteria(probed, own, 1)}
    assert {state for name, state in states.items() if "other" in name} == {"unknown"}
    assert {state for name, state in states.items() if GLASS in name} == {"met"}


def test_a_probe_whose_cells_are_all_too_large_to_relax_is_refused() -> None:
    stop = {"probe": {"supercells": [[2, 1, 1]]}, "relax": {"largest_atoms": 100}}
    with pytest.raises(Exception, match="nothing could be relaxed"):
        param(stop=stop)


def test_a_quench_whose_cells_are_too_large_and_a_labeler_that_cannot_relax_are_refused() -> None:
    with pytest.raises(Exception, match=r"quench.relax.largest_atoms is 150, and the smallest cell .* 294 atoms"):
        param(quench={"relax": {}, "n_atoms": [300]})
    with pytest.raises(Exception, match="relaxing by cp2k is not supported"):
        param(quench={"relax": {}}, label={"labeler": "cp2k", "run": {"command": "cp2k"}})


def test_relax_without_a_probe_is_refused() -> None:
    with pytest.raises(Exception, match="relax needs a probe"):
        param(stop={"relax": {}})


def test_at_most_so_many_are_relaxed() -> None:
    assert relaxing.relaxed_glasses(param(stop=RELAX)) == 3 * len(param().glasses)
    assert relaxing.relaxed_glasses(param()) == 0
