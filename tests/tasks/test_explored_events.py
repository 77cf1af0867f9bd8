"""What chunks bring home because of events: on scripted dynamics, through the true tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alloop.attempt import Context
from alloop.campaign import label_task
from alloop.decisions.exploration import Trajectory
from alloop.decisions.found import Collected, frames_of
from alloop.decisions.selection import Statistics, _events_by_band, selection_rules
from alloop.event_params import definitions
from alloop.frames import read_all_structures, read_columns, read_ragged, read_structures, write_arrays
from alloop.potential.conditions import MdState
from alloop.select_params import SelectParam
from alloop.selection.bands import band_names
from alloop.selection.picks import columns
from alloop.store import read_json
from alloop.structure import to_record
from alloop.tasks import dynamics, explore, quench

CONDITION = {"ensemble": "nvt", "temperature_start_K": 300.0, "temperature_end_K": 300.0, "timestep_fs": 1.0}
EVENTS = definitions(
    SelectParam(
        events={"under_coordinated_B": {}, "hot": {"kind": "temperature", "excursion_K": 100}},
    ).events
)
CALM, KNOWN = 0.1, {"trust_low_eV_A": 0.2, "trust_high_eV_A": 1.0, "lost_eV_A": 20.0}

HOLD = {"stage": "melt", "stage_kind": "hold", "analyse_from_step": None}


def frame(n_oxygen: int = 4, length_A: float = 1.75) -> Atoms:
    """A silicon atom, number 1, with so many oxygen atoms, and lithium far from them."""
    legs = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)])[:n_oxygen]
    lengths = np.full(n_oxygen, 1.75)
    lengths[0] = length_A
    rest = np.array([(6.0 + k, 6, 6) for k in range(0, 2 * (5 - n_oxygen), 2)]).reshape(-1, 3)  # oxygen elsewhere
    positions = np.vstack([(4, 4, 9), (2, 2, 2), 2 + lengths[:, None] * legs, rest])
    return Atoms(["Li", "Si", *["O"] * 5], positions=positions, cell=[12, 12, 12], pbc=True)


class Scripted:
    """Dynamics that shows given frames, with given deviations of the atom of the given number."""

    def __init__(self, story: list[tuple[Atoms, float]], condition: Any, every: int) -> None:
        self.story, self.condition, self.every, self.step = story, condition, every, 0

    def advance(self, n_steps: int) -> None:
        self.step += n_steps

    def state(self) -> MdState:
        atoms, largest = self.story[self.step // self.every - 1]
        deviation = np.full(len(atoms), 0.5 * largest)
        deviation[3] = largest
        return MdState(self.step, atoms, -1.0, 350.0, 0.0, deviation, 0.0)

    def close(self) -> None:
        pass


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(task: Any, story: list[tuple[Atoms, float]], **more: Any) -> Path:
        def engine(models: Any, start: Atoms, condition: Any, **about: Any) -> Scripted:
            return Scripted(story, condition, about["deviation_every"])

        monkeypatch.setattr(dynamics, "ENGINES", {"scripted": engine})
        monkeypatch.setattr(dynamics, "starting_state", lambda context: frame())
        condition = CONDITION | {"n_steps": 20 * len(story)} | more.pop("condition", {})
        spec = {"engine": "scripted", "models": [], "seed": 1, "deviation_every": 20, "frames_per_chunk": 20}
        spec |= {"audit_frames": 3, "start": {}}
        spec |= {"condition": condition, "events": EVENTS} | KNOWN | more
        out = tmp_path / "out"
        out.mkdir()
        task.run(Context(spec, "chunk", tmp_path, out, [], {}, {}))
        return out

    return run


def kept_for(out: Path) -> list[tuple[int, str]]:
    columns = read_columns(out)
    return list(zip((columns["step"] // 20 - 1).tolist(), columns["kept_for"].tolist(), strict=True))


def test_an_event_comes_home_although_the_models_agree(run) -> None:
    calm, five = (frame(), CALM), (frame(5), CALM)
    out = run(explore, [calm] * 7 + [five] + [calm] * 2)
    columns = read_columns(out)
    (place,) = np.flatnonzero(columns["event:five_coordinated_Si"])
    assert kept_for(out)[place] == (7, "five_coordinated_Si")
    assert columns["trust_class"][place] == "accurate"
    assert columns["max_force_deviation_atom"].tolist() == [3] * len(columns["step"])
    ragged = read_ragged(out)
    assert set(ragged) == {f"offending:{name}" for name in EVENTS}
    assert [atoms.tolist() for atoms in ragged["offending:five_coordinated_Si"]] == [
        [1] if frame == place else [] for frame in range(len(columns["step"]))
    ]
    assert not any(map(len, ragged["offending:overlap"]))
    assert {len(column) for column in columns.values()} == {len(columns["step"])}, "ragged ones are no columns"
    with np.load(out / "table.npz") as table:
        assert np.flatnonzero(table["event:five_coordinated_Si"]).tolist() == [7]
        assert np.flatnonzero(table["count:five_coordinated_Si"]).tolist() == [7] and not table["count:overlap"].any()
        assert not table["event:overlap"].any()
    assert read_json(out / "summary.json")["events"] == {
        "overlap": 0,
        "five_coordinated_Si": 1,
        "under_coordinated_B": 0,
        "hot": 0,
    }
    assert read_structures(out, [int(place)]) == [to_record(frame(5))]


def test_a_chunk_brings_home_few_frames_of_one_event(run) -> None:
    out = run(explore, [(frame(5), CALM)] * 50)
    reasons = Counter(reason for _, reason in kept_for(out))
    assert reasons["five_coordinated_Si"] <= 4 and reasons.total() <= 7
    assert kept_for(out)[-1] == (49, "five_coordinated_Si"), "spread over the chunk"
    assert read_json(out / "summary.json")["events"]["five_coordinated_Si"] == 50


def test_between_gate_and_threshold_asked_for_below_lost_and_the_last_good_frames_kept(run) -> None:
    story = [(frame(), CALM)] * 10 + [(frame(length_A=1.25), CALM), (frame(), 2.0), (frame(length_A=1.15), CALM)]
    after_the_loss = [(frame(), CALM)] * 3
    out = run(explore, [*story, *after_the_loss])
    summary = read_json(out / "summary.json")
    assert summary["status"] == "lost"
    assert (summary["records"], summary["missed"]) == (len(story), len(after_the_loss))
    assert summary["reason"].startswith("step 260: Si 1 and O 2 are 1.15 Å apart, closer than the hard gate of 1.20")
    assert summary["events"]["overlap"] == 2
    kept = dict(kept_for(out))
    assert kept[11] == "before_loss", "the last good one, although beyond the trust levels"
    assert kept[6] == "before_loss", "and one at least 100 fs before"
    assert kept[10] == "overlap"
    assert 12 not in kept, "what is below the gate is never asked about"
    columns = read_columns(out)
    at = columns["step"].tolist().index(220)
    assert columns["event:overlap"][at] and read_ragged(out)["offending:overlap"][at].tolist() == [1, 2]


def test_a_chunk_brings_home_as_many_random_frames_as_the_audit_may_want_of_it(run) -> None:
    """With fewer a chunk could never give its share of the sample."""
    out = run(explore, [(frame(), CALM)] * 40, audit_frames=9)
    columns = read_columns(out)
    assert columns["audit_of"].tolist() == [40] * 9 and set(columns["kept_for"]) == {"audit"}


def test_near_collapse_is_brought_home_although_all_of_it_is_beyond_trust(run) -> None:
    """A calibrated upper level may be lower than the deviations of the whole way into the failure."""
    out = run(explore, [(frame(), CALM)] * 4 + [(frame(), 2.0)] * 8 + [(frame(), 21.0)])
    assert "21.00 > 20 eV/A" in read_json(out / "summary.json")["reason"]
    assert [index for index, reason in kept_for(out) if reason == "before_loss"] == [6, 11], "not what ran off itself"


@pytest.mark.parametrize("task", [explore, quench])
def test_a_deviation_that_is_no_number_loses_the_trajectory_and_is_never_asked_about(run, task) -> None:
    """NaN is smaller than no limit and larger than none: only a check of its own finds it."""
    about = HOLD | {"frame_every": 20, "guard_records": 3} if task is quench else {"audit_frames": 99}
    out = run(task, [(frame(), CALM)] * 2 + [(frame(), np.nan)] + [(frame(), CALM)] * 2, **about)
    summary = read_json(out / "summary.json")
    assert (summary["status"], summary["records"]) == ("lost", 3)
    assert summary["reason"] == "step 60: force deviation is not finite"
    assert 2 not in [index for index, reason in kept_for(out) if reason]
    assert read_json(out / "restart.json")["end"] is None


@pytest.mark.parametrize(("good", "expected"), [(0, []), (1, [0]), (5, [4]), (6, [0, 5])])
def test_as_many_frames_before_a_loss_as_there_are(run, good, expected) -> None:
    out = run(explore, [(frame(), CALM)] * good + [(frame(length_A=0.5), CALM)])
    assert [index for index, reason in kept_for(out) if reason == "before_loss"] == expected


def test_events_without_any_frame(run) -> None:
    out = run(explore, [(frame(length_A=0.5), CALM)])
    assert read_columns(out)["event:overlap"].shape == (0,)
    assert read_ragged(out)["offending:overlap"] == []


def test_target_temperature_of_a_ramp(run) -> None:
    story = [(frame(), CALM)] * 4
    out = run(explore, story, condition={"temperature_start_K": 300.0, "temperature_end_K": 500.0})
    with np.load(out / "table.npz") as table:
        assert table["target_temperature_K"].tolist() == [350, 400, 450, 500]
        assert table["event:hot"].tolist() == [False, False, False, True], "the frames are at 350 K"
    hot = read_columns(out)["event:hot"]
    assert [len(atoms) for atoms in read_ragged(out)["offending:hot"]] == [7 * seen for seen in hot]


def test_the_quench_watches_the_same_events(run) -> None:
    out = run(
        quench,
        [(frame(), CALM), (frame(5), CALM)],
        frame_every=20,
        stage="melt",
        stage_kind="hold",
        analyse_from_step=None,
    )
    assert read_json(out / "summary.json")["events"]["five_coordinated_Si"] == 1
    with np.load(out / "table.npz") as table:
        assert table["event:five_coordinated_Si"].tolist() == [False, True]


# ---------------------------------------------------------------------------------------- what is made of it


def test_events_are_counted_by_band(tmp_path: Path) -> None:
    own = SelectParam()
    summary = {"events": {"overlap": 3, "five_coordinated_Si": 0}}
    hold = {"temperature_start_K": 2000.0, "temperature_end_K": 2000.0}
    assert _events_by_band(tmp_path, hold, summary, own) == {"overlap": {"1250-2250 K": 3}}, "no file is read"
    ramp = {"temperature_start_K": 300.0, "temperature_end_K": 3000.0}
    targets = np.array([300.0, 599, 600, 2300, 3000])
    write_arrays(
        tmp_path / "table.npz",
        {"target_temperature_K": targets, "event:overlap": np.array([False, True, True, False, True])},
    )
    by_band = _events_by_band(tmp_path, ramp, summary, own)
    assert by_band == {"overlap": {"below 600 K": 1, "600-1250 K": 1, "from 2250 K": 1}}
    bands = band_names(own.temperature_bands_K)
    statistics = Statistics({"overlap": 5, "five_coordinated_Si": 0}, bands)
    classes = {"accurate": 5, "candidate": 0, "failed": 0}
    for _ in range(2):
        spec = {"trust_low_eV_A": 0.2, "trust_high_eV_A": 1.0}
        statistics.add("G 300-3000K", {"classes": classes, "status": "finished"}, by_band, spec)
    picks = [{"reason": "overlap", "band": "below 600 K", "stratum": "G 300-3000K"}]
    events = statistics.content(picks)["events"]
    assert list(events["overlap"]["bands"]) == ["below 600 K", "600-1250 K", "from 2250 K"], "coldest first"
    assert events == {
        "overlap": {
            "seen": 6,
            "labelled": 1,
            "quota": 5,
            "bands": {
                "600-1250 K": {"seen": 2, "labelled": 0},
                "below 600 K": {"seen": 2, "labelled": 1},
                "from 2250 K": {"seen": 2, "labelled": 0},
            },
        },
        "five_coordinated_Si": {"seen": 0, "labelled": 0, "quota": 0, "bands": {}},
    }


def test_records_that_lost_chunks_never_made_are_summed(run) -> None:
    story = [(frame(), CALM)] * 4
    lost = read_json(run(explore, [*story, (frame(length_A=0.5), CALM), *story]) / "summary.json")
    whole = {"classes": {"accurate": 9, "candidate": 0, "failed": 0}, "status": "finished", "missed": 0}
    statistics = Statistics({}, [])
    for stratum, summary in (("G 300K", lost), ("G 300K", whole), ("G 600K", lost)):
        statistics.add(stratum, summary, {}, KNOWN)
    content = statistics.content([])
    assert (content["missed_records"], content["lost_chunks"]) == (8, 2)
    assert sum(content["classes"].values()) == 5 + 9 + 5


def test_the_record_of_a_frame_has_its_band_and_events(run, tmp_path: Path) -> None:
    ramp = {"temperature_start_K": 500.0, "temperature_end_K": 700.0}
    out = run(explore, [(frame(5), CALM), (frame(5), CALM), (frame(5), CALM), (frame(), 0.5)], condition=ramp)
    campaign: Any = SimpleNamespace(
        result=lambda key: out,
        level={"name": "level", "content": {"labeler": "none"}},
        state=SimpleNamespace(trajectories={"G.n7.500-700K.t00": "training"}),
    )
    entry = {"key": "k", "name": "G.n7.500-700K.t00.c03", "spec": {"condition": CONDITION | ramp | {"n_steps": 80}}}
    trajectory = Trajectory("G.n7.500-700K.t00", "G", 7, "nvt", 500.0, 700.0)
    found = list(frames_of(campaign, entry, trajectory, SelectParam()))
    assert [record["band"] for _, record in found] == ["below 600 K"] + ["600-1250 K"] * 3
    assert [record["events"] for _, record in found] == [
        ["five_coordinated_Si", "hot"],
        ["five_coordinated_Si", "hot"],
        ["five_coordinated_Si", "hot"],
        ["hot"],
    ]
    assert [set(record["events"]) for _, record in found] == [candidate.events for candidate, _ in found]
    assert {candidate.trust_class for candidate, _ in found[:3]} == {"accurate"}
    keys = [label_task("", "", record, campaign.level["content"], ()).key for record in read_all_structures(out)]
    assert [record["key"] for _, record in found] == keys, "made of the content key that came home with the frame"
    both = Collected(campaign, SelectParam(), ["five_coordinated_Si", "hot"], audit_only=False)
    both.add(entry, trajectory)
    table, expected = both.frames(), columns([candidate for candidate, _ in found])
    for name in (
        "identities",
        "times_ps",
        "temperatures_K",
        "trust",
        "max_force_deviations_eV_A",
        "audit_of",
        "events",
    ):
        assert getattr(table, name).tolist() == getattr(expected, name).tolist(), name
    assert [both.record(index) for index in range(4)] == [record for _, record in found]
    drawn = Collected(campaign, SelectParam(), ["hot"], audit_only=True)
    drawn.add(entry, trajectory)
    assert drawn.frames().identities.tolist() == [one.identity for one, _ in found if one.audit_of]
    assert len(Collected(campaign, SelectParam(), [], audit_only=True).frames()) == 0


def test_a_quota_of_zero_asks_for_nothing() -> None:
    from alloop.config import parse

    param = parse({"name": "x", "glasses": ["LBS-20-60-20"], "select": {"events": {"overlap": {"quota": 0}}}})
    assert selection_rules(param).event_quota == {"five_coordinated_Si": 5}


@pytest.mark.parametrize(("select", "expected"), [({}, 5), ({"before_loss": 0}, 0), ({"before_loss": 8}, 8)])
def test_the_last_good_frames_are_labelled_as_often_as_param_json_says(select: dict[str, int], expected: int) -> None:
    from alloop.config import parse

    param = parse({"name": "x", "glasses": ["LBS-20-60-20"], "select": select})
    assert selection_rules(param).before_loss == expected


@pytest.mark.parametrize(
    ("select", "copies", "expected"),
    [
        ({"max_labels": 8}, 2, 4),
        ({"max_labels": 8}, 1, 8),
        ({"max_labels": 1}, 2, 1),
        ({}, 2, 8),
        ({"max_per_trajectory": 70}, 2, 50),
    ],
)
def test_no_trajectory_of_several_fills_a_batch(select: dict[str, int], copies: int, expected: int) -> None:
    from alloop.config import parse

    explore_ = {"temperatures_K": [300], "ramps": [], "trajectories": copies}
    glass = {"name": "LBS-20-60-20", "n_atoms": [63]}
    param = parse({"name": "x", "glasses": [glass], "explore": explore_, "select": select})
    assert selection_rules(param).max_per_trajectory == expected


def test_chunks_that_failed_were_lost_or_withdrawn_are_counted_apart() -> None:
    """Through the decision itself: one finished, one lost, one given up, one withdrawn."""
    from alloop.config import parse
    from alloop.decisions.exploration import trajectories
    from alloop.decisions.selection import decide_select
    from alloop.selection.backlog import Backlog

    explore_ = {"temperatures_K": [300], "ramps": [], "trajectories": 1, "chunks": 4}
    given = {"name": "x", "glasses": [{"name": "LBS-20-60-20", "n_atoms": [63]}], "explore": explore_}
    param = parse(given)
    (trajectory,) = trajectories(param)
    spec = {"condition": CONDITION | {"n_steps": 80}} | KNOWN
    tasks = [{"key": f"k{n}", "name": f"{trajectory.name}.c{n:02d}", "spec": spec} for n in range(4)]
    summaries = {
        f"k{n}": {"status": status, "classes": {"accurate": 4, "candidate": 0, "failed": 0}, "events": {}, "missed": n}
        for n, status in enumerate(["finished", "lost"])
    }
    state = SimpleNamespace(
        decisions={("explore", 0): {"number": 2, "common": {"events": {}}, "tasks": tasks}},
        done=set(summaries),
        superseded={"k3": None},
        picks={},
        picks_in={},
        trajectories={trajectory.name: "training"},
        starts=[{"number": 1, "config": given}],
        backlog=Backlog(),
    )
    about = {"summary": summaries.__getitem__, "result": Path, "level": {"name": "own", "content": {}}}
    campaign: Any = SimpleNamespace(state=state, **about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alloop.decisions.found.Collected.add", lambda self, entry, trajectory: None)
        decision = decide_select(campaign, param, 0)
    counted = {name: decision[name] for name in ("lost_chunks", "failed_chunks", "withdrawn_chunks", "missed_records")}
    assert counted == {"lost_chunks": 1, "failed_chunks": 1, "withdrawn_chunks": 1, "missed_records": 1}
    assert decision["classes"] == {"accurate": 8, "candidate": 0, "failed": 0} and decision["picks"] == []


@pytest.mark.parametrize("drawn", [0, 2])
@pytest.mark.parametrize("events", [(), ("overlap", "five_coordinated_Si")])
def test_frames_that_were_not_drawn_for_the_audit_are_none_of_it(
    drawn: int, events: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An iteration whose labels were asked for frame by frame, with and without an audit, with and without events."""
    from alloop.decisions import found
    from alloop.decisions.exploration import Trajectory
    from alloop.select_params import SelectParam

    frames = 3
    drawn_of = np.array([40] * drawn + [0] * (frames - drawn))
    own = {
        "step": np.arange(frames) * 20,
        "target_temperature_K": np.full(frames, 300.0),
        "trust_class": np.array(["candidate"] * frames),
        "max_force_deviation_eV_A": np.ones(frames),
        "kept_for": np.array(["candidate"] * frames),
        "audit_of": drawn_of,
        "content": np.array([f"content{n}" for n in range(frames)]),
    }
    own |= {f"event:{event}": np.zeros(frames, dtype=bool) for event in events}
    monkeypatch.setattr(found, "read_some_columns", lambda result, names: own)
    campaign: Any = SimpleNamespace(result=Path, level={"name": "own", "content": {}})
    collected = found.Collected(campaign, SelectParam(), events, audit_only=True)
    trajectory = Trajectory("glass.n3.300K.t00", "glass", 3, "nvt", 300.0, 300.0)
    entry = {"key": "k", "name": f"{trajectory.name}.c00", "spec": {"condition": CONDITION | {"n_steps": 80}}}
    collected.add(entry, trajectory)
    table = collected.frames()
    assert len(table) == drawn and table.events.shape == (drawn, len(events))
