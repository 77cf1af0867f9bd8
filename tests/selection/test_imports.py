from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import alloop

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(alloop.__path__, "alloop.")
    if not module.name.endswith(".__main__")  # which runs the program
)
DECIDING = [name for name in MODULES if name.startswith(("alloop.selection", "alloop.decisions", "alloop.policy"))]


def test_importing_every_module_reads_and_writes_nothing(tmp_path: Path) -> None:
    """In an empty folder, where a file looked for at import would be missing, and without a backend of DeePMD."""
    assert {"alloop.selection.diversity", "alloop.report.status", "alloop.tasks.train", "alloop.cli"} <= set(MODULES)
    code = (
        f"import sys, importlib; [importlib.import_module(name) for name in {MODULES}]\n"
        "print([name for name in ('deepmd', 'tensorflow', 'torch', 'jax') if name in sys.modules])"
    )
    package = Path(alloop.__path__[0]).parent
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(package)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == "[]" and not list(tmp_path.iterdir())


def for_typing_only(module: ModuleType) -> dict[str, Any]:
    """What a module imports under ``if TYPE_CHECKING`` only, to be quick to import."""
    names: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            exec(compile(ast.Module(node.body, []), module.__name__, "exec"), names)
    return names


def public(module: ModuleType) -> Iterator[Any]:
    """A module's own public functions and classes, and the public methods of these."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield thing
        if inspect.isclass(thing):
            own = [method for key, method in vars(thing).items() if not key.startswith("_")]
            methods = (getattr(method, "fget", getattr(method, "__func__", method)) for method in own)
            yield from filter(inspect.isfunction, methods)


@pytest.mark.parametrize("name", DECIDING)
def test_annotations_name_what_there_is(name: str) -> None:
    """An annotation is text until someone asks: a name that was moved or never imported fails nowhere else."""
    module = importlib.import_module(name)
    known = for_typing_only(module)
    for thing in public(module):
        assert typing.get_type_hints(thing, localns=known) is not None


def test_a_wrong_annotation_is_found() -> None:
    module = ModuleType("wrong")
    exec("from __future__ import annotations\ndef f(x: Nowhere) -> int: ...", vars(module))
    (wrong,) = public(module)
    with pytest.raises(NameError, match="Nowhere"):
        typing.get_type_hints(wrong)
