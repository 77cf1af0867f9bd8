"""Molecular dynamics in ASE with DeePMD models: slower than LAMMPS, but nothing to load beyond TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet

from alloop.potential.conditions import (
    EV_A3_IN_BAR,
    MdCondition,
    MdState,
    TrajectoryLost,
    check_advance,
    kinetic_temperature_K,
    lower_triangular,
    with_velocities,
)
from alloop.potential.ensemble import Ensemble
from alloop.potential.quiet import output_to
from alloop.selection.deviation import force_deviation, virial_deviation

CHAIN_LENGTH = 3  # thermostats in the chain, LAMMPS' default (tchain)


class AseEngine:
    """An ASE trajectory driven by the first model; all models are evaluated every `deviation_every` steps.

    NVE is velocity Verlet, NVT a Nosé-Hoover chain with 3N - 3 degrees of freedom (as LAMMPS'), NPT ASE's
    isotropic Martyna-Tobias-Klein dynamics, which has no temperature ramp: ValueError for NPT with one.
    What DeePMD prints goes to ``md.out`` in `directory`. Raises TrajectoryLost when numbers stop being finite.
    """

    def __init__(
        self,
        models: Sequence[Path],
        atoms: Atoms,
        condition: MdCondition,
        *,
        seed: int,
        directory: Path,
        deviation_every: int,
    ) -> None:
        if not models or deviation_every < 1:
            raise ValueError(f"{len(models)} models, deviation every {deviation_every}: both must be 1 or more")
        self._condition, self._every, self._step = condition, deviation_every, 0
        self._output = Path(directory).resolve() / "md.out"
        with output_to(self._output):
            self._driver, self._ensemble = Ensemble(models[:1]), Ensemble(models)
        self._atoms = with_velocities(atoms, condition.temperature_start_K, seed)
        self._atoms.set_constraint()
        self._atoms.pbc = True
        self._atoms.calc = DriverCalculator(self._driver)
        self._dynamics = _dynamics(self._atoms, condition)

    def advance(self, n_steps: int) -> None:
        """Run `n_steps` on: a multiple of `deviation_every`, within the condition's n_steps."""
        check_advance(self._step, n_steps, self._every, self._condition)
        with np.errstate(all="ignore"), output_to(self._output):
            self._dynamics.run(n_steps)
        self._step += n_steps
        if not (np.isfinite(self._atoms.positions).all() and np.isfinite(self._atoms.get_momenta()).all()):
            raise TrajectoryLost(f"positions or velocities are not finite at step {self._step}")

    def state(self) -> MdState:
        """Return the present moment; TrajectoryLost if a number in it is not finite."""
        energy = float(self._atoms.get_potential_energy())
        stress = self._atoms.get_stress(include_ideal_gas=True)
        pressure_bar = -float(stress[:3].mean()) * EV_A3_IN_BAR
        temperature_K = kinetic_temperature_K(self._atoms)
        if not np.isfinite([energy, pressure_bar, temperature_K]).all():
            raise TrajectoryLost(f"energy or pressure is not finite at step {self._step}")
        with output_to(self._output):
            evaluation = self._ensemble.evaluate(self._atoms)
        _, rotation = lower_triangular(self._atoms.cell.array)
        virials = rotation @ evaluation.virials_eV @ rotation.T
        atoms = Atoms(self._atoms.numbers, positions=self._atoms.positions, cell=self._atoms.cell.array, pbc=True)
        atoms.set_masses(self._atoms.get_masses())
        atoms.set_velocities(self._atoms.get_velocities())
        atoms.wrap()
        return MdState(
            step=self._step,
            atoms=atoms,
            potential_energy_eV=energy,
            temperature_K=temperature_K,
            pressure_bar=pressure_bar,
            force_deviation_eV_A=force_deviation(evaluation.forces_eV_A),
            virial_deviation_eV=float(virial_deviation(virials, len(atoms)).maximum),
        )

    def close(self) -> None:
        """Free the models; the engine cannot be used afterwards."""
        self._atoms.calc = None
        del self._driver, self._ensemble, self._dynamics


class DriverCalculator(Calculator):
    """The driving model as ASE wants it: energy, forces and stress (minus virial over volume, symmetrised)."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, driver: Ensemble) -> None:
        super().__init__()
        self._driver = driver

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill self.results for atoms."""
        super().calculate(atoms, list(properties), list(system_changes))
        evaluation = self._driver.evaluate(self.atoms)
        virial = evaluation.virials_eV[0]
        stress = -0.5 * (virial + virial.T) / self.atoms.get_volume()
        energy = float(evaluation.energies_eV[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": evaluation.forces_eV_A[0],
            "stress": stress.flat[[0, 4, 8, 5, 2, 1]],
        }


class NoseHooverChain(MolecularDynamics):
    """Velocity Verlet between half steps of a Nosé-Hoover chain whose target temperature may change in time.

    G. J. Martyna, M. E. Tuckerman, D. J. Tobias, M. L. Klein, Mol. Phys. 87, 1117 (1996), one Trotter step, thermostat
    masses from the target temperature of the moment.
    """

    def __init__(self, atoms: Atoms, condition: MdCondition) -> None:
        super().__init__(atoms, condition.timestep_fs * units.fs)
        self._condition = condition
        self._relaxation = condition.thermostat_fs * units.fs
        self._rates = np.zeros(CHAIN_LENGTH)  # velocities of the thermostat variables

    def step(self) -> None:
        """Advance by one time step."""
        atoms, masses = self.atoms, self.atoms.get_masses()[:, None]
        target = self._condition.temperature_K(self.nsteps + 1)
        momenta = atoms.get_momenta() * self._chain_factor(atoms.get_kinetic_energy(), target)
        momenta = momenta + 0.5 * self.dt * atoms.get_forces(md=True)
        atoms.set_positions(atoms.positions + self.dt * momenta / masses)
        momenta = momenta + 0.5 * self.dt * atoms.get_forces(md=True)
        kinetic_eV = 0.5 * float((momenta**2 / masses).sum())
        atoms.set_momenta(momenta * self._chain_factor(kinetic_eV, target))

    def _chain_factor(self, kinetic_eV: float, target_K: float) -> float:
        """Propagate the chain by half a step and return the factor it puts on the momenta."""
        freedom, kT = 3 * len(self.atoms) - 3, units.kB * target_K
        masses = np.full(CHAIN_LENGTH, kT * self._relaxation**2)
        masses[0] *= freedom
        half, rates = 0.5 * self.dt, self._rates

        def kick(link: int, kinetic: float) -> None:
            drive = 2 * kinetic - freedom * kT if link == 0 else masses[link - 1] * rates[link - 1] ** 2 - kT
            drag = np.exp(-0.25 * half * rates[link + 1]) if link + 1 < CHAIN_LENGTH else 1.0
            rates[link] = (rates[link] * drag + 0.5 * half * drive / masses[link]) * drag

        for link in reversed(range(CHAIN_LENGTH)):
            kick(link, kinetic_eV)
        factor = float(np.exp(-half * rates[0]))
        for link in range(CHAIN_LENGTH):
            kick(link, kinetic_eV * factor**2)
        return factor


def _dynamics(atoms: Atoms, condition: MdCondition) -> Any:
    timestep = condition.timestep_fs * units.fs
    if condition.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    if condition.ensemble == "nvt":
        return NoseHooverChain(atoms, condition)
    if condition.temperature_start_K != condition.temperature_end_K:
        raise ValueError("the ASE engine has no NPT with a temperature ramp; use the LAMMPS engine, or an NVT ramp")
    return IsotropicMTKNPT(
        atoms,
        timestep,
        temperature_K=condition.temperature_start_K,
        pressure_au=condition.pressure_bar / EV_A3_IN_BAR,
        tdamp=condition.thermostat_fs * units.fs,
        pdamp=condition.barostat_fs * units.fs,
    )
