from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import alloop.selection


def test_importing_reads_and_writes_nothing(tmp_path: Path) -> None:
    """In an empty folder, where a file looked for at import would be missing, and without a backend of DeePMD."""
    names = [f"alloop.selection.{module.name}" for module in pkgutil.iter_modules(alloop.selection.__path__)]
    assert "alloop.selection.diversity" in names
    code = (
        f"import sys, importlib; [importlib.import_module(name) for name in {names}]\n"
        "print([name for name in ('deepmd', 'tensorflow', 'torch', 'jax') if name in sys.modules])"
    )
    package = Path(alloop.selection.__path__[0]).parents[1]
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(package)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]" and not list(tmp_path.iterdir())
