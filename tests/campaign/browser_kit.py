"""A page in a real headless browser: what it laid out, and a picture of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
PROBE = """<script>addEventListener("load", () => {
    const drawn = i => i.complete && i.naturalWidth > 300 && i.clientWidth > 300;
    const figures = [...document.querySelectorAll("figure")].map(figure => ({
        drawn: [...figure.querySelectorAll("img")].every(drawn),
        tags: [...figure.querySelectorAll(".tag")].map(tag => tag.textContent),
    }));
    const tables = document.querySelectorAll("tbody tr").length;
    const wide = document.documentElement.scrollWidth > innerWidth;
    document.title = JSON.stringify({images: document.images.length, figures, tables, wide});
});</script>"""
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,2000")


def browse(page: str, folder: Path) -> dict[str, Any]:
    """Return what a browser made of a page; the test is skipped where there is none (which fails with --ci).

    images; figures with the counterparts they name and whether they were drawn; rows of tables; whether the page is
    wider than the window. Asserts that there is ink on it, and colour.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no headless browser (Debian: apt install chromium-headless-shell)")
    command = [browser, *OPTIONS, f"--user-data-dir={folder / 'own'}"]
    probed, picture = folder / "probed.html", folder / "page.png"
    probed.write_text(page.replace("</body>", PROBE + "</body>"))
    asked = [*command, "--dump-dom", probed.as_uri()]
    shown = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(.*?)</title>", shown.stdout, flags=re.DOTALL)
    assert found
    subprocess.run([*command, f"--screenshot={picture}", probed.as_uri()], capture_output=True, timeout=120, check=True)
    pixels = imread(picture)[..., :3]
    assert 0.005 < (pixels.mean(axis=2) < 0.5).mean() < 0.5, "ink on paper"
    assert (np.ptp(pixels, axis=2) > 0.3).any(), "in colour: the figures"
    return dict(json.loads(found[1]))
