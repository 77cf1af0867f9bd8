"""The replay: which rounds are made, that none is repeated, and what is left after a kill."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import alloop
from alloop.bench_select.experiment import Experiment, trust_levels
from alloop.bench_select.report import compare
from alloop.errors import InputError, NeedsPersonError

REPOSITORY = Path(alloop.__file__).resolve().parents[1]
Make = Callable[..., Experiment]
Begun = Callable[[], list[str]]


def names(begun: list[str]) -> Counter[str]:
    """Names of rounds without their keys and processes."""
    return Counter(line.split(":")[0].rsplit("-", 1)[0] for line in begun)


def quiet(_: str) -> None:
    pass


def test_every_method_goes_on_from_the_same_start(make_experiment: Make, fake_rounds: Begun) -> None:
    told: list[str] = []
    rounds = make_experiment().run(2, told.append)
    expected = {f"start.s{seed}.n0006" for seed in (0, 1)}
    expected |= {f"{method}.s{seed}.n{n:04d}" for method in ("random", "full") for seed in (0, 1) for n in (10, 16)}
    assert names(fake_rounds()) == Counter(expected)
    assert len(told) == len(expected)
    assert "(10 of 10 rounds)" in told[-1]
    labels = {(r.method, r.seed, r.size): set(r.labels) for r in rounds}
    assert len(labels) == 12
    for seed in (0, 1):
        assert labels["random", seed, 6] == labels["full", seed, 6]
        for method in ("random", "full"):
            grown = [labels[method, seed, n] for n in (6, 10, 16)]
            assert [len(part) for part in grown] == [6, 10, 16]
            assert grown[0] < grown[1] < grown[2]
    assert labels["random", 0, 6] != labels["random", 1, 6]


def test_nothing_is_made_twice_and_only_what_is_new_is_made(make_experiment: Make, fake_rounds: Begun) -> None:
    make_experiment().run(2, quiet)
    before = fake_rounds()
    records = make_experiment().to_json(make_experiment().run(2, quiet))
    assert fake_rounds() == before
    make_experiment(methods=("random", "dpgen", "full")).run(2, quiet)
    new = names(fake_rounds()[len(before) :])
    assert new == Counter(f"dpgen.s{seed}.n{n:04d}" for seed in (0, 1) for n in (10, 16))
    make_experiment(sizes=(6, 10, 16, 20)).run(2, quiet)
    new = names(fake_rounds()[len(before) + 4 :])
    assert new == Counter(f"{method}.s{seed}.n0020" for method in ("random", "full") for seed in (0, 1))
    assert {record["labels"] for record in records} == {6, 10, 16}
    curves = compare(records)["errors"]["forces"]["methods"]
    assert curves["random"]["ratio"]["value"] == 1.0
    assert curves["full"]["mean"] == sorted(curves["full"]["mean"], reverse=True)


def test_other_training_is_another_round(make_experiment: Make, fake_rounds: Begun) -> None:
    make_experiment(methods=("random",), seeds=(0,)).run(2, quiet)
    make_experiment(methods=("random",), seeds=(0,), warm_steps=7).run(2, quiet)
    assert names(fake_rounds()) == {"start.s0.n0006": 1, "random.s0.n0010": 2, "random.s0.n0016": 2}


def test_a_failed_round_is_told_and_the_rest_is_kept(
    make_experiment: Make, fake_rounds: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ROUND_FAIL", "10")
    with pytest.raises(NeedsPersonError, match=r"seed 0, 10 labels failed with code 1(.|\n)*no convergence, says"):
        make_experiment().run(1, quiet)
    monkeypatch.delenv("FAKE_ROUND_FAIL")
    make_experiment().run(2, quiet)
    counts = names(fake_rounds())
    assert counts.pop("random.s0.n0010") == 2
    assert set(counts.values()) == {1}
    assert not list(make_experiment().folder.glob("rounds/.*"))


def test_a_damaged_round_is_named(make_experiment: Make, fake_rounds: Begun) -> None:
    first = make_experiment().run(2, quiet)[0]
    (first.folder / "evaluation.npz").write_bytes(b"PK half of it")
    with pytest.raises(InputError, match=r"start\.s0\.n0006-\w+ is damaged"):
        make_experiment().run(2, quiet)


def test_two_at_once_are_refused(make_experiment: Make, fake_rounds: Begun) -> None:
    folder = make_experiment().folder
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another bench-select works in"):
            make_experiment().run(1, quiet)
    assert fake_rounds() == []


def test_sizes_that_cannot_be_are_refused(make_experiment: Make) -> None:
    for sizes in ((10,), (10, 6), (0, 5), (5, 5)):
        with pytest.raises(InputError, match="give two or more rising numbers"):
            make_experiment(sizes=sizes)
    with pytest.raises(InputError, match="the largest size is 31 labels, the pool has 30 frames"):
        make_experiment(sizes=(5, 31))


def test_view_shows_maximum_and_its_atom(make_experiment: Make, fake_rounds: Begun) -> None:
    experiment = make_experiment()
    start = experiment.run(2, quiet)[0]
    deviation = start.arrays["deviation_eV_A"].reshape(30, 36)
    deviation[4, 7] = np.nan
    view = experiment.view(start, start)
    assert np.isnan(view.max_deviation_eV_A[4])
    assert view.offending_atom[4] == 7
    others = np.arange(30) != 4
    assert view.max_deviation_eV_A[others] == pytest.approx(deviation.max(axis=1)[others])
    assert view.offending_atom[others].tolist() == deviation.argmax(axis=1)[others].tolist()
    assert np.flatnonzero(view.labelled).tolist() == list(start.labels)
    low, high = view.trust_levels_eV_A
    assert 0 < low < high < 1
    assert view.descriptors.shape == (30 * 36, 32)


def test_trust_levels_are_quantiles_of_what_is_finite() -> None:
    assert trust_levels(np.array([*np.arange(101.0), np.nan, np.inf]), (0.4, 0.98)) == pytest.approx((40.0, 98.0))
    assert trust_levels(np.array([np.nan]), (0.4, 0.98)) == (np.inf, np.inf)


# ---------------------------------------------------------------------------------------- kills


DRIVER = """
import sys
from dataclasses import replace
from pathlib import Path
from alloop.bench_select import experiment
from alloop.bench_select.pool import read_folder
experiment.ROUND = (sys.executable, sys.argv[1])
profile = replace(experiment.PROFILES["quick"], sizes=(6, 10, 16))
pool = read_folder(Path(sys.argv[2]))
experiment.Experiment(pool, Path(sys.argv[3]), ("random", "full"), (0, 1), profile).run(2, print)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_after_a_blow_nothing_runs_on_and_what_was_done_is_kept(
    blow: signal.Signals, make_experiment: Make, fake_rounds: Begun, pool_folder: Path
) -> None:
    fake = Path(__file__).with_name("fake_round.py")
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(fake), str(pool_folder), str(make_experiment().folder)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "FAKE_ROUND_SLEEP": "16"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: sum("n0016" in line for line in fake_rounds()) == 2)
        driver.send_signal(blow)
        driver.wait(timeout=30)
        begun = fake_rounds()
        hanging = [int(line.split(":")[1]) for line in begun if "n0016" in line]
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in hanging))
    finally:
        driver.kill()
        driver.wait()
    make_experiment().run(2, quiet)
    after = names(fake_rounds()[len(begun) :])
    assert after == Counter(f"{method}.s{seed}.n0016" for method in ("random", "full") for seed in (0, 1))
