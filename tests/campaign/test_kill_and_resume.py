"""A real campaign killed with SIGKILL in the middle of every kind of attempt, and resumed to the same labels.

It is an iteration shorter than the undisturbed one, with which it is compared up to there.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from pathlib import Path

import pytest
from harness import (
    EARLY,
    SHORT,
    Meeting,
    Outcome,
    alloop,
    assert_counts_add_up,
    assert_nothing_ran_twice,
    driver,
    finished_tasks,
    live_attempts,
    meet_attempt,
    outcome,
    write_param,
)

pytestmark = pytest.mark.slow


def test_killed_in_every_kind_of_attempt_and_around_a_decision(
    tmp_path: Path, reference_outcome: Outcome, record_property: pytest.FixtureRequest
) -> None:
    folder = write_param(tmp_path / "killed", **SHORT)
    met: list[Meeting] = []
    for kind in ("bootstrap", "label", "train", "explore"):
        with driver(folder, "--barrier") as started:
            met.append(meet_attempt(started, kind, reference_outcome.seconds[kind]))
            started.kill(everything=True)
            assert not live_attempts(folder)
    for moment in ("before", "after"):
        with driver(folder, "--barrier", ALLOOP_FAILPOINT=f"decide:select:{moment}") as started:
            assert started.wait(300) == -9, started.text()
            met_select = (folder / "iterations").glob("decisions/*.json")
            selects = [file for file in met_select if json.loads(file.read_text())["kind"] == "select"]
            assert len(selects) == (0 if moment == "before" else 1)
    with driver(folder, "--barrier") as started:
        soon = min(1.0, reference_outcome.seconds["quench"])  # the first chunk of three takes the models' loading, too
        met.append(meet_attempt(started, "quench", soon, timeout=400))
        started.kill(everything=True)
    finished = alloop(folder, "run", "--barrier")
    assert finished.returncode == 3, finished.stdout + finished.stderr
    for meeting in met:
        print(meeting)
    assert [meeting.kind for meeting in met] == ["bootstrap", "label", "train", "explore", "quench"]
    assert_ended_as(folder, reference_outcome)


def assert_ended_as(folder: Path, reference: Outcome) -> None:
    found = outcome(folder)
    assert found.before_production(1) == reference.before_production(1)
    last = {about: len(keys) for about, keys in found.keys.items() if about[1].startswith("production")}
    assert last == {("evaluate", "production/assess"): 2, ("quench", "production"): 3}
    assert_nothing_ran_twice(folder)
    assert_counts_add_up(folder)


def test_attempts_outlive_the_driver_and_are_taken_over(tmp_path: Path) -> None:
    folder = write_param(tmp_path / "orphans", **EARLY)
    with driver(folder) as started:
        meeting = meet_attempt(started, "train", 4.0)
        started.kill(everything=False)
        orphans = {(attempt, owner) for _, attempt, owner in live_attempts(folder, "train")}
        assert meeting.attempt in {attempt.name for attempt, _ in orphans}
        with driver(folder) as second:
            deadline = time.monotonic() + 120
            while "taken over" not in second.text() and time.monotonic() < deadline:
                time.sleep(0.2)
            assert "taken over" in second.text()
            for attempt, owner in orphans:
                while owner.alive():
                    time.sleep(0.1)
                manifest = json.loads((attempt.parents[1] / "result" / "MANIFEST.json").read_text())
                assert manifest["record"]["attempt"] == attempt.name
                assert len(list((attempt.parents[1] / "attempts").iterdir())) == 1
            second.kill(everything=True)


@pytest.mark.ci
def test_six_kills_at_random_moments(tmp_path: Path, reference_outcome: Outcome) -> None:
    folder = write_param(tmp_path / "random", **SHORT)
    rng = random.Random(20)
    keys, _ = reference_outcome.before_production(1)
    last = sum(map(len, keys.values()))
    with contextlib.ExitStack() as in_the_end:
        for number, moment in enumerate(sorted(rng.uniform(0, last) for _ in range(6))):
            started = in_the_end.enter_context(driver(folder, "--barrier"))
            while finished_tasks(folder) < moment and started.process.poll() is None:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 4.0))
            assert started.process.poll() is None, f"ended before kill {number + 1}:\n{started.text()}"
            alive = [kind for kind, _, _ in live_attempts(folder)]
            started.kill(everything=number % 2 == 0)
            what = "everything" if number % 2 == 0 else "driver alone"
            print(f"kill {number + 1}: {what}, {finished_tasks(folder)} tasks done, running: {alive}")
        finished = alloop(folder, "run", "--barrier")
    assert finished.returncode == 3, finished.stdout + finished.stderr
    assert_ended_as(folder, reference_outcome)
