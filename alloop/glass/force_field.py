"""The Teter pair potential for lithium borosilicates: parameters and an ASE calculator.

Partial charges and the Buckingham terms of O-O, Si-O and Li-O are those of Teter as published by Cormack, Du and
Zeitler, Phys. Chem. Chem. Phys. 4, 3193 (2002), and Du and Cormack, J. Non-Cryst. Solids 349, 66 (2004). The B-O
term, whose prefactor depends on the composition, is that of Deng and Du, J. Am. Ceram. Soc. 102, 2482 (2019), with
its erratum. Cations meet each other through their charges alone.

The treatment of the cutoff, the same in LAMMPS and in the calculator: both the short-range term and the damped
Coulomb term (Fennell and Gezelter, J. Chem. Phys. 124, 234104 (2006); ``coul/dsf`` in LAMMPS) are shifted so that
energy and force go to zero at 8 Å. Nothing jumps there, so energies are conserved and forces are smooth. The self
term of ``coul/dsf``, the same for every arrangement of the same atoms, is left out: an energy is a sum over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfc

from alloop.glass.composition import TABLE_1, Glass, composition_parameters
from alloop.glass.pair_potential import COULOMB_EV_A, Array, PairCalculator

CHARGES_E: dict[str, float] = {"O": -1.2, "Si": 2.4, "B": 1.8, "Li": 0.6}
"""Partial charges (e); every oxide is neutral, so every composition is."""
CUTOFF_A = 8.0
DSF_DAMPING_1_A = 0.25
_BO_RHO_A, _BO_C_EV_A6 = 0.171271, 28.500
_LARGEST_K = 8.0


@dataclass(frozen=True)
class Spline:
    """Repulsive wall B/r^n + D r^2 (eV, Å) that takes the place of a Buckingham term below r0_A."""

    r0_A: float
    n: float
    B_eV_An: float
    D_eV_A2: float


@dataclass(frozen=True)
class Buckingham:
    """Short-range pair term A exp(-r/rho) - C/r^6, with a repulsive wall below r0 where C > 0."""

    A_eV: float
    rho_A: float
    C_eV_A6: float

    @cached_property
    def spline(self) -> Spline | None:
        """The wall that meets V, V' and V'' at r0, the inner root of V''' = 0; None where C = 0.

        With U, F, M = V, -V', V'' at r0 the three conditions have the solution n = r0 (F + M r0)/(2U + F r0),
        B = r0^n (2U + F r0)/(n + 2), D = (n U - F r0)/(r0^2 (n + 2)).
        ValueError where V''' has no root, that is, where A is too small for any wall to fit.
        """
        A, rho, C = self.A_eV, self.rho_A, self.C_eV_A6
        if C == 0:
            return None

        def log_ratio(r: float) -> float:  # of the two parts of V'''; largest at r = 9 rho
            return math.log(A / rho**3) - r / rho - math.log(336 * C) + 9 * math.log(r)

        if log_ratio(9 * rho) <= 0:
            raise ValueError(
                f"Buckingham term A={A} eV, rho={rho} Å, C={C} eV Å^6 has no repulsive core that a wall could meet; "
                "use a larger A"
            )
        r0 = float(brentq(log_ratio, 1e-3 * rho, 9 * rho, xtol=1e-14))
        repulsion, dispersion = A * math.exp(-r0 / rho), C / r0**6
        U, F = repulsion - dispersion, repulsion / rho - 6 * dispersion / r0
        M = repulsion / rho**2 - 42 * dispersion / r0**2
        n = r0 * (F + M * r0) / (2 * U + F * r0)
        return Spline(r0, n, r0**n * (2 * U + F * r0) / (n + 2), (n * U - F * r0) / (r0**2 * (n + 2)))

    def energy_and_slope(self, r_A: Array) -> tuple[Array, Array]:
        """Return V (eV) and dV/dr (eV/Å) at distances r_A > 0, any shape; not shifted at the cutoff."""
        repulsion, dispersion = self.A_eV * np.exp(-r_A / self.rho_A), self.C_eV_A6 / r_A**6
        energy = repulsion - dispersion
        slope = -repulsion / self.rho_A + 6 * dispersion / r_A
        if self.spline is not None:
            inside = r_A < self.spline.r0_A
            r, n, D = r_A[inside], self.spline.n, self.spline.D_eV_A2
            wall = self.spline.B_eV_An / r**n
            energy[inside] = wall + D * r**2
            slope[inside] = -n * wall / r + 2 * D * r
        return energy, slope

    def shifted_energy_and_slope(self, r_A: Array) -> tuple[Array, Array]:
        """Return V and dV/dr shifted so that both are zero at CUTOFF_A (r_A up to CUTOFF_A)."""
        energy, slope = self.energy_and_slope(r_A)
        end_energy, end_slope = self.energy_and_slope(np.array([CUTOFF_A]))
        return energy - end_energy - (r_A - CUTOFF_A) * end_slope, slope - end_slope


def _r_max(K: float) -> float:
    if not 0 <= K <= _LARGEST_K:
        raise ValueError(
            f"K = [SiO2]/[B2O3] = {K:g} is outside 0 to 8, where the B-O fit holds; "
            "pass TeterParameters(a_bo_eV=...) with a prefactor of your own"
        )
    return 0.5 + K / 16


