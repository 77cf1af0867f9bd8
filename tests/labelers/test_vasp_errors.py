from __future__ import annotations

import pytest

from alloop.labelers.vasp import errors
from alloop.labelers.vasp.errors import detected_errors

HEALTHY = """\
 running on    4 total cores
 vasp.5.4.4.18Apr17-6-g9f103f2a35 (build Jan 01 2020 12:00:00) complex
 POSCAR found :  2 types and       6 ions
 ALGO=A and IALGO=5X tend to fail with the tetrahedron method (e.g. Bloechls method ISMEAR=-5 is not variational)
 WAVECAR not read
 The number of bands has been changed from the values supplied in the INCAR file.
 One of the lattice vectors is very long (>50 A), but AMIN is rather large.
 WARNING: Sub-Space-Matrix is not hermitian in DAV            1  -3.2E-005
       N       E                     dE             d eps       ncg     rms          rms(c)
DAV:   1     0.651512275345E+03    0.65151E+03   -0.26039E+04  9936   0.229E+03
   1 F= -.57483437E+02 E0= -.57474954E+02  d E =-.508966E-01
"""


@pytest.fixture(params=["with custodian", "without custodian"])
def table(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without custodian":
        monkeypatch.setattr(errors, "_custodian_messages", dict)
    else:
        pytest.importorskip("custodian")


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Error EDDDAV: Call to ZHEGV failed. Returncode =  20 2 18", ["edddav"]),
        ("WARNING in EDDRMM: call to ZHEGV failed, returncode =   6  3", ["eddrmm"]),
        (" LAPACK: Routine ZPOTRF failed!           1", ["zpotrf"]),
        (" BRMIX: very serious problems\n  the old and the new charge density differ", ["brmix"]),
        ("ERROR EDDIAG: Call to routine ZHEEV failed! Info= 2", ["zheev"]),
        ("POSMAP internal error: symmetry equivalent atom not found,", ["posmap"]),
        ("internal error in subroutine PRICEL (probably precision problem", ["pricel"]),
        ("group operation missing", ["point_group"]),
        ("Found some non-integer element in rotation matrix", ["rot_matrix"]),
        ("ZBRENT: fatal error in bracketing", ["zbrent"]),
        ("REAL_OPTLAY: internal error (1)", ["real_optlay"]),
        ("forrtl: No space left on device\nforrtl: severe (38): error during write", ["no_space"]),
        ("slurmstepd: error: *** STEP CANCELLED AT 2024-01-01 DUE TO TIME LIMIT ***", ["time_limit"]),
        ("srun: error: Unable to create step for job 7: Job/step already completing or completed", ["job_ended"]),
        ("slurmstepd: error: *** STEP 7.1 ON n1 CANCELLED AT 2024-01-01T00:00:00 ***", []),
        ("VERY BAD NEWS! internal error in subroutine XYZ:", ["internal_error"]),
        ("", []),
        (HEALTHY, []),
    ],
)
def test_texts_are_named(text: str, names: list[str]) -> None:
    assert detected_errors(text) == names


@pytest.mark.usefixtures("table")
def test_the_frames_of_vasp_6_do_not_matter() -> None:
    text = (
        "|     The inverse of the rotation matrix was not       |\n"
        "|     found (increase SYMPREC) 5                       |\n"
        "|  ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB <----|\n"
    )
    assert detected_errors(text) == ["inv_rot_mat"]
    assert detected_errors("| I REFUSE TO CONTINUE WITH THIS SICK JOB |") == ["refused"]


def test_a_custodian_that_cannot_be_imported_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(name)

    errors._custodian_messages.cache_clear()
    monkeypatch.setattr(errors, "import_module", broken)
    try:
        assert detected_errors("Error EDDDAV: Call to ZHEGV failed.") == ["edddav"]
    finally:
        errors._custodian_messages.cache_clear()
