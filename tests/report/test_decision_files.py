"""Decisions alone and in blocks: every number is taken once, whatever step a driver was killed at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from report_kit import begun

import alloop
from alloop import decision_files
from alloop.campaign import Campaign
from alloop.decision_files import DecisionFiles
from alloop.errors import CampaignHeldError, InputError
from alloop.state import State
from alloop.store import create_json_once

SMALL = 5


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_files, "BLOCK", SMALL)


def decision(number: int) -> dict[str, Any]:
    return {"number": number, "kind": "note", "text": f"number {number}"}


def filled(folder: Path, count: int) -> DecisionFiles:
    folder.mkdir(parents=True)
    files = DecisionFiles(folder)
    for number in range(count):
        assert files.create(number, decision(number))
    return files


def test_size_of_a_block_is_part_of_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert decision_files.BLOCK == 1000
    assert DecisionFiles(Path("d")).block(1234) == Path("d/00001000-00001999.json")


@pytest.mark.parametrize(("count", "blocks", "singles"), [(4, 0, 4), (5, 1, 0), (9, 1, 4), (13, 2, 3)])
def test_whole_blocks_are_merged_and_read_the_same(tmp_path: Path, count: int, blocks: int, singles: int) -> None:
    files = filled(tmp_path / "d", count)
    before = files.read()
    assert files.merge(count) == blocks
    assert len(list(files.folder.glob("*-*.json"))) == blocks and len(list(files.folder.iterdir())) == blocks + singles
    assert files.read() == before == [decision(number) for number in range(count)]
    assert files.merge(count) == 0 and files.read() == before
    assert [files.taken(number) for number in range(count + 2)] == [True] * count + [False] * 2


def test_blocks_are_one_decision_a_line(tmp_path: Path) -> None:
    files = filled(tmp_path / "d", SMALL)
    files.merge(SMALL)
    lines = files.block(0).read_text().splitlines()
    assert len(lines) == SMALL and all("number" in line for line in lines)


def test_number_in_a_block_is_never_taken_again(tmp_path: Path) -> None:
    files = filled(tmp_path / "d", 7)
    files.merge(7)
    late = decision(3) | {"text": "of a late writer"}
    assert not files.create(3, late)
    assert not files.single(3).exists() and files.read()[3] == decision(3)


def test_block_that_appears_while_a_late_writer_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked before the block was there, and its link came after the single file was gone."""
    files = filled(tmp_path / "d", 7)

    def meanwhile(path: Path, value: Any) -> bool:
        monkeypatch.undo()
        decision_files.BLOCK = SMALL
        files.merge(7)
        return create_json_once(path, value)

    monkeypatch.setattr(decision_files, "create_json_once", meanwhile)
    assert not files.create(3, decision(3) | {"text": "of a late writer"})
    assert not files.single(3).exists() and files.read()[3] == decision(3)
    decision_files.BLOCK = 1000


def test_single_file_beside_its_block_counts_for_nothing(tmp_path: Path) -> None:
    """A late writer killed between its link and its second look."""
    files = filled(tmp_path / "d", 6)
    files.merge(6)
    create_json_once(files.single(2), decision(2) | {"text": "of a late writer"})
    assert files.read() == [decision(number) for number in range(6)]
    files.sweep()
    assert not files.single(2).exists() and files.single(5).exists()


KILLED = """
import sys
from pathlib import Path
from alloop import decision_files
decision_files.BLOCK = 5
decision_files.DecisionFiles(Path(sys.argv[1])).merge(13)
"""


@pytest.mark.parametrize("point", ["merge:before", "merge:linked", "merge:removing"])
@pytest.mark.parametrize("again", [0, 1, 2])
def test_killed_between_two_steps_of_merging(tmp_path: Path, point: str, again: int) -> None:
    """Killed at the same place once or more often: nothing is missing, nothing can be taken twice, and it gets done."""
    files = filled(tmp_path / "d", 13)
    expected = [decision(number) for number in range(13)]
    environment = os.environ | {"PYTHONPATH": str(Path(alloop.__file__).parents[1]), "ALLOOP_FAILPOINT": point}
    for time_ in range(again + 1):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(files.folder)], env=environment, timeout=60)
        killed = point != "merge:linked" or time_ < 2  # each time one of the two blocks is made
        assert ended.returncode == (-signal.SIGKILL if killed else 0)
        assert files.read() == expected
        assert all(files.taken(number) for number in range(13)) and not files.taken(13)
        assert not any(files.create(number, {}) for number in range(13))
        assert files.read() == expected
    files.merge(13)
    assert files.read() == expected and len(list(files.folder.iterdir())) == 2 + 3


def test_missing_and_broken_decisions_are_refused(tmp_path: Path) -> None:
    files = filled(tmp_path / "d", 8)
    files.merge(8)
    files.single(6).rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"lacks decision file\(s\) \[6\]"):
        files.read()
    (tmp_path / "kept").rename(files.single(6))
    whole = files.block(0).read_bytes()
    files.block(0).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"00000000-00000004.json cannot be read"):
        files.read()
    files.block(0).write_text(json.dumps([decision(number) for number in range(4)]))
    with pytest.raises(InputError, match=r"\[4\]"):
        files.read()
    files.block(0).unlink()
    with pytest.raises(InputError, match=r"\[0, 1, 2, 3, 4\]"):
        files.read()


def test_reader_beside_a_driver_that_merges(tmp_path: Path) -> None:
    files = filled(tmp_path / "d", 400)
    expected = [decision(number) for number in range(400)]
    merging = threading.Thread(target=files.merge, args=(400,))
    merging.start()
    while merging.is_alive():
        assert files.read() == expected
    merging.join()
    assert files.read() == expected


def test_driver_merges_as_it_starts(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    key = next(iter(campaign.state.tasks))
    for number in range(20):
        campaign.decide("exclude", keys=[key], reason=str(number), time="", undo=False)
    state, count = campaign.state, campaign.state.next_number
    campaign.release()
    second = begun_again(tmp_path)
    assert [file.name for file in sorted(second.decisions_folder.glob("*-*"))] == [
        f"{first:08d}-{first + 4:08d}.json" for first in range(0, count - count % 5, 5)
    ]
    assert second.exists() and second.state.next_number == count + 1
    assert second.state.excluded == state.excluded and second.state.tasks == state.tasks
    folded = State()
    for entry in second.files.read():
        folded.apply(entry)
    assert folded.next_number == count + 1
    with pytest.raises(CampaignHeldError):
        campaign.check_held()
    with pytest.raises(CampaignHeldError):
        campaign.decide("exclude", keys=[key], reason="late", time="", undo=False)


def test_driver_stopped_long_ago_is_kept_out_by_a_block(tmp_path: Path) -> None:
    """Its next number is in a block by now: both its look and its link find it taken."""
    old = begun(tmp_path)
    old.release()
    key = next(iter(old.state.tasks))
    newer = begun_again(tmp_path)
    for _ in range(10):
        newer.decide("exclude", keys=[key], reason="", time="", undo=False)
    newer.files.merge(newer.state.next_number)
    assert not newer.files.single(old.state.next_number).exists()
    with pytest.raises(CampaignHeldError):
        old.check_held()
    with pytest.raises(CampaignHeldError):
        old.decide("exclude", keys=[key], reason="late", time="", undo=False)
    assert Campaign(tmp_path).load().next_number == newer.state.next_number


def begun_again(root: Path) -> Campaign:
    from campaign_kit import LIMIT, param

    campaign = Campaign(root)
    campaign.take(param(), take_over=True, limit=LIMIT)
    return campaign