def n4_dell_bray_xiao(R: float, K: float) -> float:
    """Return the fraction of fourfold boron of the Dell-Bray-Xiao model, J. Non-Cryst. Solids 58, 1 (1983).

    R = [alkali oxide]/[B2O3] >= 0, K = [SiO2]/[B2O3] from 0 to 8 (ValueError beyond). Fitted to sodium glasses: it
    is below the lithium glasses' measured values for R >= 1, so it sets A_BO here and nothing else.
    """
    r_max, r_d1, r_d3 = _r_max(K), 0.5 + K / 4, 2 + K
    if R < 0:
        raise ValueError(f"R = [Li2O]/[B2O3] = {R:g} is negative; correct the composition")
    return float(np.interp(R, [0, r_max, r_d1, r_d3], [0, r_max, r_max, 0]))


def a_bo(R: float, K: float, n4: float | None = None) -> float:
    """Return the B-O prefactor A (eV) of Deng and Du (2019, with erratum) at R and K.

    n4: fraction of fourfold boron; by default that of the Dell-Bray-Xiao model. ValueError for K beyond 8 or R < 0.
    """
    r_max = _r_max(K)
    n4 = n4_dell_bray_xiao(R, K) if n4 is None else n4
    A1, A2, T1, T2 = 11900.0, 12525.0, 4350.0, 85.0
    if r_max >= R:
        return A1 + T1 * (r_max - (r_max - n4) ** 2 / r_max) + T2 * K**2
    T3 = (A1 + T2 * K**2 - A2) / r_max + T1
    return A2 + T3 * n4 * r_max / R


@dataclass(frozen=True)
class TeterParameters:
    """The Teter force field at one composition; a_bo_eV is the B-O prefactor (eV), None where boron is absent."""

    a_bo_eV: float | None
    name: ClassVar[str] = "Teter"
    cutoff_A: ClassVar[float] = CUTOFF_A
    table_inner_A: ClassVar[float] = 0.2

    @cached_property
    def pairs(self) -> dict[tuple[str, str], Buckingham]:
        """Short-range terms by (element, "O"); pairs that are not here interact through their charges alone."""
        pairs = {
            ("O", "O"): Buckingham(2029.2204, 0.343645, 192.580),
            ("Si", "O"): Buckingham(13702.9050, 0.193817, 54.681),
            ("Li", "O"): Buckingham(41051.9380, 0.151160, 0.0),
        }
        if self.a_bo_eV is not None:
            pairs["B", "O"] = Buckingham(self.a_bo_eV, _BO_RHO_A, _BO_C_EV_A6)
        return pairs

    def check_elements(self, elements: Collection[str]) -> None:
        """Raise ValueError for an element without parameters."""
        known = {cation for cation, _ in self.pairs}
        unknown = sorted(set(elements) - known)
        if unknown == ["B"]:
            raise ValueError("these Teter parameters have no B-O term; take those of a glass with B2O3")
        if unknown:
            raise ValueError(
                f"no Teter parameters for {', '.join(unknown)}; the force field knows {', '.join(CHARGES_E)}"
            )

    def pair_energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the whole shifted energy (eV) of a pair of elements and its slope (eV/Å), r_A up to CUTOFF_A."""
        product = CHARGES_E[first] * CHARGES_E[second]
        energy, slope = (product * values for values in coulomb_energy_and_slope(r_A))
        if "O" in (first, second):
            short = self.pairs[second if first == "O" else first, "O"]
            short_energy, short_slope = short.shifted_energy_and_slope(r_A)
            energy, slope = energy + short_energy, slope + short_slope
        return energy, slope


def teter_parameters(glass: Glass, n4: float | None = None) -> TeterParameters:
    """Return the parameters of a glass; n4 replaces the model's fraction of fourfold boron in A_BO (see a_bo)."""
    ratios = composition_parameters(glass)
    return TeterParameters(None if ratios is None else a_bo(*ratios, n4))


REHEARSAL_PARAMETERS = teter_parameters(TABLE_1["LBS-20-60-20"])
"""One parameter set for every composition: A_BO of LBS-20-60-20 throughout.

A single potential energy surface over all glasses needs a single A_BO; since the charges do not depend on the
composition every cell stays neutral. It stands in for quantum-mechanical labels; it is no model of real glasses.
"""


def _dsf_shifts() -> tuple[float, float]:
    """Return energy shift (1/Å) and slope (1/Å^2) of erfc(alpha r)/r at the cutoff, in LAMMPS's convention."""
    a, rc = DSF_DAMPING_1_A, CUTOFF_A
    slope = -(math.erfc(a * rc) / rc**2 + 2 * a / math.sqrt(math.pi) * math.exp(-((a * rc) ** 2)) / rc)
    return math.erfc(a * rc) / rc - slope * rc, slope


_DSF_SHIFT, _DSF_SLOPE = _dsf_shifts()


def coulomb_energy_and_slope(r_A: Array) -> tuple[Array, Array]:
    """Return the damped shifted-force Coulomb term between unit charges and its slope (eV, eV/Å), r_A <= CUTOFF_A."""
    a = DSF_DAMPING_1_A
    screened = erfc(a * r_A) / r_A
    energy = screened - _DSF_SHIFT - _DSF_SLOPE * r_A
    slope = -(screened + 2 * a / math.sqrt(math.pi) * np.exp(-((a * r_A) ** 2))) / r_A - _DSF_SLOPE
    return COULOMB_EV_A * energy, COULOMB_EV_A * slope


class TeterCalculator(PairCalculator):
    """ASE calculator of the Teter force field: energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt)."""

    def __init__(self, parameters: TeterParameters = REHEARSAL_PARAMETERS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.teter = parameters

    def potential_of(self, symbols: Collection[str]) -> TeterParameters:
        """Return the one force field there is, whatever the composition."""
        return self.teter
