"""`alloop report` of a real campaign: its figures against the record, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser_kit import browse
from harness import alloop

from alloop.campaign import Campaign
from alloop.report.html.page import CHECKLIST

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("reported") / "campaign"
    shutil.copytree(reference, copy)
    done = alloop(copy, "report", "--json", "--figures", "figures")
    assert done.returncode == 0, done.stdout + done.stderr
    (copy / "found.json").write_text(done.stdout)
    return copy


def test_errors_by_glass_are_those_of_the_evaluation(folder: Path) -> None:
    errors = json.loads((folder / "found.json").read_text())["errors"]
    campaign = Campaign(folder)
    state = campaign.load()
    assess = next(decision for (kind, _), decision in sorted(state.decisions.items()) if kind == "assess")
    summary = campaign.summary(assess["tasks"][-1]["key"])["held_out"]
    (total,) = [row for row in errors["by_glass"] if row["glass"] == "all"]
    assert total["labels"] == summary["labels"] == len(errors["rows"])
    assert total["force_rmse_eV_A"] == pytest.approx(summary["force_rmse_eV_A"], rel=1e-9)
    assert total["force_mae_eV_A"] == pytest.approx(summary["force_mae_eV_A"], rel=1e-9)
    assert sum(len(sample["true"]) for sample in errors["forces"].values()) >= 1000
    assert total["max_force_error_eV_A"] == pytest.approx(summary["max_force_error_eV_A"], rel=1e-9)
    error = np.array([row["energy_error_eV_atom"] for row in errors["rows"]])
    assert total["energy_mae_eV_atom"] >= np.abs(error).mean() * (1 - 1e-9), "single models err no less than their mean"
    for row in errors["by_glass"]:
        if row["energy_max_without_offset_eV_atom"] is not None:
            assert row["energy_max_without_offset_eV_atom"] <= 2 * row["energy_max_eV_atom"] + 1e-12


def test_glasses_are_those_of_the_quench(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())
    for own, shown in zip(found["glasses"], found["status"]["glasses"], strict=True):
        assert own["run"] == shown["run"] and own["frames"] == shown["frames"] > 0
        assert own["fraction_4B"] == pytest.approx(shown["fraction_4B"])
        assert own["three_rings"] == pytest.approx(shown["three_membered_rings_B"])
        assert len(own["g"]["r_A"]) == len(own["g"]["total"]) > 100
        cooling = own["cooling"]
        assert cooling["times_ps"] == sorted(cooling["times_ps"]) and len(cooling["three_rings"]) > own["frames"]
        assert cooling["temperatures_K"][0] > cooling["temperatures_K"][-1]


def test_figures_are_vectors(folder: Path) -> None:
    names = {file.name for file in (folder / "figures").iterdir()}
    assert {
        "learning.pdf",
        "selection.svg",
        "energy_parity.pdf",
        "force_parity.pdf",
        "three_rings.svg",
        "rings_cooling.pdf",
    } <= names
    for file in (folder / "figures").iterdir():
        assert file.read_bytes()[:5] in (b"%PDF-", b"<?xml")


def test_page_needs_nothing_beside_it(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page) and "<script" not in page
    assert "Not converged" in page and "NOT converged" in page
    for name, _, _ in CHECKLIST:
        assert f"<td>{name}</td>" in page


def test_page_in_a_browser(folder: Path, tmp_path: Path) -> None:
    """A real browser lays it out: every figure has been decoded and drawn, and no text runs out of the window."""
    found = browse((folder / "report.html").read_text(), tmp_path)
    assert len(found["figures"]) == found["images"] >= 7 and all(figure["drawn"] for figure in found["figures"])
    assert found["tables"] > 10 and not found["wide"]


def test_report_without_a_campaign(tmp_path: Path) -> None:
    (tmp_path / "param.json").write_text("{}")
    done = alloop(tmp_path, "report")
    assert done.returncode == 2 and "no campaign yet" in done.stderr
