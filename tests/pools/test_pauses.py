"""Pauses and deadlines of the threads behind a batch pool."""

from __future__ import annotations

import threading
import time

import pytest
from pools_kit import params

from alloop.pools import jobqueue, link, submission
from alloop.pools.link import FAILED_POLLS, pause_s
from alloop.pools.submission import BackOff, Submitter


def submitter() -> Submitter:
    return Submitter("vasp", params(), None, BackOff(0.1, 1.0))  # type: ignore[arg-type]


def test_pauses_grow_to_a_minute_however_many_looks_have_failed() -> None:
    pauses = [pause_s(failures, 1.0) for failures in (0, FAILED_POLLS - 1, FAILED_POLLS, 5, 6, 1024, 10**9)]
    assert pauses == [1.0, 1.0, 8.0, 32.0, 60.0, 60.0, 60.0]
    assert link._LONGEST_PAUSE_S == 60.0


def test_cancellation_that_is_under_way_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    answer = threading.Event()

    def cancel(kind: str, ids: list[str]) -> None:
        asked.append(ids)
        answer.wait(10)

    monkeypatch.setattr(jobqueue, "cancel", cancel)
    found = submitter()
    for _ in range(200):
        found.cancel("slurm", ["1", "2"])
    found.cancel("slurm", ["2", "3"])
    answer.set()
    found.close()
    assert asked == [["1", "2"], ["3"]]


def test_a_controller_that_hangs_does_not_keep_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(jobqueue, "cancel", lambda kind, ids: answer.wait(30))
    monkeypatch.setattr(submission, "_CLOSING_SECONDS", 0.2)
    found = submitter()
    for number in range(50):
        found.cancel("slurm", [str(number)])
    began = time.monotonic()
    found.close()
    assert time.monotonic() - began < 10
    answer.set()
