"""Near approaches in the labeler's own melts, as the benchmark counts them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ase import Atoms

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import labeler_melts


def frame(*lengths_A: float) -> Atoms:
    """One B-O pair of each length, far from each other."""
    positions = [[x, 10.0 * n, 0.0] for n, length in enumerate(lengths_A) for x in (0.0, length)]
    return Atoms(["B", "O"] * len(lengths_A), positions=positions, cell=[20, 10 * len(lengths_A), 20], pbc=True)


def test_every_near_pair_is_told_once_with_its_distance() -> None:
    found = labeler_melts.near_pairs([frame(1.4, 1.2), frame(1.1, 1.149), frame(1.15, 1.4)])
    assert [(row["frame"], row["atoms"], row["pair"], row["A"]) for row in found] == [
        (1, [0, 1], "B-O", 1.1),
        (1, [2, 3], "B-O", 1.149),
    ], "what lies exactly at the limit is not near"


def test_frames_of_one_approach_count_once_and_two_pairs_as_two() -> None:
    near = [{"frame": n, "atoms": [0, 1]} for n in (10, 11, 14, 40)] + [{"frame": 12, "atoms": [2, 3]}]
    assert labeler_melts.approaches(sorted(near, key=lambda row: row["frame"])) == 3
    assert labeler_melts.approaches([]) == 0


def test_the_interval_is_that_of_a_poisson_count_scaled_to_the_share_of_time() -> None:
    alone, lasting, none = (labeler_melts.share(*numbers) for numbers in ((10, 1000, 10), (30, 1000, 10), (0, 1000, 0)))
    # Garwood's bounds of a count of 10 are 4.795 and 18.39, of 0 they are 0 and 3.689
    assert (alone["in_1000"], alone["low"], alone["high"]) == pytest.approx((10, 4.795, 18.39), abs=0.01)
    assert [lasting[key] for key in alone] == pytest.approx([3 * value for value in alone.values()])
    assert (none["in_1000"], none["low"], none["high"]) == pytest.approx((0, 0, 3.689), abs=0.001)


def test_the_record_that_is_kept_holds_what_glass_md_says_of_it() -> None:
    record = labeler_melts.read_json(labeler_melts.RECORD)["glasses"]
    assert set(record) == {"LBS-20-60-20", "LBS-30-30-40"}
    for own in record.values():
        ours, theirs = own["labeler"]["overlap"], own["models"]["overlap"]
        assert own["labeler"]["lost"] is own["models"]["lost"] is None
        assert ours["low"] < theirs["in_1000"] < ours["high"], "no more often than the labeler itself, nor less"
