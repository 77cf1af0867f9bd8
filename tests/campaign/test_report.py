"""`alloop report` of a real campaign: its figures against the record, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from harness import alloop
from matplotlib.image import imread

from alloop.campaign import Campaign
from alloop.report.html.page import CHECKLIST

pytestmark = pytest.mark.slow
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


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
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no headless browser (Debian: apt install chromium-headless-shell)")
    probe = """<script>addEventListener("load", () => {
        const images = [...document.images], tables = document.querySelectorAll("tbody tr").length;
        const drawn = images.filter(i => i.complete && i.naturalWidth > 300 && i.clientWidth > 300).length;
        const wide = document.documentElement.scrollWidth > innerWidth;
        document.title = JSON.stringify({images: images.length, drawn, tables, wide});
    });</script>"""
    probed = tmp_path / "probed.html"
    probed.write_text((folder / "report.html").read_text().replace("</body>", probe + "</body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'own'}",
    ]
    shown = subprocess.run(
        [browser, *options, "--window-size=900,2000", "--dump-dom", probed.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(re.search(r"<title>(.*?)</title>", shown.stdout, flags=re.DOTALL)[1])
    assert found["images"] == found["drawn"] >= 7, found
    assert found["tables"] > 10 and not found["wide"]
    picture = tmp_path / "page.png"
    asked = [browser, *options, "--window-size=900,2000", f"--screenshot={picture}", (folder / "report.html").as_uri()]
    subprocess.run(asked, capture_output=True, timeout=120, check=True)
    pixels = imread(picture)[..., :3]
    assert 0.005 < (pixels.mean(axis=2) < 0.5).mean() < 0.5  # ink on paper
    assert (np.ptp(pixels, axis=2) > 0.3).any()  # in colour: the figures


def test_report_without_a_campaign(tmp_path: Path) -> None:
    (tmp_path / "param.json").write_text("{}")
    done = alloop(tmp_path, "report")
    assert done.returncode == 2 and "no campaign yet" in done.stderr
