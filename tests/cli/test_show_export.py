"""What a campaign says and hands out of its labels: `show`, `export`, and the labels' part of `status`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ase.io
import dpdata
import numpy as np
import pytest
from ase import Atoms
from vasp_double import double_command, make_potcar_library

import alloop
from alloop import config, labelers
from alloop.campaign import Campaign, given_labels, label_task
from alloop.decisions.levels import at_level
from alloop.errors import InputError
from alloop.export import export, parse_request
from alloop.frames import read_columns, read_structure, write_frames
from alloop.glass.force_field import TeterCalculator
from alloop.process import this_process
from alloop.report.provenance import build_provenance, find_label
from alloop.report.provenance_text import lines
from alloop.report.snapshot import read_status
from alloop.report.status import build_status, label_counts
from alloop.state import task_entries
from alloop.store import Task, begin_attempt, make_task, publish, read_json, write_json
from alloop.structure import LabeledFrame, content_key, from_record, to_record

FOUNDATION, TARGET = "sevennet-0", "teter-rehearsal"
LIMIT = {"max_iterations": 2, "slots": 2}
PARAM: dict[str, Any] = {
    "name": "labelled",
    "seed": 3,
    "glasses": ["LBS-20-60-20"],
    "label": {"labeler": TARGET, "foundation": {"labeler": FOUNDATION, "iterations": 1, "promote": 3}},
}
CHUNK = "LBS-20-60-20.n63.2000K.t00.c04"


def glass(number: int, repeat: int = 1) -> Atoms:
    """Twelve atoms (or a multiple) near a grid of 2 Å, different for every number."""
    rng = np.random.default_rng(number)
    grid = 2.0 * np.stack(np.meshgrid(range(2), range(2), range(3), indexing="ij"), axis=-1).reshape(-1, 3) + 0.5
    atoms = Atoms("LiBO2SiO2BO2LiO", positions=grid, cell=[4.0, 4.0, 6.0], pbc=True).repeat((1, 1, repeat))
    atoms.positions += rng.uniform(-0.1, 0.1, atoms.positions.shape)
    return atoms


def numbers(atoms: Atoms) -> LabeledFrame:
    return labelers.load("teter-rehearsal", {}).label(atoms)


# ---------------------------------------------------------------------------------------- a campaign without work


class Built:
    """A campaign whose decisions are taken and whose results are published by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.campaign = Campaign(root)
        self.campaign.load()

    @classmethod
    def begun(cls, root: Path, param: dict[str, Any] = PARAM) -> Built:
        root.mkdir()
        write_json(root / "param.json", param)
        Campaign(root).take(config.parse(param), take_over=False, limit=LIMIT)
        return cls(root)

    def tasks(self, kind: str, iteration: int, tasks: list[Task], **more: Any) -> list[str]:
        self.campaign.decide(
            kind, iteration=iteration, inputs=[], common=more.pop("common", {}), tasks=task_entries(tasks, {}), **more
        )
        return [task.key for task in tasks]

    def publish(self, key: str, write: Callable[[Path], None], **notes: Any) -> None:
        attempt = begin_attempt(self.campaign.prepare(key))
        write(attempt.out)
        record = this_process().to_json() | {"started": read_json(attempt.folder / "attempt.json")["started"]}
        assert publish(attempt, key, record | {"seconds": 36.0, "threads": 2, "alloop": "0.1.0", "notes": notes})
        assert self.campaign.accept(key)

    def frames(self, key: str, frames: list[Atoms], **columns: Any) -> None:
        columns |= {"temperature_K": np.full(len(frames), 300.0)}
        self.publish(key, lambda out: write_frames(out / "frames.npz", frames, **columns))

    def pick(self, source: str, frame: int, name: str, role: str, **more: Any) -> dict[str, Any]:
        result, level = self.campaign.result(source), self.campaign.level
        given = more.pop("given", False)
        content = given_labels(read_columns(result), frame, TARGET) if given else level["content"]
        task = label_task("", name, read_structure(result, frame), content, ())
        return {
            "key": task.key,
            "name": name,
            "source": {"task": source, "frame": frame},
            "given": given,
            "level": TARGET if given else level["name"],
            "trajectory": name.rsplit(".s", 1)[0].rsplit(".c", 1)[0],
            "role": role,
            "reason": "bootstrap",
            "temperature_K": 300.0,
        } | more

    def label(self, key: str, shift_eV: float = 0.0, flags: tuple[str, ...] = (), version: str | None = None) -> None:
        structure = self.campaign.materialise(self.campaign.state.tasks[key]).spec["structure"]
        frame = numbers(from_record(structure))
        record = {
            "structure": structure,
            "energy_eV": frame.energy_eV + shift_eV,
            "forces_eV_A": frame.forces_eV_A.tolist(),
            "virial_eV": frame.virial_eV.tolist(),
            "max_force_eV_A": float(np.linalg.norm(frame.forces_eV_A, axis=1).max()),
            "level": {},
            "seconds": 35.0,
            "python": "3.11",
        }
        notes: dict[str, Any] = {}
        if version:
            record |= {"code": "vasp", "version": version, "flags": list(flags), "electronic_steps": [17]}
            record |= {"corrections": [{"ALGO": "All", "NELM": 200}], "return_code": 0}
            notes = {"code": f"vasp {version}", "flags": list(flags), "runs": 2}
        self.publish(key, lambda out: write_json(out / "label.json", record), **notes)

    def failed_attempt(self, key: str, number: int, kind: str, seconds: float, **more: Any) -> None:
        folder = self.campaign.prepare(key) / "attempts" / f"0000000{number}"
        (folder / "out").mkdir(parents=True)
        (folder / "work").mkdir()
        began = datetime(2026, 1, 1, number, tzinfo=UTC)
        owner = this_process().to_json() | {"start_ticks": 1, "host": f"node{number}", "started": began.isoformat()}
        write_json(folder / "attempt.json", owner)
        (folder / "log.txt").write_text("SCF 60 dE 3.0\nno convergence\n")
        ended = (began + timedelta(seconds=seconds)).isoformat()
        write_json(folder / "failed.json", {"class": kind, "message": "as told", "detail": "", "time": ended} | more)
        if kind == "unconverged":
            write_json(folder / "work" / "tried.json", [{"faults": ["unconverged"], "next": {"ALGO": "All"}}])

    def train(self, iteration: int, labels: list[str]) -> list[str]:
        folder = f"iter.{iteration:06d}/train"
        tasks = [make_task("train", folder, f"model.{n:02d}", {"i": iteration, "n": n}) for n in range(2)]
        keys = self.tasks("train", iteration, tasks, common={"training": labels, "held_out": []})
        for key in keys:
            self.publish(key, _write_model)
        return keys


