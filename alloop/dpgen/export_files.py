"""Files an export takes over: labelled systems, models, lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alloop.potential.checkpoints import PREFIX, backend_named
from alloop.store import read_json


def copy_system(source: Path, target: Path, dropped: Sequence[int] = ()) -> None:
    """Copy a labelled system, bit for bit; of the arrays without the frames `dropped`, counted through all sets."""
    target.mkdir(parents=True, exist_ok=True)
    begin = 0
    for item in sorted(source.iterdir()):
        if item.is_file() and not (dropped and item.suffix == ".raw" and item.stem not in ("type", "type_map")):
            shutil.copyfile(item, target / item.name)
        if not item.is_dir():
            continue
        shutil.copytree(item, target / item.name)
        count = len(np.load(item / "energy.npy"))
        inside = [frame - begin for frame in dropped if begin <= frame < begin + count]
        begin += count
        for file in (target / item.name).glob("*.npy") if inside else ():
            np.save(file, np.delete(np.load(file), inside, axis=0))
        if len(inside) == count:
            shutil.rmtree(target / item.name)


def write_model(result: Path, folder: Path, number: int, backend_name: str) -> None:
    """Write a trained model of alloop's as DP-GEN's ``00.train/NNN`` and link its graph, which drives the dynamics."""
    backend = backend_named(backend_name)
    place = folder / f"{number:03d}"
    place.mkdir(parents=True)
    summary = read_json(result / "summary.json")
    prefix = result / summary["checkpoint"]
    for file in backend.files(prefix):
        ending = next(suffix for suffix in backend.checkpoint_suffixes if file.name.endswith(suffix))
        _copy(file, place / f"{PREFIX}{ending}")
    (place / "checkpoint").write_text(f'model_checkpoint_path: "{PREFIX}"\nall_model_checkpoint_paths: "{PREFIX}"\n')
    _copy(result / f"model{backend.model_suffix}", place / f"frozen_model{backend.model_suffix}")
    graph = f"frozen_model{backend.model_suffix}"
    if (result / f"model-compressed{backend.model_suffix}").exists():
        graph = f"frozen_model_compressed{backend.model_suffix}"
        _copy(result / f"model-compressed{backend.model_suffix}", place / graph)
    for name in ("input.json", "lcurve.out", "train.log"):
        if (result / name).is_file():
            shutil.copyfile(result / name, place / name)
    (folder / f"graph.{number:03d}{backend.model_suffix}").symlink_to(f"{number:03d}/{graph}")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def copy_originals(original: Path, target: Path) -> None:
    """Copy what an import kept of DP-GEN's iterations: jobs and lists. What is there already stays."""
    for file in sorted(original.glob("iter.*/**/*")):
        place = target / file.relative_to(original)
        if file.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def read_original(original: Path, name: str) -> dict[str, Any]:
    """Return a configuration file of DP-GEN's that an import kept."""
    path = original / name
    if path.suffix in (".yaml", ".yml"):
        import yaml  # type: ignore[import-untyped]

        return dict(yaml.safe_load(path.read_text()))
    return dict(json.loads(path.read_text()))


def write_readable(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON for people."""
    path.write_text(json.dumps(value, indent=4) + "\n")
