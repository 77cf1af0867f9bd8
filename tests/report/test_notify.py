"""Telling a person through their own command: it may fail, hang or be missing, and the campaign goes on."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from engine_kit import wait_for
from report_kit import begun, parsed

from alloop import notify
from alloop.campaign import Campaign
from alloop.errors import InputError
from alloop.notify import tell, trouble


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return begun(tmp_path / "campaign")


def test_command_learns_what_happened(campaign: Campaign, tmp_path: Path) -> None:
    said: list[str] = []
    command = f'echo "$ALLOOP_EVENT|$ALLOOP_MESSAGE|$ALLOOP_CAMPAIGN|$ALLOOP_FOLDER" > {tmp_path}/told; echo printed'
    tell(command, "converged", 'it\'s done; "all" of it', campaign, say=said.append, wait_s=20)
    assert (tmp_path / "told").read_text() == f'converged|it\'s done; "all" of it|tiny|{campaign.root}\n'
    assert said == [] and trouble(campaign.run_folder) is None
    assert (campaign.run_folder / "notify.log").read_text().endswith("\nprinted\n")


def test_failure_is_said_and_forgotten_after_a_success(campaign: Campaign) -> None:
    said: list[str] = []
    tell("echo no mail here >&2; exit 3", "stopped", "m", campaign, say=said.append, wait_s=20)
    assert len(said) == 1 and "notify.command for stopped failed with code 3" in said[0]
    assert trouble(campaign.run_folder) == said[0]
    assert "no mail here" in (campaign.run_folder / "notify.log").read_text()
    tell("true", "stopped", "m", campaign, say=said.append, wait_s=20)
    assert trouble(campaign.run_folder) is None and len(said) == 1


def test_command_that_hangs_is_ended_with_all_it_started(campaign: Campaign, tmp_path: Path) -> None:
    said: list[str] = []
    command = f"sleep 300 & echo $! > {tmp_path}/pid; wait"
    began = time.monotonic()
    tell(command, "paused", "m", campaign, say=said.append, time_limit_s=1.0)
    assert time.monotonic() - began < 1.0, "the driver does not wait"
    wait_for(lambda: said)
    assert "was ended after 1 s" in said[0]
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


def test_no_command_no_process(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    tell(None, "stopped", "m", campaign)


def test_what_cannot_be_started_hurts_nobody(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(notify.sys, "executable", "/nowhere/python")
    tell("true", "stopped", "m", campaign, say=said.append)
    assert len(said) == 1 and "could not be started" in said[0]


def test_missing_run_folder_hurts_nobody(tmp_path: Path) -> None:
    said: list[str] = []
    tell("true", "stopped", "m", Campaign(tmp_path / "nothing"), say=said.append, wait_s=20)
    assert len(said) == 1 and "ended without a word" in said[0]


def test_command_outlives_the_driver(campaign: Campaign, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from alloop.campaign import Campaign; from alloop.notify import tell; "
        f"tell('sleep 0.5; touch {tmp_path}/told', 'limit', 'm', Campaign(Path({str(campaign.root)!r})))"
    )
    root = str(Path(notify.__file__).parents[1])
    subprocess.run([notify.sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": root}, timeout=30)
    wait_for((tmp_path / "told").exists)


def test_note_that_is_not_readable_is_no_trouble(tmp_path: Path) -> None:
    for text in ("", "[]", "3", '{"event": 1}', "{"):
        (tmp_path / "notify_failed.json").write_text(text)
        assert trouble(tmp_path) is None


@pytest.mark.parametrize("command", ["", "   "])
def test_empty_command_is_refused(command: str) -> None:
    with pytest.raises(InputError, match=r"notify\.command.*empty"):
        parsed(notify={"command": command})
    assert parsed(notify={"command": None}).notify.command is None
