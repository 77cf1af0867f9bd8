"""import-dpgen and export-dpgen as a person meets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alloop import cli

Make = Callable[..., Path]


@pytest.fixture
def alloop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process; return its code and all it printed."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["alloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out + told.err

    return call


def test_there_and_back(alloop: Callable[..., tuple[int, str]], dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    code, text = alloop("import-dpgen", source, "-C", tmp_path / "new", "--labeler", "teter-rehearsal")
    assert code == 0
    assert "2 iterations, 14 labelled frames in 6 systems, 2 models" in text
    assert "iteration 0, system 001: 2 candidate, 3 accurate, 1 failed, 1 labelled" in text
    assert "not translated:\n" in text and "- fp_task_min: alloop drops no label" in text
    assert f"next: alloop check -C {tmp_path / 'new'}" in text
    assert alloop("check", "-C", tmp_path / "new")[0] == 0
    code, text = alloop("export-dpgen", tmp_path / "back", "-C", tmp_path / "new")
    assert code == 0
    assert "2 iterations, 14 labelled frames (14 imported); dpgen run goes on in iteration 2, stage 3" in text
    assert (tmp_path / "back" / "record.dpgen").read_bytes() == (source / "record.dpgen").read_bytes()


def test_json(alloop: Callable[..., tuple[int, str]], dpgen_folder: Make, tmp_path: Path) -> None:
    code, text = alloop("import-dpgen", dpgen_folder(), "-C", tmp_path / "new", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["campaign"] == str(tmp_path / "new")
    assert found["iterations"] == 2 and found["to_fill_in"]
    param = tmp_path / "new" / "param.json"
    param.write_text(param.read_text().replace("fill_in.your_module:Calculator", "teter-rehearsal"))
    code, text = alloop("export-dpgen", tmp_path / "back", "-C", tmp_path / "new", "--json")
    assert code == 0
    assert json.loads(text)["next_stage"] == 3


def test_problems_are_messages(alloop: Callable[..., tuple[int, str]], dpgen_folder: Make, tmp_path: Path) -> None:
    code, text = alloop("import-dpgen", tmp_path, "-C", tmp_path / "new")
    assert code == 2 and "holds no record.dpgen" in text and "Traceback" not in text
    source = dpgen_folder()
    code, text = alloop("import-dpgen", source, "-C", source)
    assert code == 2 and "is not an empty folder" in text
    code, text = alloop("export-dpgen", tmp_path / "back", "-C", tmp_path / "nowhere")
    assert code == 2 and "no param.json" in text


@pytest.mark.parametrize("command", ["import-dpgen", "export-dpgen"])
def test_help_teaches(alloop: Callable[..., tuple[int, str]], command: str) -> None:
    code, text = alloop(command, "--help")
    assert code == 0 and "Example:" in text and "dpgen run" in text