def _write_model(out: Path) -> None:
    (out / "model.pb").write_bytes(b"weights")
    write_json(out / "summary.json", {"model": "model.pb"})


@pytest.fixture
def built(original: Path, tmp_path: Path) -> Built:
    """A copy of the whole campaign, for a test to change."""
    shutil.copytree(original, tmp_path / "campaign")
    return Built(tmp_path / "campaign")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bootstrap and iteration 0 labelled by the foundation, two labels promoted, iteration 1 at the target level.

    One imported label, one excluded, one quarantined, one waiting; two versions of a code; one flagged.
    """
    built = Built.begun(tmp_path_factory.mktemp("original") / "campaign")
    campaign = built.campaign
    data = {"source": "data", "level": TARGET}
    sources = [
        make_task("bootstrap", "bootstrap/seed", "LBS-20-60-20.n63.t00", {"source": "melt-quench"}),
        make_task("bootstrap", "bootstrap/seed", "data00.aimd", data, files={"file": "aimd"}),
    ]
    melt, own = built.tasks("bootstrap", -1, sources, trajectories={})
    built.frames(melt, [glass(0), glass(1), glass(2, repeat=2)])
    imported = numbers(glass(3))
    columns = {"energy_eV": [imported.energy_eV], "forces_eV_A": imported.forces_eV_A[None]}
    built.frames(own, [glass(3)], virial_eV=imported.virial_eV[None], **columns)
    name = "LBS-20-60-20.n63.t00.s{:04d}"
    picks = [built.pick(melt, n, name.format(n), "held_out" if n == 2 else "training") for n in range(3)]
    picks.append(built.pick(own, 0, "data00.aimd.s0000", "training", given=True))
    campaign.decide("seed_labels", iteration=-1, level=campaign.level, picks=picks)
    for pick in picks:
        built.label(pick["key"], 0.0 if pick["given"] else 1.0)
    old_models = built.train(0, [pick["key"] for pick in picks[:2]])
    chunk = make_task("explore", "iter.000000/explore", CHUNK, {"models": old_models, "seed": 5}, (melt,))
    (explored,) = built.tasks("explore", 0, [chunk], last_chunk={}, trajectories={})
    built.frames(explored, [glass(number) for number in range(10, 16)])
    level = campaign.levels_of(config.parse(PARAM))["target"]
    assert level is not None
    campaign.decide("promote", iteration=0, level=level, picks=at_level(campaign, [p["key"] for p in picks[:3]], level))
    for key in [pick["key"] for pick in campaign.state.decisions["promote", 0]["picks"]]:
        built.label(key)
    built.train(1, campaign.state.labels("training"))
    more = {"trust_class": "candidate", "max_force_deviation_eV_A": 0.51, "events": ["overlap"], "reason": "overlap"}
    found = [built.pick(explored, n, f"{CHUNK}.s{410 + n:04d}", "training", step=410 + n, **more) for n in range(6)]
    counts = {"classes": {"accurate": 9, "candidate": 6, "failed": 0}, "events": {}, "lost_chunks": 0}
    campaign.decide("select", iteration=1, level=campaign.level, picks=found, **counts)
    built.label(found[0]["key"], version="6.3.2", flags=("force_ceiling",))
    built.failed_attempt(found[1]["key"], 1, "interrupted", 9e5)
    built.failed_attempt(found[1]["key"], 2, "crash", 36.0)
    built.label(found[1]["key"], version="5.4.4")
    built.label(found[2]["key"], version="6.3.2", flags=("force_ceiling",))
    campaign.decide("exclude", keys=[found[2]["key"]], reason="not a glass", undo=False)
    for number, kind in ((3, "unconverged"), (4, "unconverged")):
        built.failed_attempt(found[number]["key"], 1, kind, 60.0)
        told = {"class": kind, "message": f"vasp: {kind}\nmore", "detail": ""}
        campaign.decide("quarantine", key=found[number]["key"], name=found[number]["name"], **told)
    (campaign.run_folder / "driver.json").unlink()
    return built.root


@pytest.fixture
def opened(built: Built) -> Campaign:
    campaign = Campaign(built.root)
    campaign.load()
    return campaign


def key_of(campaign: Campaign, name: str, level: str = TARGET) -> str:
    (key,) = [k for k, pick in campaign.state.picks.items() if (pick["name"], pick["level"]) == (name, level)]
    return key


# ---------------------------------------------------------------------------------------- find


def test_label_is_found_by_every_way_to_name_it(opened: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{CHUNK}.s0410"
    key = key_of(opened, name)
    folder = opened.folder(key)
    inside = folder.relative_to(opened.root) / "result" / "label.json"
    ways = [key, key[:12], key[:12].upper(), name, f"{name}-{key}", f"{name}-{key[:5]}", f" {name} "]
    ways += [str(folder), f"{folder}/", str(inside), opened.state.tasks[key].folder]
    assert [find_label(opened, way) for way in ways] == [key] * len(ways)
    monkeypatch.chdir(folder / "result")
    assert find_label(opened, ".") == key
    moved = f"iterations/quarantine/{name}-{key}.0a1b2c"
    assert find_label(opened, moved) == key


def test_name_of_two_levels_means_the_one_asked_for_now(opened: Campaign) -> None:
    name = "LBS-20-60-20.n63.t00.s0000"
    assert find_label(opened, name) == key_of(opened, name, TARGET)
    old = key_of(opened, name, FOUNDATION)
    assert find_label(opened, f"{name}-{old}") == old


def test_ambiguous_prefix_lists_what_it_may_be(built: Built) -> None:
    campaign = built.campaign
    picks = campaign.state.picks
    first = next(iter(picks))
    twin = first[:6] + "".join("0" if digit != "0" else "1" for digit in first[6:])
    picks[twin] = picks[first] | {"name": "twin.s0000"}
    with pytest.raises(InputError) as refused:
        find_label(campaign, first[:5])
    said = str(refused.value)
    assert "any of 2 labels" in said
    assert f"{picks[first]['name']}-{first}  ({FOUNDATION}, done)" in said and f"twin.s0000-{twin}" in said
    assert find_label(campaign, first[:7]) == first


def test_ambiguous_name_lists_what_it_may_be(built: Built) -> None:
    campaign = built.campaign
    picks = campaign.state.picks
    key = key_of(campaign, f"{CHUNK}.s0410")
    picks["00aa00aa00aa00aa"] = picks[key]
    with pytest.raises(InputError, match="any of 2 labels; say which, by its key"):
        find_label(campaign, f"{CHUNK}.s0410")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CHUNK[:-1], "near ones:\n  " + CHUNK + ".s0410-"),  # the beginning of names is no name
        (CHUNK, "of kind explore (iter.000000/explore/"),
        (CHUNK, "near ones:\n  " + CHUNK + ".s0410-"),
        ("2000K.t00.c04.s0413", CHUNK + ".s0413-"),
        ("LBS-20-60-20.n63.2000K.t00.c04.s0419", CHUNK + ".s041"),
        ("label/" + CHUNK + ".s0413-0000000000000000", CHUNK + ".s0413-"),
        ("ffff", "give a key"),
        ("abc", "give a key"),
        ("", "no label ''"),
        ("data00.aimd", "of kind bootstrap (bootstrap/seed/data00.aimd-"),
        ("iter.000001/train/model.00-{train}", "of kind train"),
    ],
)
def test_unknown_label_is_refused_with_near_ones(opened: Campaign, text: str, found: str) -> None:
    with pytest.raises(InputError) as refused:
        find_label(opened, text.format(train=opened.state.models(1)[0]))
    assert found in str(refused.value)
    assert len(str(refused.value).splitlines()) < 12


def test_unknown_label_ends_with_code_2(built: Built, alloop_main: Any, tmp_path: Path) -> None:
    shown = alloop_main("show", "nothing-like-it", "-C", built.root)
    assert (shown.code, shown.out) == (2, "")
    assert "no label 'nothing-like-it'" in shown.err and "Traceback" not in shown.err
    (tmp_path / "empty").mkdir()
    write_json(tmp_path / "empty" / "param.json", PARAM)
    shown = alloop_main("show", "0123", "-C", tmp_path / "empty")
    assert shown.code == 2 and "no label has been asked for" in shown.err


# ---------------------------------------------------------------------------------------- show


def test_provenance_of_a_selected_label(opened: Campaign) -> None:
    key = key_of(opened, f"{CHUNK}.s0411")
    found = build_provenance(opened, key)
    source = opened.state.picks[key]["source"]["task"]
    assert (found["key"], found["status"], found["role"], found["excluded"]) == (key, "done", "training", None)
    assert opened.root / found["folder"] == opened.folder(key)
    assert found["structure"]["formula"] == "Li2B2O7Si1" and found["structure"]["n_atoms"] == 12
    atoms = glass(11)
    assert found["structure"]["lengths_A"] == [4.0, 4.0, 6.0]
    mass_g = atoms.get_masses().sum() / 6.02214076e23
    assert found["structure"]["density_g_cm3"] == pytest.approx(mass_g / (96.0 * 1e-24), rel=1e-4)
    assert found["level"] == {"name": TARGET, "content": {"labeler": TARGET, "options": {}}}
    assert found["selection"] | {"stratum": None} == {
        "iteration": 1,
        "reason": "overlap",
        "trust_class": "candidate",
        "max_force_deviation_eV_A": 0.51,
        "events": ["overlap"],
        "temperature_K": 300.0,
        "stratum": None,
        "band": None,
        "offending_atoms": {},
    }
    origin = found["origin"]
    assert (origin["trajectory"], origin["chunk"], origin["step"], origin["frame"]) == (CHUNK[:-4], 4, 411, 1)
    assert (origin["task"], origin["kind"]) == (source, "explore")
    assert (opened.root / origin["folder"] / "task.json").is_file()
    assert (origin["models"], origin["ensemble_iteration"]) == (opened.state.models(0), 0)
    assert found["hashes"] == {
        "structure": content_key(to_record(atoms)),
        "level": content_key({"labeler": TARGET, "options": {}}),
    }
    result = found["result"]
    assert result["energy_eV"] == numbers(atoms).energy_eV
    assert (result["code"], result["version"], result["runs"]) == ("vasp", "5.4.4", 2)
    assert result["corrections"] == [{"ALGO": "All", "NELM": 200}]
    stress = numbers(atoms).virial_eV / -96.0
    assert result["pressure_GPa"] == pytest.approx(-np.trace(stress) / 3 * 160.21766208)
    assert [file["name"] for file in found["files"]] == ["label.json"]


def test_attempts_and_their_cost(opened: Campaign) -> None:
    found = build_provenance(opened, key_of(opened, f"{CHUNK}.s0411"))
    told = [(tried["class"], tried["host"], tried["seconds"], tried["message"]) for tried in found["attempts"]]
    own = this_process().host
    assert told == [
        ("interrupted", "node1", None, "as told"),  # when it ended is not known
        ("crash", "node2", 36.0, "as told"),
        ("done", own, 36.0, None),
    ]
    assert found["cost"] == {"core_hours": 0.03, "failed_core_hours": 0.01, "attempts": 3}


def test_quarantined_label_shows_why_and_the_log(built: Built, opened: Campaign, alloop_main: Any) -> None:
    name = f"{CHUNK}.s0413"
    found = build_provenance(opened, key_of(opened, name))
    assert found["status"] == "quarantined" and found["result"] is None and found["files"] == []
    assert found["quarantine"]["class"] == "unconverged"
    assert found["quarantine"]["log_tail"] == "SCF 60 dE 3.0\nno convergence"
    assert found["attempts"][0]["tried"] == [{"faults": ["unconverged"], "next": {"ALGO": "All"}}]
    shown = alloop_main("show", name, "-C", built.root)
    assert shown.code == 0
    for text in ("quarantined, training", "| no convergence", "alloop retry", "after unconverged tried ALGO = All"):
        assert text in shown.out
    assert json.loads(alloop_main("show", name, "-C", built.root, "--json").out) == found


def test_excluded_label_says_so(opened: Campaign) -> None:
    found = build_provenance(opened, key_of(opened, f"{CHUNK}.s0412"))
    assert found["excluded"]["reason"] == "not a glass"
    assert any("EXCLUDED" in text and "not a glass" in text for _, text in lines(found))


def test_promoted_label_and_the_one_it_was_made_of_name_each_other(opened: Campaign) -> None:
    name = "LBS-20-60-20.n63.t00.s0001"
    new, old = (build_provenance(opened, key_of(opened, name, level)) for level in (TARGET, FOUNDATION))
    told = {"key": old["key"], "name": name, "level": FOUNDATION, "status": "done"}
    assert new["other_levels"] == [told | {"relation": "this one was made of it"}]
    assert old["other_levels"][0]["key"] == new["key"]
    assert old["other_levels"][0]["relation"] == "was made of this one"
    assert new["result"]["energy_eV"] + 1.0 == pytest.approx(old["result"]["energy_eV"])
    assert (old["trained_in"], new["trained_in"]) == ([0], [1])
    assert new["hashes"]["structure"] == old["hashes"]["structure"]
    assert new["origin"]["chunk"] is None and new["origin"]["models"] is None


def test_imported_label_names_its_file(opened: Campaign) -> None:
    found = build_provenance(opened, key_of(opened, "data00.aimd.s0000"))
    assert found["imported"] and found["level"]["content"] == {"imported": TARGET}
    assert (found["origin"]["kind"], found["origin"]["file"]) == ("data", "aimd")


def test_every_label_can_be_shown(built: Built, opened: Campaign, alloop_main: Any) -> None:
    for key, pick in opened.state.picks.items():
        shown = alloop_main("show", key, "-C", built.root)
        assert shown.code == 0 and shown.out.startswith(f"{pick['name']}  {key}\n")


def test_running_label_and_one_whose_process_is_gone(built: Built, opened: Campaign) -> None:
    key = key_of(opened, f"{CHUNK}.s0415")
    assert build_provenance(opened, key)["status"] == "waiting"
    begin_attempt(built.campaign.prepare(key))
    opened.load()
    found = build_provenance(opened, key)
    assert (found["status"], found["attempts"][0]["class"]) == ("running", "running")
    owner = opened.folder(key) / "attempts" / found["attempts"][0]["id"] / "attempt.json"
    write_json(owner, read_json(owner) | {"start_ticks": 1})
    opened.load()
    found = build_provenance(opened, key)
    assert (found["status"], found["attempts"][0]["class"]) == ("waiting", "gone")


def test_structure_whose_source_is_gone_comes_from_the_task(opened: Campaign) -> None:
    key = key_of(opened, f"{CHUNK}.s0410")
    before = build_provenance(opened, key)
    (opened.result(opened.state.picks[key]["source"]["task"]) / "frames.npz").unlink()
    assert build_provenance(opened, key) == before


def test_unreadable_result_is_told(opened: Campaign) -> None:
    key = key_of(opened, f"{CHUNK}.s0410")
    (opened.result(key) / "label.json").write_text("{")
    with pytest.raises(InputError, match=r"label\.json cannot be read"):
        build_provenance(opened, key)


def test_label_made_by_a_code_shows_inputs_by_hash(tmp_path: Path) -> None:
    """A real attempt with the double of VASP: what it records is what is shown."""
    library = make_potcar_library(tmp_path / "potcars")
    vasp = {"potcar_library": str(library), "potcars": {"Li": "Li_sv"}, "kpoint_spacing_inv_A": 1.0}
    run = {"command": double_command()}
    built = Built.begun(tmp_path / "vasp", PARAM | {"label": {"labeler": "vasp", "vasp": vasp, "run": run}})
    (melt,) = built.tasks("bootstrap", -1, [make_task("bootstrap", "bootstrap/seed", "melt", {})], trajectories={})
    built.frames(melt, [glass(0)])
    pick = built.pick(melt, 0, "melt.s0000", "training")
    built.campaign.decide("seed_labels", iteration=-1, level=built.campaign.level, picks=[pick])
    folder = built.campaign.prepare(pick["key"])
    environment = os.environ | {"PYTHONPATH": str(Path(alloop.__file__).parents[1])}
    subprocess.run([sys.executable, "-m", "alloop.attempt", str(folder)], check=True, timeout=120, env=environment)
    built.campaign.load()
    found = build_provenance(built.campaign, pick["key"])
    assert found["result"]["code"] == "vasp" and found["result"]["version"].startswith("6.3.2")
    assert found["result"]["runs"] == 1 and found["result"]["electronic_steps"]
    hashes = found["hashes"]
    assert hashes["kpoints"] == {"spacing_inv_A": 1.0, "mesh": [2, 2, 2]}
    assert [potcar["titel"] for potcar in hashes["potcars"].values()] != []
    assert set(hashes["potcars"]) == {"Li", "B", "O", "Si"}
    assert "OUTCAR.gz" in [file["name"] for file in found["files"]]
    text = "\n".join(text for _, text in lines(found))
    assert "vasp.incar.ENCUT = 600" in text and "k-points spacing 1 1/A (2x2x2)" in text
    status = build_status(built.campaign, "not running")
    assert status["codes"] == {f"vasp {found['result']['version']}": 1}
    assert status["level"].startswith("vasp-") and status["warnings"] == []


# ---------------------------------------------------------------------------------------- status


def test_counts_of_labels_add_up(opened: Campaign) -> None:
    labels = label_counts(opened.state)
    assert labels == {
        "done": 7,
        "in_flight": 0,
        "waiting": 1,
        "quarantined": 2,
        "training": 5,
        "held_out": 1,
        "excluded": 1,
        "pretraining": 3,
        "superseded": 0,
    }
    apart = ("done", "in_flight", "waiting", "quarantined", "pretraining", "superseded")
    assert sum(labels[what] for what in apart) == len(opened.state.picks)
    assert sum(opened.state.task_counts()["label"].values()) == len(opened.state.picks)


def test_labels_no_longer_wanted_are_counted(built: Built) -> None:
    """After a relabelling nothing of the old level is asked for or given up any more, and each is counted once."""
    campaign = built.campaign
    other = {"name": "chgnet", "content": {"labeler": "chgnet", "options": {}}}
    waiting = key_of(campaign, f"{CHUNK}.s0415")
    campaign.decide("relabel", iteration=1, level=other, picks=at_level(campaign, [waiting], other))
    labels = label_counts(campaign.state)
    assert (labels["done"], labels["waiting"], labels["quarantined"]) == (0, 1, 0)
    assert labels["superseded"] == 7 + 1 + 2 and labels["pretraining"] == 3
    apart = ("done", "in_flight", "waiting", "quarantined", "pretraining", "superseded")
    assert sum(labels[what] for what in apart) == len(campaign.state.picks)
    assert build_provenance(campaign, waiting)["status"] == "superseded"
    status = build_status(campaign, "not running")
    assert status["quarantined"] == [] and status["flagged"] == [] and status["codes"] == {}
    assert sum(status["tasks"]["label"].values()) == len(campaign.state.picks)


def test_status_tells_level_code_flags_and_quarantine_by_class(built: Built, alloop_main: Any) -> None:
    found = json.loads(alloop_main("status", "-C", built.root, "--json").out)
    assert (found["level"], found["level_now"]) == (TARGET, TARGET)
    assert found["codes"] == {"vasp 6.3.2": 2, "vasp 5.4.4": 1}
    assert [entry["class"] for entry in found["quarantined"]] == ["unconverged"] * 2
    key = key_of(built.campaign, f"{CHUNK}.s0410")
    example = f"{CHUNK}.s0410-{key}"  # the other flagged one is excluded
    assert found["flagged"] == [{"flag": "force_ceiling", "count": 1, "example": example}]
    assert len(found["warnings"]) == 1 and "2 versions of the code: 2 by vasp 6.3.2, 1 by" in found["warnings"][0]
    text = " ".join(alloop_main("status", "-C", built.root).out.split())
    assert "7 done (5 training, 1 held out, 1 excluded)" in text and "2 quarantined, 3 pretraining" in text
    assert f"level {TARGET}, by vasp 6.3.2 (2), vasp 5.4.4 (1)" in text
    assert f"quarantined 2 label, unconverged: such as {CHUNK}.s0413: vasp: unconverged mend the cause" in text
    assert "alloop retry" in text and f"alloop show {example}" in text


def test_live_drivers_snapshot_tells_the_same(built: Built, opened: Campaign) -> None:
    told = build_status(opened, "alive")
    driver = built.campaign
    driver.load()
    assert build_status(driver, "alive") | {"time": told["time"]} == told
    assert read_status(Campaign(built.root))["flagged"] == told["flagged"]


def test_status_while_the_foundation_labels(tmp_path: Path, alloop_main: Any) -> None:
    built = Built.begun(tmp_path / "campaign")
    foreign = {"given": False, "level": "another"}
    (melt,) = built.tasks("bootstrap", -1, [make_task("bootstrap", "bootstrap/seed", "melt", {})], trajectories={})
    built.frames(melt, [glass(0), glass(1)])
    picks = [built.pick(melt, 0, "melt.s0000", "training"), built.pick(melt, 1, "melt.s0001", "training")]
    built.campaign.decide("seed_labels", iteration=-1, level=built.campaign.level, picks=picks)
    built.label(picks[0]["key"])
    built.campaign.state.picks["imported"] = picks[1] | foreign | {"given": True}
    status = build_status(built.campaign, "not running")
    assert (status["level"], status["level_now"]) == (TARGET, FOUNDATION)
    assert status["labels"]["done"] == 0 and status["labels"]["pretraining"] == 1 and status["labels"]["waiting"] == 2
    assert status["warnings"] == [
        f"1 imported label(s) of another are not trained on: the campaign's level is {TARGET}"
    ]
    (built.campaign.run_folder / "driver.json").unlink()
    text = " ".join(alloop_main("status", "-C", built.root).out.split())
    assert f"level {TARGET}; labels are now asked for at {FOUNDATION}" in text


# ---------------------------------------------------------------------------------------- export


def exported(campaign: Campaign, directory: Path, **options: Any) -> dict[str, Any]:
    wanted = {"formats": "npy,extxyz", "level": None, "role": "all"} | options
    return export(campaign, directory, parse_request(campaign, **wanted))


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "labels.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_exported_numbers_are_those_of_the_labels_for_dpdata_and_ase(opened: Campaign, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = exported(opened, out)
    assert record["labels"] == {"training": 5, "held_out": 1, "all": 6}
    rows = table(out)
    assert len(rows) == 6 and {row["formula"] for row in rows} == {"Li2B2O7Si1", "Li4B4O14Si2"}
    for row in rows:
        label = read_json(opened.result(row["label"]) / "label.json")
        virial_eV, cell_A = np.array(label["virial_eV"]), np.array(label["structure"]["cell_A"])
        system = dpdata.LabeledSystem(str(out / row["npy_system"]), fmt="deepmd/npy")
        assert system.data["atom_names"] == opened.elements
        order = np.argsort([opened.elements.index(s) for s in label["structure"]["symbols"]], kind="stable")
        frame = int(row["npy_frame"])
        assert system.data["energies"][frame] == pytest.approx(label["energy_eV"], abs=1e-9)
        np.testing.assert_allclose(system.data["forces"][frame], np.array(label["forces_eV_A"])[order], atol=1e-9)
        np.testing.assert_allclose(system.data["virials"][frame], virial_eV, atol=1e-9)
        atoms = ase.io.read(out / f"{row['role']}.extxyz", index=int(row["extxyz_frame"]))
        assert atoms.info["label"] == row["label"] and atoms.info["name"] == row["name"]
        assert atoms.get_potential_energy() == pytest.approx(label["energy_eV"], abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), label["forces_eV_A"], atol=1e-6)
        np.testing.assert_allclose(atoms.get_positions(), label["structure"]["positions_A"], atol=1e-6)
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(stress, -virial_eV / np.linalg.det(cell_A), atol=1e-6)
        again = dpdata.LabeledSystem(atoms, fmt="ase/structure").data["virials"][0]
        np.testing.assert_allclose(again, virial_eV, atol=1e-4)


def test_exported_stress_is_the_derivative_of_the_energy_by_the_strain(opened: Campaign, tmp_path: Path) -> None:
    """Sign and size from physics: dE = V tr(sigma strain), for the calculator that made the labels."""
    exported(opened, tmp_path / "out", formats="extxyz")
    atoms = ase.io.read(tmp_path / "out" / "training.extxyz", index=0)
    stress, volume_A3, strain = atoms.get_stress(voigt=False), atoms.get_volume(), 1e-4
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array * (1 + sign * strain * np.array([1, 0, 0])), scale_atoms=True)
        strained.calc = TeterCalculator()
        energies.append(strained.get_potential_energy())
    assert (energies[0] - energies[1]) / (2 * strain) / volume_A3 == pytest.approx(stress[0, 0], rel=1e-3)


def test_export_never_mixes_levels_and_leaves_excluded_ones_out(opened: Campaign, tmp_path: Path) -> None:
    excluded = key_of(opened, f"{CHUNK}.s0412")
    record = exported(opened, tmp_path / "own")
    rows = table(tmp_path / "own")
    assert {row["level"] for row in rows} == {TARGET} and excluded not in {row["label"] for row in rows}
    assert record["excluded_left_out"] == 1
    assert {row["label"] for row in rows if row["imported"] == "1"} == {key_of(opened, "data00.aimd.s0000")}
    record = exported(opened, tmp_path / "old", level=FOUNDATION)
    assert {row["level"] for row in table(tmp_path / "old")} == {FOUNDATION} and record["labels"]["all"] == 3
    assert record["ensemble"]["iteration"] == 0, "the models that were trained on these labels"
    assert any("campaign's own level" in warning for warning in record["warnings"])
    record = exported(opened, tmp_path / "with", excluded=True)
    assert record["labels"] == {"training": 5, "held_out": 1, "excluded": 1, "all": 7}
    (apart,) = ase.io.read(tmp_path / "with" / "excluded.extxyz", index=":")
    assert apart.info["label"] == excluded
    assert (tmp_path / "with" / "npy" / "excluded").is_dir()
    (row,) = [row for row in table(tmp_path / "with") if row["excluded"]]
    assert (row["label"], row["excluded"], row["flags"]) == (excluded, "not a glass", "force_ceiling")


def test_roles_and_formats_as_asked(built: Built, alloop_main: Any, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = alloop_main("export", out, "-C", built.root, "--role", "held_out", "--format", "npy", "--json")
    record = json.loads(done.out)
    assert (done.code, record["labels"]) == (0, {"held_out": 1, "all": 1})
    assert record["written"] == {"npy": ["npy/held_out/Li4B4O14Si2"]}
    names = sorted(path.name for path in out.iterdir())
    assert names == ["export.json", "labels.csv", "models", "npy"]
    assert read_json(out / "export.json") == record
    assert [path.name for path in out.parent.iterdir()] == ["out"], "nothing is left aside"


def test_models_of_an_ensemble_that_is_not_converged_are_marked(built: Built, alloop_main: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = alloop_main("export", out, "-C", built.root)
    assert done.code == 0 and "NOT converged" in done.out
    record = read_json(out / "export.json")
    assert record["converged"] is False and record["ensemble"]["iteration"] == 1
    assert "NOT converged" in (out / "models" / "NOT_CONVERGED.txt").read_text()
    for model in record["ensemble"]["models"]:
        assert (out / model).read_bytes() == b"weights" and not (out / model).parent.is_symlink()
    linked = exported(built.campaign, tmp_path / "linked", link=True)
    folder = (tmp_path / "linked" / linked["ensemble"]["models"][0]).parent
    assert folder.is_symlink() and folder.resolve() == built.campaign.result(built.campaign.state.models(1)[0])


def test_models_of_a_converged_ensemble_bear_no_mark(built: Built, tmp_path: Path) -> None:
    built.campaign.decide("verdict", iteration=1, converged=True, reason="all criteria met", errors={})
    record = exported(built.campaign, tmp_path / "out")
    assert record["converged"] is True and not list((tmp_path / "out" / "models").glob("*.txt"))
    assert not any("converged" in warning for warning in record["warnings"])


def test_ensemble_that_still_trains_is_not_handed_out(built: Built, tmp_path: Path) -> None:
    folder = "iter.000002/train"
    tasks = [make_task("train", folder, f"model.{n:02d}", {"i": 2, "n": n}) for n in range(2)]
    common = {"training": built.campaign.state.labels("training"), "held_out": []}
    first, _ = built.tasks("train", 2, tasks, common=common)
    built.publish(first, _write_model)
    assert exported(built.campaign, tmp_path / "out")["ensemble"]["iteration"] == 1


def test_models_of_another_level_are_not_handed_out(built: Built, tmp_path: Path) -> None:
    other = {"name": "chgnet", "content": {"labeler": "chgnet", "options": {}}}
    wanted = [key_of(built.campaign, f"{CHUNK}.s0410")]
    picks = at_level(built.campaign, wanted, other)
    built.campaign.decide("relabel", iteration=1, level=other, picks=picks)
    built.label(picks[0]["key"])
    record = exported(built.campaign, tmp_path / "out", level="chgnet")
    assert record["ensemble"]["models"] == [] and not (tmp_path / "out" / "models").exists()
    assert "no complete ensemble has been trained on labels of chgnet" in record["ensemble"]["reason"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"formats": "npy,xyz"}, "names xyz, which is no format"),
        ({"formats": ","}, "there are: npy, extxyz"),
        ({"role": "test"}, "none of training, held_out, all"),
        ({"level": "vasp-123456"}, f"finished labels: 3 of {FOUNDATION}, 7 of {TARGET}"),
    ],
)
def test_request_that_cannot_be_answered_leaves_nothing(
    opened: Campaign, tmp_path: Path, options: dict[str, str], found: str
) -> None:
    with pytest.raises(InputError) as refused:
        exported(opened, tmp_path / "out", **options)
    assert found in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["campaign"]


def test_export_overwrites_nothing(built: Built, alloop_main: Any, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    for place in (full, full / "mine"):
        refused = alloop_main("export", place, "-C", built.root)
        assert refused.code == 2 and "is not an empty folder" in refused.err
    assert [path.name for path in full.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert alloop_main("export", tmp_path / "empty", "-C", built.root, "--link").code == 0
    assert (tmp_path / "empty" / "export.json").is_file()


def test_damaged_label_leaves_no_half_export(opened: Campaign, tmp_path: Path) -> None:
    (opened.result(key_of(opened, f"{CHUNK}.s0410")) / "label.json").write_text("{")
    with pytest.raises(InputError, match=r"label\.json cannot be read"):
        exported(opened, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["campaign"]


def test_failure_while_writing_leaves_no_half_export(
    opened: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alloop.export._write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        exported(opened, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["campaign"]
