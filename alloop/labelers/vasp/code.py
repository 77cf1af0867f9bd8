"""VASP as a code that labels: its inputs, its level of theory, and what an expert tries when a run fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from alloop.labelers.code import CodeFault, Correction
from alloop.labelers.vasp.errors import detected_errors
from alloop.labelers.vasp.inputs import (
    FREE_TAGS,
    SINGLE_POINT,
    Incar,
    blocks,
    grouped_by_species,
    incar_value,
    kpoint_mesh,
    potcar_bytes,
    read_potcar,
    write_incar,
    write_kpoints,
    write_poscar,
)
from alloop.labelers.vasp.judge import judge_vasp
from alloop.labelers.verdict import Verdict

_UNCONVERGED: tuple[dict[str, Any], ...] = (
    {"ALGO": "All", "NELM": 200},
    {"ALGO": "Normal", "NELM": 400, "AMIX": 0.1, "BMIX": 0.01},
)
_MINIMISER: tuple[dict[str, Any], ...] = (
    {"ALGO": "Normal"},
    {"ALGO": "All", "ISYM": 0},
    {"ALGO": "Normal", "NCORE": 1},
)
_MIXING: tuple[dict[str, Any], ...] = (
    {"AMIX": 0.1, "BMIX": 0.01, "ISYM": 0},
    {"ALGO": "All", "ISYM": 0},
    {"ALGO": "Normal", "AMIX": 0.05, "BMIX": 0.001, "ISYM": 0, "NCORE": 1},
)
_SYMMETRY: tuple[dict[str, Any], ...] = ({"ISYM": 0},)
_PARALLEL: tuple[dict[str, Any], ...] = ({"NCORE": 1, "KPAR": 1}, {"NCORE": 1, "KPAR": 1, "LSCALAPACK": False})
_AGAIN: tuple[dict[str, Any], ...] = ({"NCORE": 1},)

RECIPES: dict[str, tuple[dict[str, Any], ...]] = {
    "unconverged": _UNCONVERGED,
    "not_finite": _UNCONVERGED[:1],
    "edddav": _MINIMISER,
    "eddrmm": _MINIMISER,
    "zheev": _MINIMISER,
    "zpotrf": ({"ALGO": "All", "NCORE": 1}, {"ALGO": "Normal", "ISYM": 0, "NCORE": 1}),
    "subspacematrix": _MINIMISER,
    "brmix": _MIXING,
    "posmap": _SYMMETRY,
    "rot_matrix": _SYMMETRY,
    "inv_rot_mat": _SYMMETRY,
    "pricel": _SYMMETRY,
    "pricelv": _SYMMETRY,
    "point_group": _SYMMETRY,
    "symprec_noise": _SYMMETRY,
    "rspher": _SYMMETRY,
    "bravais": _SYMMETRY,
    "ksymm": _SYMMETRY,
    "real_optlay": _PARALLEL,
    "pssyevx": _PARALLEL,
    "pzstein": _PARALLEL,
    "pzunmtr": _PARALLEL,
    "dentet": _AGAIN,
    "crash": _AGAIN,
    "hang": _AGAIN,
    "truncated": _AGAIN,
    "empty": _AGAIN,
}
"""What is tried, in order, for each failure class. ALGO, mixing, NELM, symmetry and parallel layout only."""


class Vasp:
    """VASP at one level of theory.

    level: ``incar`` (deciding tags), ``kpoint_spacing_inv_A`` (None: the Gamma point), ``potcars`` (element to TITEL
    and hash); free: INCAR tags that decide nothing; potcars: element to file; relax: tags of a relaxation, if asked.
    """

    name: str = "vasp"
    log: str = "vasp.out"
    kept: tuple[str, ...] = ("OUTCAR", "vasprun.xml", "OSZICAR", "INCAR", "KPOINTS", "POSCAR")
    dropped: tuple[str, ...] = (
        *("WAVECAR", "CHG", "CHGCAR", "POTCAR", "PROCAR", "EIGENVAL", "DOSCAR", "IBZKPT", "PCDAT", "REPORT"),
        *("LOCPOT", "TMPCAR", "WAVEDER", "vaspwave.h5", "vaspout.h5", "ICONST", "PENALTYPOT", "HILLSPOT"),
    )

    def __init__(
        self,
        level: Mapping[str, Any],
        free: Incar,
        potcars: Mapping[str, Path],
        *,
        relax: Incar | None = None,
        force_ceiling_eV_A: float | None = None,
    ) -> None:
        self.level = level
        self.free = free
        self.potcars = potcars
        self.relax = relax or {}
        self.force_ceiling_eV_A = force_ceiling_eV_A

    def incar(self, correction: Correction) -> Incar:
        """Return the INCAR of a run; ValueError for a correction that would change the level of theory."""
        forbidden = sorted(set(correction) - FREE_TAGS)
        if forbidden:
            raise ValueError(f"a correction may not touch {', '.join(forbidden)}")
        changes = {tag: incar_value(value) for tag, value in correction.items()}
        if "NELM" in changes:
            changes["NELM"] = str(max(int(changes["NELM"]), 2 * int(self.free.get("NELM", "60"))))
        free = {tag: value for tag, value in self.free.items() if tag != "NPAR" or "NCORE" not in changes}  # NPAR wins
        return dict(self.level["incar"]) | free | SINGLE_POINT | self.relax | changes

    def write(self, folder: Path, atoms: Atoms, correction: Correction) -> Atoms:
        """Write INCAR, POSCAR, KPOINTS and POTCAR; return the atoms grouped by species, as POSCAR has them.

        CodeFault if a POTCAR is no longer the one this level of theory names.
        """
        written = atoms[grouped_by_species(atoms)]
        written.wrap()
        species = [symbol for symbol, _ in blocks(written.get_chemical_symbols())]
        mesh = kpoint_mesh(written.cell.array, self.level["kpoint_spacing_inv_A"])
        (folder / "INCAR").write_text(write_incar(self.incar(correction)))
        (folder / "POSCAR").write_text(write_poscar(written))
        (folder / "KPOINTS").write_text(write_kpoints(mesh))
        (folder / "POTCAR").write_bytes(b"".join(self._potcar(element) for element in species))
        return written

    def _potcar(self, element: str) -> bytes:
        wanted = self.level["potcars"][element]
        try:
            found = read_potcar(Path(self.potcars[element]))
        except (OSError, ValueError, KeyError) as error:
            raise CodeFault("config", f"POTCAR of {element} cannot be read: {error}", final=False) from error
        if (found.titel, found.sha256, found.element) != (wanted["titel"], wanted["sha256"], element):
            raise CodeFault(
                "config",
                f"{found.path} is {found.titel} ({found.sha256[:12]}) now, this label's level of theory names "
                f"{wanted['titel']} ({wanted['sha256'][:12]}); bring the old file back, or: alloop relabel",
                final=False,
            )
        return potcar_bytes(found.path)

    def command(self, folder: Path) -> str:
        """Return "gamma" for a 1 x 1 x 1 mesh, which vasp_gam computes in half the time, else "default"."""
        return "gamma" if (folder / "KPOINTS").read_text().splitlines()[3].split() == ["1"] * 3 else "default"

    def judge(self, folder: Path, asked: Atoms) -> Verdict:
        """Judge OUTCAR and vasprun.xml; what VASP read must be what was asked, its potentials included."""
        verdict = judge_vasp(folder, asked, force_ceiling_eV_A=self.force_ceiling_eV_A)
        if not verdict.trusted:
            return verdict
        species = [symbol for symbol, _ in blocks(asked.get_chemical_symbols())]
        wanted = tuple(self.level["potcars"][element]["titel"] for element in species)
        if verdict.potentials != wanted:
            message = f"VASP read the potentials {', '.join(verdict.potentials)}; asked for were {', '.join(wanted)}"
            return Verdict(self.name, "wrong_atoms", message, version=verdict.version)
        if self.relax and verdict.ionic_steps >= int(self.relax["NSW"]):
            return replace(verdict, flags=(*verdict.flags, "unrelaxed"))
        return verdict

    def errors(self, folder: Path) -> list[str]:
        """Return the names of VASP's error texts in the log."""
        try:
            return detected_errors((folder / self.log).read_text(errors="replace"))
        except OSError:
            return []

    def next_correction(self, faults: list[str], tried: list[Correction]) -> Correction | None:
        """Return the next untried recipe of the first fault that has any; free tags only."""
        for fault in faults:
            if fault in RECIPES:
                untried = [recipe for recipe in RECIPES[fault] if recipe not in tried]
                return untried[0] if untried else None
        return None
