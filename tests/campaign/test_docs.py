"""The commands of the README and the analysis page run, and the architecture page names every room there is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write
from harness import environment

from alloop.campaign import Campaign
from alloop.glass.crystals import crystal

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def _commands(page: str = "README.md") -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("alloop ")]
    return [shlex.split(line, comments=True) for line in lines]


def test_readme_commands_run(tmp_path: Path, reference: Path) -> None:
    commands = _commands()
    assert {command[1] for command in commands} >= {
        "init",
        "check",
        "plan",
        "run",
        "status",
        "stats",
        "stop",
        "analyze",
    }
    write(tmp_path / "glass.extxyz", crystal("B2O3-I"))
    picks = Campaign(reference).load().picks.values()
    frame = next(pick["name"] for pick in picks if pick["iteration"] >= 0)
    for command in commands:
        command = [frame if part == "FRAME" else part for part in command]
        if command[1] == "status":  # from here on the folder is one that has run
            shutil.rmtree(tmp_path / "my-glass")
            shutil.copytree(reference, tmp_path / "my-glass")
        if command[1] == "run":
            continue
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert (tmp_path / "stats.png").exists()


def test_analysis_page_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    glass = crystal("B2O3-I") * (2, 2, 1)
    write(tmp_path / "glass.extxyz", glass)
    write(tmp_path / "cooling.extxyz", [glass] * 4)
    lithium = crystal("Li2SiO3") * (2, 2, 2)
    frames = []
    for _ in range(60):
        lithium.positions += rng.normal(0, 0.2, (len(lithium), 3))
        frames.append(lithium.copy())
    write(tmp_path / "hold.extxyz", frames)
    own: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "env": environment(), "check": False}
    for command in _commands("docs/analysis.md"):
        done = subprocess.run([sys.executable, "-m", *command], **own)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    for name in ("rdf.pdf", "sq.csv", "angles.csv", "rings.json", "msd.pdf"):
        assert (tmp_path / name).stat().st_size > 100
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "analysis.md").read_text(), flags=re.DOTALL)
    shown = subprocess.run([sys.executable, "-c", script], **own)
    assert shown.stdout.splitlines()[0] == "0.0"


def test_setup_commands_install_what_they_say() -> None:
    text = (ROOT / "README.md").read_text()
    assert ".venv/bin/pip install -e '.[quickstart]' && .venv/bin/alloop run" in text
    tests = ".venv/bin/pip install -e '.[quickstart,dev]' && .venv/bin/python -m pytest"
    assert tests in text
    assert "-m pytest --ci" in (ROOT / ".ci" / "run").read_text()


def test_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.split("## Rooms")[1].split("\n## ")[0]
    rooms = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    named = {name.strip("`").rstrip("/") for room in rooms for name in room.split(", ")}
    package = ROOT / "alloop"
    present = {path.name for path in package.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    present |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    small = {"errors.py", "failpoint.py", "frames.py", "resources.py", "seeds.py", "structure.py", "param_file.py"}
    assert present - named <= small, f"not on the page: {sorted(present - named - small)}"
    assert named <= present, f"on the page but not there: {sorted(named - present)}"
