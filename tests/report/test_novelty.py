"""How new a frame was, as `alloop why` tells it: on environments in a plane, whose distances are plain to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.frames import write_arrays
from alloop.report.fate import fate_lines
from alloop.report.novelty import build_novelty, novelty_lines
from alloop.selection.diversity import Environments, Known, Scale
from alloop.tasks.describe import ENVIRONMENTS, KNOWN

HOT, COLD = "LBS-20-60-20.n63.2000K.t00", "LBS-20-60-20.n63.300K.t00"
EXPLORE = {"temperatures_K": [300, 2000], "ramps": [], "trajectories": 2, "chunks": 2}
CONFIG = {"name": "x", "glasses": [{"name": "LBS-20-60-20", "n_atoms": [63]}], "explore": EXPLORE}
Atom = tuple[str, float, float]
Why = Callable[..., dict[str, Any]]


def environments(vectors: list[tuple[float, float]]) -> Environments:
    return Environments(np.full(len(vectors), 14, dtype=np.int16), np.array(vectors, dtype=np.float32).reshape(-1, 2))


def write_chunk(folder: Path, frames: list[list[Atom]], trust: list[str]) -> None:
    """Write frames as lists of (reason, x, y), an atom each."""
    folder.mkdir()
    rows = [(number, *atom) for number, atoms in enumerate(frames) for atom in atoms]
    reasons = ["candidate", "overlap"]
    found = environments([(x, y) for _, _, x, y in rows])
    table = {"frame": np.array([row[0] for row in rows]), "reason": np.array([reasons.index(row[1]) for row in rows])}
    arrays = table | {"reasons": np.array(reasons), "elements": found.elements, "vectors": found.vectors}
    write_arrays(folder / ENVIRONMENTS, arrays)
    kept = np.array(["before_loss" if trusted == "failed" else "candidate" for trusted in trust])
    write_arrays(folder / "frames.npz", {"trust_class": np.array(trust), "kept_for": kept})


@pytest.fixture
def why(tmp_path: Path) -> Why:
    """How new a frame of the first chunk is; all training data are at the origin, and those of ensemble 1 at (1, 0)."""
    scale = Scale(np.array([14]), np.zeros((2, 2), np.float32), np.full((2, 2), 1 / np.sqrt(2), np.float32))
    for name, place in (("known0", (0.0, 0.0)), ("known1", (1.0, 0.0))):
        known = Known(scale)
        known.cover(environments([place]))
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / KNOWN, known.arrays())
    of_event: list[Atom] = [("candidate", 0.3, 0.0), ("overlap", 0.06, 0.0), ("overlap", 0.0, 0.08)]
    first: list[list[Atom]] = [[("candidate", 3.0, 4.0)], of_event, [("candidate", 9.0, 0.0)], []]
    write_chunk(tmp_path / "a", first, ["candidate", "candidate", "accurate", "candidate"])
    write_chunk(tmp_path / "b", [[("candidate", 3.0, 4.5)], [("candidate", 0.0, 1.0)]], ["candidate", "failed"])
    write_chunk(tmp_path / "c", [[("candidate", 0.0, 7.0)]], ["candidate"])
    tasks = {"a": f"{HOT}.c00", "b": f"{HOT[:-1]}1.c00", "c": f"{COLD}.c00", "d": f"{HOT}.c01"}
    explored = [{"key": key, "name": name} for key, name in tasks.items()]

    def ask(
        frame: int | None, picks: tuple[tuple[str, int, str], ...] = (), done: str = "abc", chunk: str = "a"
    ) -> Any:
        kept_for = "before_loss" if (chunk, frame) == ("b", 1) else "candidate"
        explore = {"number": 3, "tasks": explored}
        describe = {("describe", number): {"tasks": [{"key": f"known{number}"}]} for number in (0, 1)}
        state = SimpleNamespace(
            decisions={("explore", 0): explore, **describe},
            done={"known0", "known1", *done} - ({"known0"} if "0" in done else set()),
            picks_in={0: [{"source": {"task": task, "frame": n}, "reason": reason} for task, n, reason in picks]},
            starts=[{"number": 1, "config": CONFIG}],
        )
        campaign: Any = SimpleNamespace(state=state, result=tmp_path.__truediv__)
        task: Any = SimpleNamespace(key=chunk, name=tasks[chunk])
        return json.loads(json.dumps(build_novelty(campaign, task, 0, frame, kept_for), allow_nan=False))

    return ask


def test_distance_from_the_ensembles_own_training_data_among_frames_of_the_stratum(why: Why) -> None:
    """Beside it two candidates at 2000 K; what is accurate, only before a loss or at 300 K is not compared."""
    found = why(0)
    assert (found["ensemble"], found["stratum"], found["picks_before"]) == (0, "LBS-20-60-20 2000K", 0)
    told = found["reasons"]["candidate"]
    assert told["value"] == pytest.approx(5.0) and told["beside_picks"] == told["value"]
    assert (told["others"], told["less_new"], told["median"]) == (2, 1, pytest.approx((0.3 + np.hypot(3, 4.5)) / 2))
    assert (told["picked"], told["median_picked"]) == (0, None)
    (line,) = novelty_lines(found)
    assert line == (
        "its most uncertain atom: 5 from the training data of ensemble 0; newer than 1 of 2 other candidates of "
        "LBS-20-60-20 2000K (median 2.85); its rank is this times its deviation"
    )


def test_frames_asked_about_earlier_count_as_known_and_their_median_is_told(why: Why) -> None:
    picks = (("b", 0, "candidate"), ("b", 1, "before_loss"), ("a", 0, "candidate"), ("a", 1, "overlap"))
    told = why(0, picks)["reasons"]["candidate"]
    assert (told["value"], told["beside_picks"]) == (pytest.approx(5.0), pytest.approx(0.5))
    assert (told["picked"], told["median_picked"]) == (1, pytest.approx(np.hypot(3, 4.5)))
    assert why(0, picks)["picks_before"] == 2, "not itself, nor what came after it"
    assert why(0, picks[3:])["picks_before"] == 1
    (line,) = novelty_lines(why(0, picks))
    assert "0.5 with the 2 labels asked for before it; newer than" in line and "of 1 asked for 5.41)" in line
    assert "4.24 with the label asked for before it" in novelty_lines(why(0, picks[1:]))[0]


def test_a_last_good_frame_is_compared_with_others_before_a_loss_too(why: Why) -> None:
    found = why(1, (("b", 1, "before_loss"),), chunk="b")
    assert found["picks_before"] == 0 and found["reasons"].keys() == {"candidate", "before_loss"}
    assert [found["reasons"][reason]["others"] for reason in ("candidate", "before_loss")] == [3, 0]
    assert novelty_lines(found)[1].startswith("as a last good frame: 1 from")


def test_an_event_is_as_new_as_the_newest_of_its_atoms_and_may_be_known_already(why: Why) -> None:
    found = why(1)
    assert found["reasons"]["overlap"]["value"] == pytest.approx(0.08)
    assert found["reasons"]["candidate"]["value"] == pytest.approx(0.3)
    assert found["event_least"] == 0.1
    first, second = novelty_lines(found)
    assert first.startswith("its most uncertain atom: 0.3 from") and "nothing new" not in first
    assert second.startswith("its overlap: 0.08 from") and "(nothing new below 0.1); newer than 0 of 0 other" in second


def test_what_is_not_known_is_said(why: Why) -> None:
    assert why(None) == {"unknown": "a chunk describes only what it brings home"}
    assert "no model that describes" in why(3)["unknown"]
    assert why(0, done="0abc") == {"unknown": "the training data of ensemble 0 were not described"}
    assert novelty_lines(why(None)) == ["not known: a chunk describes only what it brings home"]


def test_an_element_of_which_nothing_is_known_is_beyond_all(why: Why, tmp_path: Path) -> None:
    with np.load(tmp_path / "a" / ENVIRONMENTS) as stored:
        arrays = dict(stored)
    write_arrays(tmp_path / "a" / ENVIRONMENTS, arrays | {"elements": np.full(len(arrays["frame"]), 3, np.int16)})
    told = why(0)["reasons"]["candidate"]
    assert told["value"] is None and told["less_new"] == 1
    assert "its most uncertain atom: beyond all (a new element) from the training data" in novelty_lines(why(0))[0]


def test_the_fate_of_a_frame_tells_it(why: Why) -> None:
    about = {"iteration": 0, "target_temperature_K": 2000.0, "trust_levels_eV_A": [0.25, 1.0], "trust_reason": ""}
    about |= {"max_force_deviation_eV_A": 0.5, "trust_class": "candidate", "events": [], "kept_for": "candidate"}
    about |= {"audit_of": 0, "judged_again": [], "label": None, "not_asked": "others came first"}
    lines = fate_lines(about | {"novelty": why(1)})
    assert [head for head, _ in lines].index("new") == [head for head, _ in lines].index("kept") + 1
    assert [text for head, text in lines if head == "new" or text.startswith("its overlap")] == novelty_lines(why(1))
