"""OUTCAR as VASP 5.4.4 and 6.3 write it: head, ionic steps and end, for a run without spin and symmetry.

The layout follows outputs of both versions: formats of numbers are VASP's Fortran formats, named where they matter.
Sums and parts that need electrons (Hartree energy, bands, eigenvalues) are made up, but add up.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from double_job import BUILDS, RANKS, Job, fixed, fortran_e, row
from double_theory import KILOBAR_EV_A3, IonicStep

RULE = "-" * 104
_ATOM_EV, _EWALD_EV, _CORE_EV = 300.0, -250.0, 12.0


def head(job: Job) -> str:
    """Return everything before the first ionic step."""
    parts = [_program(job), *_pseudopotentials(job), *_structure(job), *_parameters(job), *_start(job)]
    return "\n".join(parts) + "\n"


def _program(job: Job) -> str:
    lines = [f" vasp.{job.program}{_build(job)}", "  ", " executed on             LinuxIFC date 2024.01.01  12:00:00"]
    if job.major == 5:
        lines += [f" running on{RANKS:5d} total cores", f" distrk:  each k-point on{RANKS:5d} cores,    1 groups"]
        lines += [f" distr:  one band on NCORES_PER_BAND={1:4d} cores,{RANKS:5d} groups"]
    else:
        lines += [f" running{RANKS:5d} mpi-ranks, with    1 threads/rank"]
        lines += [f" distrk:  each k-point on{RANKS:5d} cores,    1 groups"]
        lines += [f" distr:  one band on NCORE={1:4d} cores,{RANKS:5d} groups"]
    lines += ["", "", RULE, "", "", " INCAR:"]
    if job.major >= 6:
        lines += [f"   {tag} = {value}" for tag, value in job.incar.tags.items()] + [""]
    return "\n".join(lines)


def _build(job: Job) -> str:
    return BUILDS[5 if job.major == 5 else 6]


def _pseudopotentials(job: Job) -> Iterator[str]:
    width = 76 if job.major == 5 else 96
    for dataset in job.potcar:
        yield f" POTCAR:    {dataset.title:<38}"
    for dataset in job.potcar:
        yield f" POTCAR:    {dataset.title:<38}"
        header = [
            f"VRHFIN ={dataset.element}: {dataset.description}",
            f"LEXCH  = {dataset.lexch}",
            "EATOM  =   100.0000 eV,    7.3499 Ry",
            "",
            f"TITEL  = {dataset.title}",
            "LULTRA =        F    use ultrasoft PP ?",
            "IUNSCR =        1    unscreen: 0-lin 1-nonlin 2-no",
            "RPACOR =    1.200    partial core radius",
            f"POMASS ={dataset.mass:9.3f}; ZVAL   ={dataset.zval:9.3f}    mass and valenz",
            "RCORE  =    1.500    outmost cutoff radius",
            "RWIGS  =    1.630; RWIGS  =    0.863    wigner-seitz radius (au A)",
            f"ENMAX  ={dataset.enmax_eV:9.3f}; ENMIN  ={dataset.enmin_eV:9.3f} eV",
            "LCOR   =        T    correct aug charges",
            "LPAW   =        T    paw PP",
            "EAUG   =  600.000",
        ]
        for line in header:
            yield f"   {line:<{width}}"
        yield "  local pseudopotential read in\n  partial core-charges read in\n  atomic valenz-charges read in"
        for angular in (0, 0, 1, 1):
            yield f"  non local Contribution for L={angular:12d}  read in\n    real space projection operators read in"
        yield "    PAW grid and wavefunctions read in\n "
        yield "   number of l-projection  operators is LMAX  =           4"
        yield "   number of lm-projection operators is LMMAX =           8\n "
    for number, dataset in enumerate(job.potcar, start=1):
        yield f"  {dataset.title:<38}:\n energy of atom{number:3d}       EATOM= -100.0000"
        yield " kinetic energy error for atom=    0.0100 (will be added to EATOM!!)"


def _structure(job: Job) -> Iterator[str]:
    yield f" \n \n POSCAR: {job.poscar.comment:<40.40}\n  positions in direct lattice\n  No initial velocities read in"
    yield " exchange correlation table for  LEXCH =        8\n   RHO(1)=    0.500       N(1)  =     2000"
    yield f"   RHO(2)=  100.500       N(2)  =     4000\n \n\n\n{RULE}\n\n"
    yield " ion  position               nearest neighbor table"
    for number, place in enumerate(job.poscar.scaled % 1, start=1):
        yield f"{number:4d}{row(place, 7, 3)}-"
    yield " \n\nIMPORTANT INFORMATION: All symmetrisations will be switched off!"
    yield "NOSYMM: (Re-)initialisation of all symmetry stuff for point group C_1.\n\n\n\n"
    if job.mesh.divisions is not None:
        numbers = "".join(f"{n:5d}" for n in job.mesh.divisions)
        yield f"Automatic generation of k-mesh.\n generate k-points for:{numbers}"
    yield " \n Subroutine IBZKPT returns following result:\n ==========================================="
    yield f" \n Found{len(job.mesh.points):7d} irreducible k-points:\n \n Following reciprocal coordinates:"
    yield "            Coordinates               Weight"
    for point in job.mesh.points:
        yield f"{row(point, 10, 6)}      1.000000"
    yield " "


def _parameters(job: Job) -> Iterator[str]:
    incar, (nx, ny, nz) = job.incar, job.grid
    counts = "".join(f"{count:4d}" for count in job.poscar.counts)
    yield f"\n{RULE}\n\n\n\n\n Dimension of arrays:"
    kpoints = len(job.mesh.points)
    yield (
        f"   k-points           NKPTS ={kpoints:7d}   k-points in BZ     NKDIM ={kpoints:7d}"
        f"   number of bands    NBANDS={job.nbands:7d}"
    )
    yield f"   number of dos      NEDOS =    301   number of ions     NIONS ={job.ions:7d}"
    yield "   non local maximal  LDIM  =      4   non local SUM 2l+1 LMDIM =      8"
    yield f"   total plane-waves  NPLWV ={nx * ny * nz:7d}"
    yield "   max r-space proj   IRMAX =      1   max aug-charges    IRDMAX=   3731"
    yield f"   dimension x,y,z NGX ={nx:6d} NGY ={ny:5d} NGZ ={nz:5d}"
    yield f"   dimension x,y,z NGXF={2 * nx:6d} NGYF={2 * ny:5d} NGZF={2 * nz:5d}"
    yield f"   support grid    NGXF={2 * nx:6d} NGYF={2 * ny:5d} NGZF={2 * nz:5d}"
    yield f"   ions per type =            {counts}"
    yield "   NGX,Y,Z   is equivalent  to a cutoff of  10.92, 11.68, 10.78 a.u."
    yield "   NGXF,Y,Z  is equivalent  to a cutoff of  21.84, 23.36, 21.55 a.u.\n"
    yield f" SYSTEM =  {job.system:<40.40}\n POSCAR =  {job.poscar.comment:<40.40}\n"
    yield " Startparameter for this run:"
    yield f"   NWRITE ={incar.integer('NWRITE', 2):7d}    write-flag & timer"
    prec = incar.text("PREC", "normal").lower()
    yield f"   PREC   = {prec:<6.6}    normal or accurate (medium, high low for compatibility)"
    yield f"   ISTART ={incar.integer('ISTART', 0):7d}    job   : 0-new  1-cont  2-samecut"
    yield f"   ICHARG ={incar.integer('ICHARG', 2):7d}    charge: 1-file 2-atom 10-const"
    yield "   ISPIN  =      1    spin polarized calculation?"
    yield "   LNONCOLLINEAR =      F non collinear calculations"
    yield "   LSORBIT =      F    spin-orbit coupling\n   INIWAV =      1    electr: 0-lowe 1-rand  2-diag"
    yield "   LASPH  =      F    aspherical Exc in radial PAW"
    if job.major == 5:
        yield "   METAGGA=      F    non-selfconsistent MetaGGA calc.\n"
    yield from _electronic(job)
    yield from _ionic(job)


def _electronic(job: Job) -> Iterator[str]:
    incar, encut = job.incar, job.encut_eV
    yield " Electronic Relaxation 1"
    yield (
        f"   ENCUT  ={encut:7.1f} eV{encut / 13.605698:7.2f} Ry{np.sqrt(encut / 13.605698):8.2f} a.u."
        "  15.89 16.25 16.10*2*pi/ulx,y,z"
    )
    yield f"   ENINI  ={encut:7.1f}     initial cutoff\n   ENAUG  =  600.0 eV  augmentation charge cutoff"
    yield (
        f"   NELM   ={job.nelm:7d};   NELMIN={incar.integer('NELMIN', 2):3d}; NELMDL={incar.integer('NELMDL', -5):3d}"
        "     # of ELM steps "
    )
    yield f"   EDIFF  ={fortran_e(job.ediff_eV, 1, 8)}   stopping-criterion for ELM"
    real_space = "F" if incar.text("LREAL", "F").strip(".")[:1].upper() == "F" else "T"
    yield f"   LREAL  =      {real_space}    real-space projection"
    yield "   NLSPLINE    = F    spline interpolate recip. space projectors"
    yield "   LCOMPAT=      F    compatible to vasp.4.4\n   GGA_COMPAT  = T    GGA compatible to vasp.4.4-vasp.4.6"
    yield "   LMAXPAW     = -100 max onsite density\n   LMAXMIX     =    2 max onsite mixed and CHGCAR"
    yield "   VOSKOWN=      0    Vosko Wilk Nusair interpolation"
    yield f"   ROPT   ={''.join('   0.00000' for _ in job.datasets)}"


def _ionic(job: Job) -> Iterator[str]:
    incar = job.incar
    yield " Ionic relaxation"
    yield f"   EDIFFG ={fortran_e(job.ediffg, 1, 8)}   stopping-criterion for IOM"
    yield f"   NSW    ={job.nsw:7d}    number of steps for IOM"
    yield f"   NBLOCK =      1;   KBLOCK ={max(job.nsw, 1):7d}    inner block; outer block "
    yield f"   IBRION ={job.ibrion:7d}    ionic relax: 0-MD 1-quasi-New 2-CG"
    yield "   NFREE  =      0    steps in history (QN), initial steepest desc. (CG)"
    yield f"   ISIF   ={job.isif:7d}    stress and relaxation"
    yield "   IWAVPR =     10    prediction:  0-non 1-charg 2-wave 3-comb"
    yield f"   ISYM   ={incar.integer('ISYM', 2):7d}    0-nonsym 1-usesym 2-fastsym"
    yield "   LCORR  =      T    Harris-Foulkes like correction to forces\n"
    yield f"   POTIM  ={incar.real('POTIM', 0.5):7.4f}    time-step for ionic-motion"
    yield "   TEIN   =    0.0    initial temperature\n   TEBEG  =    0.0;   TEEND  =   0.0 temperature during run"
    yield "   SMASS  =  -3.00    Nose mass-parameter (am)\n   SCALEE = 1.0000    scale energy and forces"
    yield "   NPACO  =    256;   APACO  = 16.0  distance and # of slots for P.C.\n   PSTRESS=    0.0 pullay stress\n"
    yield f"  Mass of Ions in am\n   POMASS ={''.join(f'{d.mass:6.2f}' for d in job.datasets)}"
    yield f"  Ionic Valenz\n   ZVAL   ={''.join(f'{d.zval:6.2f}' for d in job.datasets)}"
    yield f"  Atomic Wigner-Seitz radii\n   RWIGS  ={''.join(' -1.00' for _ in job.datasets)}"
    yield f"  virtual crystal weights \n   VCA    ={''.join('  1.00' for _ in job.datasets)}"
    yield f"   NELECT ={job.nelect:13.4f}    total number of electrons"
    yield "   NUPDOWN=      -1.0000    fix difference up-down\n"
    yield " DOS related values:\n   EMIN   =  10.00;   EMAX   =-10.00  energy-range for DOS"
    yield "   EFERMI =   0.00" + (";   METHOD = LEGACY      " if job.major >= 6 else "")
    yield (
        f"   ISMEAR ={incar.integer('ISMEAR', 1):6d};   SIGMA  ={incar.real('SIGMA', 0.2):7.2f}"
        "  broadening in eV -4-tet -1-fermi 0-gaus\n"
    )
    yield f" Electronic relaxation 2 (details)\n   IALGO  ={job.ialgo:7d}    algorithm"
    yield "   LDIAG  =      T    sub-space diagonalisation (order eigenvalues)"
    yield "   LSUBROT=      F    optimize rotation matrix (better conditioning)"
    yield f"   IMIX   ={incar.integer('IMIX', 4):7d}    mixing-type and parameters"
    yield f"     AMIX     ={incar.real('AMIX', 0.4):7.2f};   BMIX     ={incar.real('BMIX', 1.0):6.2f}"
    yield f"     AMIN     ={incar.real('AMIN', 0.1):7.2f}\n"
    yield " Intra band minimization:\n   WEIMIN = 0.0010     energy-eigenvalue tresh-hold"
    yield "   EBREAK =  0.31E-07  absolut break condition\n   DEPER  =   0.30     relativ break condition  \n"
    yield f"   TIME   ={incar.real('TIME', 0.4):7.2f}     timestep for ELM\n\n Write flags"
    for tag, meaning in (("LWAVE", "write WAVECAR"), ("LCHARG", "write CHGCAR")):
        yield f"   {tag:<12} =      {'T' if incar.logical(tag, True) else 'F'}    {meaning}"
    yield "   LVTOT        =      F    write LOCPOT, total local potential"
    yield "   LORBIT       =      0    0 simple, 1 ext, 2 COOP (PROOUT), +10 PAW based schemes\n\n"
    yield " Exchange correlation treatment:"
    yield f"   GGA     =    {incar.text('GGA', '--'):>2}    GGA type"
    yield "   LEXCH   =     8    internal setting for exchange type"
    yield "   VOSKOWN =     0    Vosko Wilk Nusair interpolation\n   LHFCALC =     F    Hartree Fock is set to\n\n"


def _start(job: Job) -> Iterator[str]:
    relax = {1: "quasi-Newton", 2: "conjugate gradient", 3: "damped molecular dynamics"}.get(job.ibrion)
    yield f"{RULE}\n\n\n {'static calculation' if relax is None else f'{relax} relaxation of ions'}"
    yield " charge density and potential will be updated during run\n non-spin polarized calculation"
    yield f" using additional bands{job.nbands - round(job.nelect / 2):13d}\n use gradient corrections \n\n\n{RULE}\n\n"
    yield f"  energy-cutoff  :{job.encut_eV:12.2f}\n{lattice(job.poscar.cell_A)}\n"
    for kind in ("units of 2pi/SCALE and weight", "reciprocal lattice and weights"):
        points = job.mesh.points @ np.linalg.inv(job.poscar.cell_A).T if kind.startswith("units") else job.mesh.points
        yield f" k-points in {kind}: {job.mesh.comment:<40.40}"
        for point, weight in zip(points, job.mesh.weights, strict=True):
            yield f" {row(point, 12, 8)}{weight:12.3f}"
        yield " "
    yield " position of ions in fractional coordinates (direct lattice) "
    for place in job.poscar.scaled:
        yield f" {row(place, 12, 8)}"
    yield " \n position of ions in cartesian coordinates  (Angst):"
    for place in job.poscar.scaled @ job.poscar.cell_A:
        yield f" {row(place, 12, 8)}"
    yield f" \n\n\n{RULE}\n\n"
    for number, point in enumerate(job.mesh.points, start=1):
        yield f" k-point {number:3d} :  {row(point, 7, 4)}  plane waves:   17402"
    yield "\n maximum and minimum number of plane-waves per node :      4363     4328\n"
    yield " maximum number of plane-waves:     17402"
    yield f"\n\n{_memory()}"
    yield f" First call to EWALD:  gamma=   0.180\n\n{timing(job, 'FEWALD', 0.0037)}\n\n"


def _memory() -> str:
    return (
        " total amount of memory used by VASP MPI-rank0    51154. kBytes\n" + "=" * 71 + "\n\n"
        "   base      :      30000. kBytes\n   nonl-proj :       2583. kBytes\n   wavefun   :        560. kBytes\n"
    )


def timing(job: Job, what: str, seconds: float) -> str:
    """Return a line of times: they have 10 columns in VASP 5 and 12 in VASP 6."""
    width = 10 if job.major == 5 else 12
    return f"{what:>10}:  cpu time{seconds:{width}.4f}: real time{seconds:{width}.4f}"


def lattice(cell_A: np.ndarray) -> str:
    """Return volume, direct and reciprocal lattice vectors (format 3X,3F13.9,3X,3F13.9)."""
    reciprocal = np.linalg.inv(cell_A).T
    lines = [f"  volume of cell :{abs(np.linalg.det(cell_A)):12.2f}"]
    lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
    lines += [f"   {row(a, 13, 9)}   {row(b, 13, 9)}" for a, b in zip(cell_A, reciprocal, strict=True)]
    lengths = [np.linalg.norm(vectors, axis=1) for vectors in (cell_A, reciprocal)]
    return "\n".join([*lines, "\n  length of vectors", f"   {row(lengths[0], 13, 9)}   {row(lengths[1], 13, 9)}\n"])


def electronic(job: Job, step: IonicStep, ionic: int, number: int) -> str:
    """Return the block of one electronic step (both numbers from 1)."""
    energy = step.trace_eV[number - 1]
    change = energy - (step.trace_eV[number - 2] if number > 1 else 0.0)
    core, ewald, atom = _CORE_EV * job.ions, _EWALD_EV * job.ions, _ATOM_EV * job.ions
    parts = {"DENC": -4.0 * job.ions, "XCENC": -2.5 * job.ions}
    bands = energy - core - ewald - atom - sum(parts.values())
    timers = {"DAV": "EDDAV", "RMM": "RMM-DIIS"}.get(job.scheme(number), "EDWAV")
    rule = "  ---------------------------------------------------"
    lines = [
        f"{'-' * 39} Iteration {ionic:6d}({number:4d})  {'-' * 39}\n\n",
        timing(job, "POTLOK", 0.1774),
        timing(job, timers, 0.2938),
        f"    {'-' * 44}",
        f"{timing(job, 'LOOP', 0.4755)}\n",
        f" eigenvalue-minimisations  :{2 * job.nbands:6d}",
        f" total energy-change (2. order) :{fortran_e(change, 7, 14)}  ({fortran_e(1.01 * change, 7, 14)})",
        f" number of electron {job.nelect:15.7f} magnetization ",
        f" augmentation part  {job.nelect:15.7f} magnetization \n",
        " Free energy of the ion-electron system (eV)",
        rule,
        f"  alpha Z        PSCENC ={core:19.8f}",
        f"  Ewald energy   TEWEN  ={ewald:19.8f}",
        f"  -Hartree energ DENC   ={parts['DENC']:19.8f}",
        f"  -exchange      EXHF   ={0:19.8f}",
        f"  -V(xc)+E(xc)   XCENC  ={parts['XCENC']:19.8f}",
        f"  PAW double counting   ={0:19.8f} {0:18.8f}",
        f"  entropy T*S    EENTRO ={0:19.8f}",
        f"  eigenvalues    EBANDS ={bands:19.8f}",
        f"  atomic energy  EATOM  ={atom:19.8f}",
        f"  Solvation  Ediel_sol  ={0:19.8f}",
        rule,
        f"  free energy    TOTEN  ={energy:19.8f} eV\n",
        f"  energy without entropy ={energy:18.8f}  energy(sigma->0) ={energy:18.8f}\n\n\n{RULE}\n\n\n\n",
    ]
    return "\n".join(lines) + "\n"


def _bands(job: Job) -> Iterator[str]:
    energies, occupied = job.bands_eV
    table = "\n".join(f"{n:7d}{e:13.4f}{2 * o:13.5f}" for n, (e, o) in enumerate(zip(energies, occupied), start=1))  # noqa: B905
    yield " E-fermi :   2.0000     XC(G=0): -10.4124     alpha+bet : -9.2977\n"
    if job.major >= 6:
        yield " Fermi energy:         2.0000000000\n"
    for number, point in enumerate(job.mesh.points, start=1):
        yield f" k-point{number:6d} :    {row(point, 10, 4)}\n  band No.  band energies     occupation \n{table}\n"
    yield f"\n{RULE}\n\n"


def ionic(job: Job, number: int) -> str:
    """Return the blocks of ionic step `number` (from 1): electronic steps, stress, forces and energy."""
    step = job.steps[number - 1]
    parts = [electronic(job, step, number, n + 1) for n in range(len(step.trace_eV))]
    ending = "because EDIFF is reached ----------------------------------------"
    if not step.converged and job.major >= 6:  # VASP 5 says that EDIFF is reached at NELM too
        ending = "EDIFF was not reached (unconverged)  ----------------------------"
    lines = [*_bands(job), f"------------------------ aborting loop {ending}\n\n"]
    lines += [
        timing(job, what, 0.01) for what in ("CHARGE", "FORLOC", "FORNL ", "STRESS", "FORCOR", "FORHAR", "MIXING")
    ]
    lines += ["", *_stress(step), "\n VOLUME and BASIS-vectors are now :", f" {'-' * 77}"]
    lines += [f"  energy-cutoff  :{job.encut_eV:12.2f}", lattice(step.cell_A), *_forces(step)]
    energy = step.energy_eV
    lines += [
        f"\n\n{RULE}\n\n\n\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
        "  ---------------------------------------------------",
        f"  free  energy   TOTEN  ={energy:19.8f} eV\n",
        f"  energy  without entropy={energy:18.8f}  energy(sigma->0) ={energy:18.8f}",
        f" \n\n\n{RULE}\n\n\n{timing(job, 'POTLOK', 0.14)}\n\n\n{RULE}\n\n",
    ]
    if number == len(job.steps) and job.reached:
        lines += [" \n reached required accuracy - stopping structural energy minimisation"]
    lines += [timing(job, "LOOP+", 4.9), ""]
    return "".join(parts) + "\n".join(lines) + "\n"


def _stress(step: IonicStep) -> Iterator[str]:
    """Yield the block of the stress; the Total is the virial in eV, the last line in kB (A9, 6F12.5)."""
    if step.stress_kB is None:
        return
    kilobar = step.stress_kB[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]]
    total = kilobar * KILOBAR_EV_A3 * step.volume_A3
    kinetic = total - np.array([100.0, 100.0, 100.0, 0.0, 0.0, 0.0])
    yield "  FORCE on cell =-STRESS in cart. coord.  units (eV):"
    yield "  Direction    XX          YY          ZZ          XY          YZ          ZX"
    yield f"  {'-' * 86}"
    yield f"  Alpha Z{row(np.full(3, 100.0), 12, 5)}"
    for name in ("Ewald  ", "Hartree", "E(xc)  ", "Local  ", "n-local", "augment"):
        yield f"  {name}{row(np.zeros(6), 12, 5)}"
    yield f"  Kinetic{row(kinetic, 12, 5)}\n  Fock   {row(np.zeros(6), 12, 5)}"
    yield f"  {'-' * 85}\n  Total  {row(total, 12, 5)}\n  in kB  {row(kilobar, 12, 5)}"
    pressure = fixed(float(np.trace(step.stress_kB)) / 3, 12, 2)
    yield f"  external pressure ={pressure} kB  Pullay stress =        0.00 kB\n"


def _forces(step: IonicStep) -> Iterator[str]:
    """Yield the table of places and forces (3F13.5, 3X, 3F14.6)."""
    yield "\n POSITION                                       TOTAL-FORCE (eV/Angst)"
    yield f" {'-' * 83}"
    for place, force in zip(step.positions_A, step.forces_eV_A, strict=True):
        yield f"{row(place, 13, 5)}   {row(force, 14, 6)}"
    yield f" {'-' * 83}"
    yield f"    total drift:                         {row(step.forces_eV_A.sum(axis=0), 14, 6)}"


def tail(job: Job) -> str:
    """Return what ends a complete OUTCAR."""
    average = "0." if job.major == 5 else "N/A"
    lines = [timing(job, "4ORBIT", 0.0), "", _memory() + " ", "  ", "  "]
    lines += [" General timing and accounting informations for this job:", f" {'=' * 56}", "  "]
    times = {"Total CPU time used": 17.42, "User time": 16.65, "System time": 0.77, "Elapsed time": 17.483}
    lines += [f"{f'{what} (sec):':>44}{seconds:13.3f}" for what, seconds in times.items()]
    lines += [
        "  ",
        f"{'Maximum memory used (kb):':>44}{'58220.':>13}",
        f"{'Average memory used (kb):':>44}{average:>13}",
    ]
    lines += ["  ", f"{'Minor page faults:':>44}{182210:13d}", f"{'Major page faults:':>44}{0:13d}"]
    lines += [f"{'Voluntary context switches:':>44}{40:13d}", ""]
    return "\n".join(lines)


def outcar(job: Job) -> str:
    """Return the whole OUTCAR."""
    return head(job) + "".join(ionic(job, number + 1) for number in range(len(job.steps))) + tail(job)
