"""Known error texts of VASP in what it prints to its standard output.

The names are those of custodian's public table (``custodian.vasp.handlers.VaspErrorHandler.error_msgs``), which is
searched too where custodian is installed (extra ``vasp``). Importing it costs seconds, so search the output of a run
that failed, not of every run.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib import import_module

_OWN: dict[str, str] = {
    # electronic minimisation and linear algebra
    "edddav": r"EDDDAV: call to Z\w+ failed",  # davidson.F
    "eddrmm": r"EDDRMM: call to Z\w+ failed",  # rmm-diis.F
    "eddiag": r"EDDIAG: call to ZHEEV/ZHEEVX",  # subrot.F
    "zheev": r"EDDIAG: call to routine ZHEEV failed",  # subrot.F
    "zpotrf": r"routine ZPOTRF (failed|ZTRTRI)",  # choleski2.F: orthonormalisation; atoms too close, or a bad step
    "pssyevx": r"subspace rotation PSSYEVX",  # scala.F
    "pdsyevx": r"subspace rotation PDSYEVX",  # scala.F
    "brmix": r"BRMIX: very serious problems",  # broyden.F
    "grad_not_orth": r"EDWAV: internal error, the gradient is not orthogonal",  # rot.F
    "nicht_konv": r"SBESSELITER ?: nicht konvergent",  # radial.F
    "too_few_bands": r"TOO FEW BANDS",  # main.F
    # symmetry and k-points
    "posmap": r"POSMAP internal error",  # symlib.F
    "inv_rot_mat": r"rotation matrix was not found",  # symlib.F, INVGRP
    "rot_matrix": r"non-integer element in rotation matrix",  # symlib.F, SGRCON
    "pricel": r"internal error in subroutine PRICEL",  # lattlib.F
    "pricelv": r"PRICELV: current lattice and primitive lattice are incommensurate",  # lattlib.F
    "point_group": r"group operation missing",  # symlib.F
    "bravais": r"inconsistent Bravais lattice",  # lattlib.F
    "ibzkpt": r"internal error in subroutine IBZKPT|not all point group operations",  # mkpoints.F
    "ksymm": r"fatal error( detecting k-mesh|: unable to match k-point)",  # mkpoints.F
    "tet": r"tetrahedron method fails|routine TETIRR needs special values",  # tet.F, mkpoints.F
    # input, projectors, moves
    "real_optlay": r"REAL_OPT(LAY)?: internal error",  # optreal.F
    "rspher": r"ERROR RSPHER",  # nonlr.F
    "triple_product": r"the triple product of the basis vectors",  # poscar.F
    "read_error": r"error reading item|error code was IERR= ?5",  # rdatab.F
    "zbrent": r"ZBRENT: fatal (internal|error)",  # brent.F
    "brions": r"BRIONS problems: POTIM should be increased",  # brions.F
    # the machine, not VASP
    "no_space": r"no space left on device|disk quota exceeded",
    "out_of_memory": r"out[ -]of[ -]memory|oom[-_]kill|cannot allocate memory|insufficient virtual memory",
    "segmentation_fault": r"segmentation fault|SIGSEGV",
    "time_limit": r"due to time limit|job killed: walltime",
    "job_ended": r"job/step already completing|unable to confirm allocation|due to (node failure|preemption)",  # Slurm
}
_LAST_WORDS = {
    "internal_error": r"VERY BAD NEWS! internal error|internal error in subroutine",
    "refused": r"I REFUSE TO CONTINUE WITH THIS SICK JOB",
}
"""What VASP prints with most fatal errors: named only where no other name was found."""

_HARMLESS = {
    "algo_tet",  # advice
    "amin",  # advice
    "auto_nbands",  # NBANDS rounded up to the number of processes
    "dentet",  # the Fermi level of one electronic step
    "elf_ncl",  # ELF is not written
    "subspacematrix",  # mostly of the first electronic steps, from which healthy runs recover
}
"""Entries of custodian's table that runs print which end well."""


def detected_errors(text: str) -> list[str]:
    """Return the names of the known error texts in VASP's standard output, sorted; empty if there are none.

    Line breaks and the frames VASP 6 draws around its messages do not matter. Names in ``_HARMLESS`` are left out.
    """
    plain = _plain(text)
    found = {name for name, pattern in _OWN.items() if re.search(pattern, plain, re.IGNORECASE)}
    found |= {name for name, messages in _custodian_messages().items() if any(said in plain for said in messages)}
    if not found:
        found = {name for name, pattern in _LAST_WORDS.items() if re.search(pattern, plain, re.IGNORECASE)}
    return sorted(found)


def _plain(text: str) -> str:
    return " ".join(text.replace("|", " ").split())


@cache
def _custodian_messages() -> dict[str, tuple[str, ...]]:
    """Return custodian's table without the harmless entries, empty where custodian cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handler = import_module("custodian.vasp.handlers").VaspErrorHandler
        table = dict(handler.error_msgs)
    except Exception:  # an import that fails for whatever reason leaves the table above
        return {}
    return {name: tuple(map(_plain, messages)) for name, messages in table.items() if name not in _HARMLESS}
