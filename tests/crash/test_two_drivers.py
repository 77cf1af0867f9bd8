"""Two drivers that start at the same moment, and what a process that comes too late must not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from campaign_kit import LIMIT, driven, param
from engine_kit import prepared_label, publish_text

from alloop import store
from alloop.campaign import Campaign
from alloop.errors import CampaignHeldError
from alloop.store import Store, create_once


@pytest.mark.ci
@pytest.mark.slow
def test_of_two_drivers_started_at_once_one_goes_on(in_memory_folder: Path) -> None:
    script = Path(__file__).with_name("two_drivers.py")
    done = subprocess.run(
        [sys.executable, str(script), str(in_memory_folder), "12"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = {race: found for race, found in json.loads(done.stdout).items() if found}
    assert not wrong


def test_driver_that_was_overtaken_while_it_took_the_campaign_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = Campaign.beat

    def overtaken(campaign: Campaign, *, force: bool = False) -> None:
        monkeypatch.setattr(Campaign, "beat", beat)
        driven(tmp_path, take_over=True)
        with pytest.raises(CampaignHeldError):
            beat(campaign, force=force)

    monkeypatch.setattr(Campaign, "beat", overtaken)
    slow = Campaign(tmp_path)
    with pytest.raises(CampaignHeldError, match="same moment"):
        slow.take(param(), take_over=True, limit=LIMIT)


def test_file_aside_that_another_driver_swept_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link
    swept: list[Path] = []

    def sweeping(source: Path, target: Path) -> None:
        if not swept:
            swept.append(source)
            source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", sweeping)
    assert create_once(tmp_path / "decision.json", b"{}")
    assert swept
    assert [file.name for file in tmp_path.iterdir()] == ["decision.json"]


def test_whole_result_that_came_in_place_of_a_bad_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver stopped between its look at a bad result and the move finds a good one in its place."""
    task, folder = prepared_label(tmp_path, 0)
    publish_text(folder, task.key, "bad")
    found = Store(tmp_path)
    (folder / "result" / "label.json").write_text("damaged")
    looked: list[str] = []
    problem_of = store.result_problem

    def stopped_after(result: Path, key: str, **options: Any) -> str | None:
        problem = problem_of(result, key, **options)
        if not looked:
            looked.append(str(problem))
            Store(tmp_path).quarantine(task, "as another driver did")
            publish_text(folder, task.key, "good")
        return problem

    monkeypatch.setattr(store, "result_problem", stopped_after)
    assert not found.check_result(task)
    assert looked != ["None"]
    assert (folder / "result" / "label.json").read_text() == "good"
    assert found.check_result(task)
