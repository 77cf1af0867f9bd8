"""The index of results: loading with it tells what loading without it does, whatever became of it."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_kit import ask_labels, begun, end_well, fail_once

from alloop import campaign as campaign_module
from alloop.campaign import Campaign
from alloop.report.cost import cost_record
from alloop.store import MANIFEST


@pytest.fixture
def driven(tmp_path: Path) -> Campaign:
    """A campaign with 12 finished labels, some after failures, some flagged, and 4 that wait."""
    campaign = begun(tmp_path)
    for number, key in enumerate(ask_labels(campaign, 16)):
        if number % 5 == 0:
            fail_once(campaign, key, 50.0)
            campaign.failures(key)
        notes = {"code": f"vasp 6.{number % 2}", "flags": ["force_ceiling"] if number == 3 else []}
        if number < 12:
            end_well(campaign, key, notes=notes, seconds=1.0 + number)
    campaign.index.flush()
    return campaign


def told(campaign: Campaign) -> dict[str, Any]:
    return {
        "done": campaign.state.done,
        "waiting": list(campaign.state.waiting),
        "cost": cost_record(campaign.costs, campaign.state.level),
        "codes": campaign.codes,
        "flagged": campaign.flagged,
    }


def loaded(root: Path) -> Campaign:
    campaign = Campaign(root)
    campaign.load()
    return campaign


def test_loading_with_the_index_opens_no_manifest(driven: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    without = Campaign(driven.root)
    without.index.file = without.index.file.with_name("nothing")
    without.load()
    monkeypatch.setattr(campaign_module, "manifest_of", None)
    monkeypatch.setattr(campaign_module, "result_problem", None)
    assert told(loaded(driven.root)) == told(without) == told(driven)
    assert len(driven.state.done) == 14 and driven.codes and driven.flagged


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def torn_and_gone_on(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:5], lines[5][:30], b"\n", *lines[6:]]))


def nonsense(file: Path) -> None:
    file.write_bytes(b'\x00\xff garbage\n[]\n{"a": 1}\n[1, "key", "x", {}, {}, []]\nnull\n' + file.read_bytes())


def of_another_form(file: Path) -> None:
    file.write_text("".join(line.replace("[1,", "[99,", 1) + "\n" for line in file.read_text().splitlines()))


def twice(file: Path) -> None:
    file.write_bytes(file.read_bytes() * 2)


def gone(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [torn, torn_and_gone_on, nonsense, of_another_form, twice, gone, a_folder])
def test_damaged_index_changes_nothing(driven: Campaign, damage: Any) -> None:
    damage(driven.index.file)
    assert told(loaded(driven.root)) == told(driven)
    driven.load()
    assert told(loaded(driven.root)) == told(driven)


def test_driver_mends_a_torn_index(driven: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    torn(driven.index.file)
    driven.load()
    monkeypatch.setattr(campaign_module, "manifest_of", None)
    assert told(loaded(driven.root)) == told(driven)


def test_index_cut_anywhere_changes_nothing(driven: Campaign) -> None:
    whole, expected = driven.index.file.read_bytes(), told(driven)
    for cut in random.Random(1).sample(range(len(whole)), 25):
        driven.index.file.write_bytes(whole[:cut])
        assert told(loaded(driven.root)) == expected


def test_result_that_is_gone_or_another_is_not_taken_from_the_index(driven: Campaign) -> None:
    done = [key for key in driven.state.picks if key in driven.state.done]
    shutil.rmtree(driven.folder(done[0]) / "result")
    manifest = driven.folder(done[1]) / "result" / MANIFEST
    record = json.loads(manifest.read_text())
    record["record"]["seconds"] = 5000.0
    (manifest.parent / "aside").write_text(json.dumps(record))
    (manifest.parent / "aside").rename(manifest)  # as when the work was done again
    found = loaded(driven.root)
    assert done[0] not in found.state.done and done[0] in found.state.waiting
    assert found.costs.by_kind["label"].seconds > 5000


def test_driver_still_finds_a_file_that_lost_its_end(driven: Campaign) -> None:
    """Written over in place, which leaves the time of the folder as it was: the driver looks at every file's size."""
    key = next(key for key in driven.state.picks if key in driven.state.done)
    label = driven.folder(key) / "result" / "label.json"
    with label.open("r+b") as stream:
        stream.truncate(3)
    assert key in loaded(driven.root).state.done, "a reader trusts the index"
    driven.load()
    assert key not in driven.state.done and key in driven.state.waiting
    assert len(list((driven.root / "iterations" / "quarantine").glob("*.reason.json"))) == 1
    assert key not in loaded(driven.root).state.done


def test_copied_campaign_is_loaded_right(driven: Campaign, tmp_path: Path) -> None:
    copy = tmp_path.with_name(f"{tmp_path.name}-copy")
    shutil.copytree(driven.root, copy)
    assert told(loaded(copy)) == told(driven)
    for result in copy.glob("iterations/**/result"):
        os.utime(result, (1, 1))
    assert told(loaded(copy)) == told(driven)


def test_index_is_written_anew_once_most_of_it_is_old(driven: Campaign) -> None:
    size = driven.index.file.stat().st_size
    driven.index.file.write_bytes(driven.index.file.read_bytes() * 200)
    driven.load()
    assert driven.index.file.stat().st_size <= size
    assert told(loaded(driven.root)) == told(driven)


def test_reader_writes_no_index(driven: Campaign) -> None:
    driven.index.file.unlink()
    loaded(driven.root)
    assert not driven.index.file.exists()


def test_disk_that_takes_no_index_costs_nothing_else(driven: Campaign) -> None:
    shutil.rmtree(driven.run_folder)
    (key, *_) = driven.state.waiting
    driven.run_folder.write_text("no folder")
    end_well(driven, key)
    driven.index.flush()
    driven.run_folder.unlink()
    driven.run_folder.mkdir()
    driven.index.flush()
    assert driven.index.file.read_text().count(key) == 1
