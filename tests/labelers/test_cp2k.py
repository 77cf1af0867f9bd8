"""CP2K: what its judge says of outputs, what decides the level, recovery, and real runs where it is installed."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path
from typing import Any

import dpdata
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from alloop import config
from alloop.labelers import levels
from alloop.labelers.code import Code, CodeFault, RunSettings, label_with_code
from alloop.labelers.cp2k import code as cp2k
from alloop.labelers.cp2k.code import RECIPES, Cp2k, read_data_sets
from alloop.labelers.cp2k.judge import abort_message, find_cp2k_outputs, judge_cp2k
from alloop.resources import find_template

TEMPLATE = find_template("cp2k/label.inp").read_text()
OUTPUT = (Path(__file__).parent / "cp2k_outputs" / "b2o2-2023.1.out").read_text()
"""Excerpt of a real run (CP2K 2023.1, 200 Ry) of `asked_atoms`."""

HARTREE_eV, BOHR_A = 27.2113838565563, 0.529177208590  # as CP2K prints them

BASIS_FILE = """# basis sets
B SZV-MOLOPT-SR-GTH SZV-MOLOPT-SR-GTH-q3
 1
 2 0 1 2 1 1
      3.053444073497  0.142389531583 -0.541363625050
      0.915483968316  0.070304308347 -0.187885904555
 B  DZVP-MOLOPT-SR-GTH DZVP-MOLOPT-SR-GTH-q3
 1
 2 0 1 1 1 1
      0.915483968316  0.070304308347 -0.187885904555
#
O DZVP-MOLOPT-SR-GTH DZVP-MOLOPT-SR-GTH-q6
 1
 2 0 1 1 1 1
      1.388401188741 -0.434348231700 -0.322839719400
"""
POTENTIAL_FILE = """B GTH-PBE-q3 GTH-PBE
    3
     0.41   2   -5.85946171     0.90375643
    0
O GTH-PBE-q6 GTH-PBE
    2    4
     0.24455430    2   -16.66721480     2.48731132
    0
O GTH-PBE-q4
    2    2
     0.3    1   -6.0
    0
"""


def asked_atoms() -> Atoms:
    return Atoms(
        "B2O2",
        positions=[[0.1, 0.05, 0.8], [-0.07, 0.02, -0.83], [0.02, -0.09, 2.05], [0.03, 0.04, -2.02]],
        cell=[[4.2, 0.1, 0.0], [0.0, 4.4, 0.05], [0.123456, 0.0, 7.0]],
        pbc=True,
    )


def judged(tmp_path: Path, text: str, asked: Atoms | None = None):
    (tmp_path / "cp2k.out").write_text(text)
    return judge_cp2k(tmp_path, asked_atoms() if asked is None else asked)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "BASIS_MOLOPT").write_text(BASIS_FILE)
    (folder / "GTH_POTENTIALS").write_text(POTENTIAL_FILE)
    return folder


# ---------------------------------------------------------------------------------------- judging outputs


def test_good_output_makes_a_label_of_exactly_the_atoms_asked_for(tmp_path):
    verdict = judged(tmp_path, OUTPUT)
    assert verdict.trusted, verdict.message
    assert (verdict.version, verdict.electronic_steps, verdict.ionic_steps) == ("2023.1", (14,), 1)
    assert verdict.potentials == ("B GTH-PBE-q3", "O GTH-PBE-q6")
    frame, asked = verdict.frame, asked_atoms()
    assert np.array_equal(frame.atoms.cell.array, asked.cell.array)
    assert np.array_equal(frame.atoms.positions, asked.positions)
    assert frame.energy_eV == pytest.approx(-37.710148726740478 * HARTREE_eV, rel=1e-9)
    assert frame.forces_eV_A[2, 2] == pytest.approx(-0.07885831 * HARTREE_eV / BOHR_A, rel=1e-9)
    # 1 eV/A3 is 160.2 GPa; the sign is that of the virial, as the finite differences below show
    assert frame.virial_eV[0, 0] == pytest.approx(2.66944413864 / 160.2176487 * asked.get_volume(), rel=1e-7)
    assert frame.virial_eV[0, 2] == frame.virial_eV[2, 0]


def test_dpdata_reads_the_same_energy_and_forces(tmp_path):
    (tmp_path / "cp2k.out").write_text(" DBCSR| CPU Multiplication driver  BLAS\n" + OUTPUT)
    other = dpdata.LabeledSystem(str(tmp_path / "cp2k.out"), fmt="cp2k/output")
    frame = judge_cp2k(tmp_path, asked_atoms()).frame
    # dpdata has other values of the constants: CODATA 2018, CP2K has those of 2006
    assert other["energies"][0] == pytest.approx(frame.energy_eV, rel=2e-7)
    np.testing.assert_allclose(other["forces"][0], frame.forces_eV_A, rtol=2e-6)


def as_later_version(text: str) -> str:
    """The same numbers in the prints of CP2K 2025.1 and later: other lines of forces, stress in bar."""

    def force(match: re.Match[str]) -> str:
        x, y, z = map(float, match.groups()[1:])
        return f" FORCES| {int(match[1]):6d} {x:15.8E} {y:15.8E} {z:15.8E} {np.hypot(np.hypot(x, y), z):16.8E}"

    def stress(match: re.Match[str]) -> str:
        return f" STRESS|      {match[1]} " + " ".join(f"{float(word) * 1e4:19.11E}" for word in match[2].split())

    title = " FORCES| Atomic forces [hartree/bohr]\n FORCES| Atom x y z |f|\n"
    text = re.sub(r" ATOMIC FORCES in \[a\.u\.\]\n\n # Atom.*\n", title, text)
    text = re.sub(r"^ +(\d+) +\d+ +[BO] +(-?\d\.\d{8}) +(-?\d\.\d{8}) +(-?\d\.\d{8})$", force, text, flags=re.M)
    text = re.sub(r"^ SUM OF ATOMIC FORCES.*$", " FORCES| Sum 0.0 0.0 0.0", text, flags=re.M)
    head, tail = text.split(" STRESS| 1/3 Trace")
    head = re.sub(r"^ STRESS\|      ([xyz]) (.*)$", stress, head, flags=re.M)
    text = head + " STRESS| 1/3 Trace" + tail
    return text.replace("tensor [GPa]", "tensor [bar]").replace("energy [a.u.]:", "energy [hartree]")


def as_old_version(text: str) -> str:
    """The same numbers in the prints of CP2K 7.1."""
    head, tail = text.split(" STRESS| 1/3 Trace")
    head = head.replace("STRESS| Analytical stress tensor [GPa]", "STRESS TENSOR [GPa]\n")
    head = re.sub(r"^ STRESS\| +x +y +z$", "            X               Y               Z", head, flags=re.M)
    head = re.sub(r"^ STRESS\|      ([xyz])", lambda match: f"  {match[1].upper()}", head, flags=re.M)
    return head.replace("energy [a.u.]:", "energy (a.u.): ") + tail[tail.index(" The number of warnings") :]


@pytest.mark.parametrize("spelling", [as_later_version, as_old_version])
def test_prints_of_other_versions_give_the_same_label(tmp_path, spelling):
    text = spelling(OUTPUT)
    assert text != OUTPUT
    frame, other = judged(tmp_path, OUTPUT).frame, judged(tmp_path, text)
    assert other.trusted, other.message
    assert other.frame.energy_eV == frame.energy_eV
    np.testing.assert_allclose(other.frame.forces_eV_A, frame.forces_eV_A, rtol=1e-7)
    np.testing.assert_allclose(other.frame.virial_eV, frame.virial_eV, rtol=1e-9)


def without(words: str, upto: str) -> str:
    """The output without the part from one text to another."""
    begin = OUTPUT.index(words)
    return OUTPUT[:begin] + OUTPUT[OUTPUT.index(upto, begin) :]


NOT_CONVERGED = " *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***"
BAD = {
    "empty": ("", "empty", "no output"),
    "no CP2K at all": ("bash: cp2k.psmp: command not found\n", "unreadable", "command not found"),
    "cut in the steps": (OUTPUT[: OUTPUT.index("    9 Broy.")], "truncated", "PROGRAM ENDED AT"),
    "cut in the forces": (OUTPUT[: OUTPUT.index(" SUM OF")], "truncated", "PROGRAM ENDED AT"),
    "not converged": (
        OUTPUT.replace("  *** SCF run converged in    14 steps ***", NOT_CONVERGED),
        "unconverged",
        r"14 of them",
    ),
    "stopped unconverged": (
        OUTPUT[: OUTPUT.index("  *** SCF run converged")]
        + " * [ABORT]\n *  \\___/  SCF run NOT converged. To continue\n",
        "unconverged",
        "did not converge",
    ),
    "converged is not said": (OUTPUT.replace("SCF run converged", "SCF run"), "unconverged", "does not say"),
    "no energy": (without(" ENERGY|", " ATOMIC FORCES"), "no_energy", "ENERGY"),
    "no forces": (without(" ATOMIC FORCES", " STRESS|"), "no_forces", "&FORCES ON"),
    "a force too few": (without("      4      2      O", " SUM OF"), "no_forces", "3 atoms, expected 4"),
    "no stress": (without(" STRESS|", " The number"), "no_stress", "STRESS_TENSOR ANALYTICAL"),
    "half a stress": (without(" STRESS|      z        3.94", " STRESS| 1/3"), "no_stress", "no stress tensor"),
    "energy NaN": (OUTPUT.replace("      -37.710148726740478", "                     NaN"), "not_finite", "energy"),
    "force NaN": (OUTPUT.replace("-0.01720635", "        NaN"), "not_finite", "force"),
    "force infinite": (OUTPUT.replace("   -0.01720635", "     Infinity"), "not_finite", "force"),
    "stress NaN": (OUTPUT.replace("2.66944413864E+00", "              NaN"), "not_finite", "stress"),
    "stars": (OUTPUT.replace("-0.01720635", "***********"), "merged_columns", "too large"),
    "not a number": (OUTPUT.replace("-0.01720635", "-0.0172.635"), "unreadable", "no number"),
    "unknown unit": (OUTPUT.replace("tensor [GPa]", "tensor [furlong]"), "unreadable", "furlong"),
    "two energies": (
        OUTPUT.replace(" ATOMIC FORCES", " ENERGY| Total FORCE_EVAL\n ATOMIC FORCES", 1),
        "unreadable",
        "2 ",
    ),
    "positions not printed": (OUTPUT.replace("COORDINATES IN", "NOTHING IN"), "unreadable", "PRINT_LEVEL MEDIUM"),
    "positions in bohr": (OUTPUT.replace("IN ANGSTROM", "IN BOHR"), "unreadable", "BOHR"),
    "an atom moved": (OUTPUT.replace("0.100000      0.050000", "0.100000      0.050010"), "wrong_atoms", "atom 0"),
    "a cell vector": (OUTPUT.replace("7.000   |c|", "7.001   |c|"), "wrong_cell", "0.0010"),
    "volume": (OUTPUT.replace("129.360617", "129.360717"), "wrong_cell", "129.360717"),
}


@pytest.mark.parametrize("name", BAD)
def test_faults_are_told_apart(tmp_path, name):
    text, fault, message = BAD[name]
    assert text != OUTPUT
    verdict = judged(tmp_path, text)
    assert (verdict.fault, verdict.trusted) == (fault, False), verdict.message
    assert re.search(message, verdict.message)


def test_other_atoms_than_asked_for(tmp_path):
    swapped = asked_atoms()[[2, 1, 0, 3]]
    assert judged(tmp_path, OUTPUT, swapped).fault == "wrong_atoms"
    assert judged(tmp_path, OUTPUT, asked_atoms()[:3]).message == "4 atoms, asked for 3"
    image = asked_atoms()
    image.positions[0] += image.cell[0]
    assert judged(tmp_path, OUTPUT, image).trusted


@hypothesis_settings(deadline=None)  # files are written
@given(cut=st.integers(0, len(OUTPUT)))
def test_no_piece_of_an_output_is_trusted_or_raises(tmp_path_factory, cut):
    verdict = judged(tmp_path_factory.mktemp("cut"), OUTPUT[:cut])
    assert verdict.trusted == (cut >= OUTPUT.index("PROGRAM ENDED AT") + len("PROGRAM ENDED AT"))


def test_missing_output_and_missing_folder(tmp_path):
    assert judge_cp2k(tmp_path, asked_atoms()).fault == "empty"
    assert judge_cp2k(tmp_path / "nowhere").fault == "empty"


def test_kept_outputs_are_judged_without_the_campaign(tmp_path, data_dir):
    code = Cp2k(TEMPLATE, data_dir)
    code.write(tmp_path, asked_atoms(), {})
    (tmp_path / "label.inp.gz").write_bytes(gzip.compress((tmp_path / "label.inp").read_bytes()))
    (tmp_path / "label.inp").unlink()
    (tmp_path / "cp2k.out.gz").write_bytes(gzip.compress(OUTPUT.encode()))
    verdict = judge_cp2k(tmp_path)
    assert (verdict.trusted, verdict.flags) == (True, ())
    assert np.array_equal(verdict.frame.atoms.cell.array, asked_atoms().cell.array)
    (tmp_path / "label.inp.gz").unlink()
    verdict = judge_cp2k(tmp_path / "cp2k.out.gz", force_ceiling_eV_A=1.0)
    assert verdict.flags == ("rounded_structure", "force_ceiling")
    assert verdict.frame.atoms.cell.array[2, 0] == 0.123
    (tmp_path / "cp2k.out.gz").write_bytes(b"no gzip")
    assert judge_cp2k(tmp_path).fault == "empty"


def test_outputs_are_found_by_name_or_by_how_they_begin(tmp_path):
    for name, text in (
        ("a/cp2k.out", ""),
        ("a/vasp.out", " running on    4 total cores\n"),
        ("b/c/run.log", " DBCSR| CPU Multiplication driver\n"),
        ("b/slurm.out", "module loaded\n" + OUTPUT),
        ("b/OUTCAR", OUTPUT),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "d.out.gz").write_bytes(gzip.compress(OUTPUT.encode()))
    (tmp_path / "e.out.gz").write_bytes(b"\x1f\x8b no gzip")
    found = [str(path.relative_to(tmp_path)) for path in find_cp2k_outputs(tmp_path)]
    assert found == ["d.out.gz", "a/cp2k.out", "b/slurm.out", "b/c/run.log"]
    assert find_cp2k_outputs(tmp_path / "a" / "vasp.out") == []
    assert judge_cp2k(tmp_path / "b", asked_atoms()).trusted


def test_of_an_output_written_twice_the_last_run_counts(tmp_path):
    assert judged(tmp_path, OUTPUT[: len(OUTPUT) // 2] + OUTPUT).trusted
    assert judged(tmp_path, OUTPUT + OUTPUT[: len(OUTPUT) // 2]).fault == "truncated"


ABORT = r"""
 *******************************************************************************
 *   ___                                                                       *
 *  /   \                                                                      *
 * [ABORT]                                                                     *
 *  \___/   The requested basis set <NOPE> for element <O> was not found in the *
 *    |                       basis set files <BASIS_MOLOPT>                   *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \                                          aobasis/basis_set_types.F:1509 *
 *******************************************************************************

 ===== Routine Calling Stack =====
"""


def test_what_cp2k_says_when_it_stops_reaches_the_message(tmp_path):
    said = "The requested basis set <NOPE> for element <O> was not found in the basis set files <BASIS_MOLOPT>"
    assert abort_message(ABORT) == said
    verdict = judged(tmp_path, OUTPUT[:500] + ABORT)
    assert (verdict.fault, verdict.message) == ("truncated", f"CP2K stopped: {said}")
    assert Cp2k(TEMPLATE).errors(tmp_path) == ["input"]
    assert abort_message(OUTPUT) is None


# ---------------------------------------------------------------------------------------- inputs and level


def test_inputs_hold_the_structure_to_the_last_digit_and_only_the_data_sets_used(tmp_path, data_dir):
    folder = tmp_path / "run"
    folder.mkdir()
    code: Code = Cp2k(TEMPLATE, data_dir)
    atoms = asked_atoms()
    atoms.set_array("asked", np.arange(4)[::-1])
    atoms.positions[0, 0] = 0.1 + 1e-15
    written = code.write(folder, atoms, {})
    assert np.array_equal(written.get_array("asked"), [3, 2, 1, 0])
    text = (folder / "label.inp").read_text()
    assert f"      B {float(atoms.positions[0, 0])!r} 0.05 0.8\n" in text
    assert "@" not in re.sub(r"#.*", "", text)
    assert re.findall(r"BASIS_SET (\S+)", text) == ["DZVP-MOLOPT-SR-GTH-q3", "DZVP-MOLOPT-SR-GTH-q6"]
    assert [entry.name for entry in read_data_sets((folder / "BASIS_MOLOPT").read_text())] == [
        "DZVP-MOLOPT-SR-GTH-q3",
        "DZVP-MOLOPT-SR-GTH-q6",
    ]
    assert code.command(folder) == "default"
    code.write(folder, atoms, {"command": "safe", "scf": "ot"})
    assert code.command(folder) == "safe"


def test_level_follows_template_and_data_sets_but_neither_comments_nor_recipes_nor_other_entries(data_dir):
    def level(template: str = TEMPLATE, **options) -> dict:
        return Cp2k(template, data_dir, **options).level(["B", "O"])

    first = level()
    assert level("# another comment\n" + TEMPLATE.replace("CUTOFF 800", "  cutoff   800  ! Ry")) == first
    assert all(level(scf=name) == first for name in RECIPES)
    assert str(data_dir) not in str(first)
    for old, new in (("CUTOFF 800", "CUTOFF 600"), ("PBE\n", "BLYP\n"), ("EPS_SCF 1.0E-6", "EPS_SCF 1.0E-5")):
        assert level(TEMPLATE.replace(old, new)) != first
    assert level(kinds={"O": {"potential": "GTH-PBE-q4"}}) != first
    path = data_dir / "BASIS_MOLOPT"
    path.write_text(BASIS_FILE.replace("3.0534", "3.0535").replace(" 1\n 2 0 1 1 1 1", "   1\n  2 0 1  1 1 1"))
    assert level() == first, "another basis set's numbers, and blanks, do not count"
    path.write_text(BASIS_FILE.replace("1.388401188741", "1.388401188742"))
    assert level() != first


def test_a_label_is_made_at_the_level_it_was_asked_for_or_not_at_all(tmp_path, data_dir):
    folder = tmp_path / "run"
    folder.mkdir()
    level = Cp2k(TEMPLATE, data_dir).level(["B", "O"])
    later = Cp2k(TEMPLATE.replace("CUTOFF 800", "CUTOFF 300"), data_dir, basis="SZV-MOLOPT-SR-GTH", level=level)
    later.write(folder, asked_atoms(), {})
    text = (folder / "label.inp").read_text()
    assert "CUTOFF 800" in text
    assert "BASIS_SET SZV" not in text
    assert later.level(["B", "O"]) == level
    assert (folder / "BASIS_MOLOPT").is_file(), "names of files keep their case"
    (data_dir / "GTH_POTENTIALS").write_text(POTENTIAL_FILE.replace("0.24455430", "0.24455431"))
    with pytest.raises(CodeFault, match="potential GTH-PBE-q6 of O") as caught:
        later.write(folder, asked_atoms(), {})
    assert (caught.value.kind, caught.value.final) == ("config", False)
    (data_dir / "GTH_POTENTIALS").write_text("")
    with pytest.raises(CodeFault, match="no potential 'GTH-PBE-q3' for B"):
        later.write(folder, asked_atoms(), {})


@hypothesis_settings(deadline=None)  # files are written
@given(
    faults=st.lists(
        st.lists(
            st.sampled_from(["unconverged", "crash", "hang", "truncated", "memory", "not_finite", "odd"]), min_size=1
        ),
        min_size=12,
        max_size=12,
    ),
    first=st.sampled_from(list(RECIPES)),
)
def test_recovery_ends_never_repeats_itself_and_changes_the_recipe_only(tmp_path_factory, faults, first):
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "BASIS_MOLOPT").write_text(BASIS_FILE)
    (folder / "GTH_POTENTIALS").write_text(POTENTIAL_FILE)
    code = Cp2k(TEMPLATE, folder, scf=first)
    run = folder / "run"
    run.mkdir()
    tried: list[dict] = []
    outside_recipe = set()
    for found in [[], *faults]:
        if found:
            following = code.next_correction(found, tried)
            if following is None:
                break
            assert following not in tried and following != {}
            assert set(following) <= {"scf", "command"}
            tried.append(following)
        code.write(run, asked_atoms(), tried[-1] if tried else {})
        recipe, values = RECIPES[tried[-1].get("scf", first) if tried else first]
        text = re.sub(r"(?m)^ *(# command.*\n)?", "", (run / "label.inp").read_text())
        block = re.sub(r"(?m)^ *", "", recipe.format(eps="1.0E-6", **values))
        assert text.count(block) == 1
        outside_recipe.add(text.replace(block, ""))
    assert len(tried) <= len(RECIPES)
    assert len(outside_recipe) == 1


def test_no_recipe_holds_what_decides_the_level():
    known = {"SCF_GUESS", "MAX_SCF", "EPS_SCF", "ALGORITHM", "METHOD", "ALPHA", "NBROYDEN"}
    known |= {"MINIMIZER", "PRECONDITIONER", "ENERGY_GAP"}
    for recipe, values in RECIPES.values():
        lines = [line.split() for line in recipe.format(eps="1.0E-6", **values).splitlines()]
        assert {words[0] for words in lines if not words[0].startswith("&")} <= known
        assert [words[1] for words in lines if words[0] == "EPS_SCF"] in ([], ["1.0E-6"])


@pytest.mark.parametrize(
    "faults",
    [
        ["input", "truncated"],
        ["odd_electrons"],
        ["launch", "unreadable"],
        ["no_stress"],
        ["wrong_atoms"],
        ["unreadable"],
    ],
)
def test_nothing_is_tried_when_it_cannot_help(faults):
    assert Cp2k(TEMPLATE).next_correction(faults, []) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("run.sh: line 9: cp2k.psmp: command not found", "launch"),
        ("There are not enough slots available in the system", "launch"),
        ("srun: error: Unable to create step for job 7: Job/step already completing or completed", "job_ended"),
        ("slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2024-01-01T00:00:00 DUE TO TIME LIMIT ***", "job_ended"),
        (" *  \\___/            found an unknown keyword CUTTOFF in section MGRID         *", "input"),
        (" *  \\___/            Use the LSD option for an odd number of electrons         *", "odd_electrons"),
        ("Program received signal SIGSEGV: Segmentation fault - invalid memory reference.", "segfault"),
        ("Operating system error: Cannot allocate memory", "memory"),
        (NOT_CONVERGED, "unconverged"),
    ],
)
def test_errors_of_the_log_get_names(tmp_path, text, name):
    (tmp_path / "cp2k.out").write_text(f"{OUTPUT[:300]}\n{text}\n")
    assert Cp2k(TEMPLATE).errors(tmp_path) == [name]
    (tmp_path / "cp2k.out").write_text(OUTPUT)
    assert Cp2k(TEMPLATE).errors(tmp_path) == []


def test_a_crash_first_asks_for_the_safe_command_and_k_points_for_no_orbital_transformation():
    code = Cp2k(TEMPLATE)
    assert code.next_correction(["crash", "truncated"], []) == {"scf": "diagonalization", "command": "safe"}
    for fault in ("hang", "memory"):
        assert code.next_correction([fault, "truncated"], [{"command": "safe"}]) is None
    assert code.next_correction(["crash", "empty"], [{"command": "safe"}]) == {"command": "safe", "scf": "ot"}
    assert code.next_correction(["unconverged"], [])["scf"] == "ot"
    metal = Cp2k(TEMPLATE.replace("&XC\n", "&KPOINTS\n&END\n&XC\n", 1))
    assert metal.next_correction(["unconverged"], [])["scf"] == "diagonalization-damped"


# ---------------------------------------------------------------------------------------- before any run


def test_the_shipped_template_has_no_problems(data_dir):
    assert Cp2k(TEMPLATE, data_dir).problems(["B", "O"]) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("      @CELL@\n", "", "@CELL@"),
        ("@KINDS@", "@KINDS@\n@ATOMS@", "@ATOMS@"),
        ("  STRESS_TENSOR ANALYTICAL\n", "", "STRESS_TENSOR ANALYTICAL"),
        ("  STRESS_TENSOR ANALYTICAL\n", "  STRESS_TENSOR NONE\n", "STRESS_TENSOR ANALYTICAL"),
        ("&STRESS_TENSOR ON", "&STRESS_TENSOR OFF", "&STRESS_TENSOR ON"),
        ("&FORCES ON", "&FORCES OFF", "&FORCES ON"),
        ("ENERGY_FORCE", "ENERGY", "RUN_TYPE ENERGY_FORCE"),
        ("PRINT_LEVEL MEDIUM", "PRINT_LEVEL LOW", "PRINT_LEVEL"),
        ("EPS_SCF 1.0E-6", "EPS_SCF 1.0E-6\nMAX_SCF 10", "MAX_SCF"),
        ("    &END MGRID\n", "", "without &END"),
        ("&GLOBAL\n", "@INCLUDE 'x.inp'\n&GLOBAL\n", "includes"),
        ("FILE_NAME BASIS_MOLOPT", "FILE_NAME /opt/BASIS_MOLOPT", "with its folder"),
        ("FILE_NAME BASIS_MOLOPT", "FILE_NAME BASIS_NOWHERE", "BASIS_NOWHERE is not in"),
        ("    BASIS_SET_FILE_NAME BASIS_MOLOPT\n", "", "names no BASIS_SET_FILE_NAME"),
    ],
)
def test_problems_of_a_template_are_found_before_any_run(data_dir, old, new, found):
    assert old in TEMPLATE
    problems = Cp2k(TEMPLATE.replace(old, new), data_dir).problems(["B", "O"])
    assert any(found in problem for problem, _ in problems), problems
    assert all(remedy for _, remedy in problems)


def test_problems_of_data_sets_are_found_before_any_run(data_dir):
    problems = Cp2k(TEMPLATE, data_dir).problems(["B", "Li"])
    assert len(problems) == 1
    assert "basis 'DZVP-MOLOPT-SR-GTH' for Li" in problems[0][0]
    [(found, remedy)] = Cp2k(TEMPLATE, data_dir, basis="DZVP-MOLOPT-GTH").problems(["B"])
    assert "DZVP-MOLOPT-SR-GTH-q3" in remedy
    [(found, _)] = Cp2k(TEMPLATE, data_dir, kinds={"O": {"potential": "GTH-PBE-q4"}}).problems(["O"])
    assert "different numbers of electrons" in found
    [(found, remedy)] = Cp2k(TEMPLATE, data_dir, scf="magic").problems(["O"])
    assert "diagonalization" in remedy
    with pytest.raises(ValueError, match="for Li"):
        Cp2k(TEMPLATE, data_dir).level(["B", "Li"])


def test_data_files_are_found_where_the_environment_says(data_dir, monkeypatch):
    monkeypatch.setattr(cp2k, "DATA_DIRS", ())
    monkeypatch.delenv("CP2K_DATA_DIR", raising=False)
    assert "data_dir" in Cp2k(TEMPLATE).problems(["B"])[0][1]
    monkeypatch.setenv("CP2K_DATA_DIR", str(data_dir))
    assert Cp2k(TEMPLATE).problems(["B"]) == []


# ---------------------------------------------------------------------------------------- real runs

needs_cp2k = pytest.mark.skipif(
    not (shutil.which("cp2k.psmp") and shutil.which("mpirun")), reason="no cp2k.psmp (Debian: apt install cp2k)"
)
COARSE = (
    TEMPLATE.replace("CUTOFF 800", "CUTOFF 200").replace("REL_CUTOFF 60", "REL_CUTOFF 40").replace("1.0E-12", "1.0E-10")
)
"""Coarse but consistent: forces are the derivatives of the energies on any grid."""


SERIAL, PARALLEL = "cp2k.psmp -i label.inp", "mpirun -np 2 cp2k.psmp -i label.inp"


def settings(default: str = SERIAL, **others: str) -> RunSettings:
    return RunSettings(
        commands={"default": default} | others,
        script=find_template("run.sh").read_text(),
        environment={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
        timeout_s=600,
    )


def energy_eV(atoms: Atoms, work: Path) -> float:
    return label_with_code(Cp2k(COARSE), settings(), atoms, work).frame.energy_eV


@pytest.mark.slow
@needs_cp2k
def test_forces_and_virial_are_the_derivatives_of_real_energies(tmp_path):
    """Error of a difference: its step squared (0.002 eV/A at 0.003 A), and 1e-6 eV of noise over twice the step."""
    atoms = asked_atoms()
    frame = label_with_code(Cp2k(COARSE), settings(PARALLEL), atoms, tmp_path / "label").frame
    step_A, strain = 0.001, 0.001
    moved, strained = [], []
    for sign in (1, -1):
        shifted = atoms.copy()
        shifted.positions[2, 2] += sign * step_A
        moved.append(energy_eV(shifted, tmp_path / f"force{sign}"))
        sheared = atoms.copy()
        matrix = np.eye(3) + sign * strain * np.array([[0, 0, 0.5], [0, 0, 0], [0.5, 0, 1.0]])
        sheared.set_cell(atoms.cell.array @ matrix, scale_atoms=True)
        strained.append(energy_eV(sheared, tmp_path / f"strain{sign}"))
    assert abs(frame.forces_eV_A[2, 2]) > 1
    assert -(moved[0] - moved[1]) / (2 * step_A) == pytest.approx(frame.forces_eV_A[2, 2], abs=3e-3)
    along_eV = frame.virial_eV[2, 2] + frame.virial_eV[0, 2]
    assert abs(along_eV) > 1
    assert -(strained[0] - strained[1]) / (2 * strain) == pytest.approx(along_eV, abs=5e-3)


@pytest.mark.slow
@needs_cp2k
def test_recovery_of_real_runs_ends_in_the_same_label(tmp_path, monkeypatch):
    straight = label_with_code(Cp2k(COARSE), settings(), asked_atoms(), tmp_path / "straight")
    recipe, values = RECIPES["diagonalization"]
    monkeypatch.setitem(RECIPES, "diagonalization", (recipe, values | {"inner": 3}))
    crash = settings(default="bash -c 'kill -SEGV $$'", safe=SERIAL)
    label = label_with_code(Cp2k(COARSE), crash, asked_atoms(), tmp_path / "recovered")
    assert label.corrections == [{"scf": "diagonalization", "command": "safe"}, {"scf": "ot", "command": "safe"}]
    # two minimisers meet within what EPS_SCF = 1e-6 leaves: measured 2e-12 eV and 4e-5 eV/A
    assert label.frame.energy_eV == pytest.approx(straight.frame.energy_eV, abs=1e-6)
    np.testing.assert_allclose(label.frame.forces_eV_A, straight.frame.forces_eV_A, atol=5e-4)


@pytest.mark.slow
@needs_cp2k
def test_a_run_takes_the_data_sets_beside_its_input(tmp_path):
    """Under the name of oxygen's larger basis `data_dir` has its smaller one: CP2K's own would give a lower energy."""
    own = Cp2k(COARSE)
    place = own._find("BASIS_MOLOPT").parent
    entries = {(e.element, e.name): e.text for e in read_data_sets((place / "BASIS_MOLOPT").read_text())}
    small = entries["O", "SZV-MOLOPT-SR-GTH-q6"].replace("SZV", "DZVP")
    (tmp_path / "BASIS_MOLOPT").write_text(f"{entries['B', 'DZVP-MOLOPT-SR-GTH-q3']}\n{small}\n")
    shutil.copy(place / "GTH_POTENTIALS", tmp_path)
    code = Cp2k(COARSE, tmp_path)
    assert code.level(["B", "O"]) != own.level(["B", "O"])
    found = label_with_code(code, settings(), asked_atoms(), tmp_path / "small").frame.energy_eV
    assert found > energy_eV(asked_atoms(), tmp_path / "large") + 1


@pytest.mark.slow
@needs_cp2k
def test_a_real_refusal_is_final_and_says_what_cp2k_said(tmp_path):
    odd = asked_atoms()
    del odd[0]
    with pytest.raises(CodeFault, match=r"odd_electrons.*Use the LSD option") as caught:
        label_with_code(Cp2k(COARSE), settings(), odd, tmp_path)
    assert caught.value.final


def cp2k_param(**changes: Any) -> config.LabelParam:
    run = {"command": "cp2k.psmp -i label.inp", "command_safe": "cp2k.safe -i label.inp"}
    return config.LabelParam.model_validate({"labeler": "cp2k", "run": run} | changes)


def test_labeler_needs_no_section_and_its_settings_reach_the_code(tmp_path: Path) -> None:
    for own in ({}, {"cp2k": {"scf": "ot", "kinds": {"O": {"potential": "GTH-PBE-q6"}}}}):
        param = cp2k_param(cp2k=own.get("cp2k") or {"data_dir": None}) if own else cp2k_param()
        how = levels.run_settings(param, ["O", "Si"], tmp_path)
        assert how["settings"]["commands"] == {
            "default": "cp2k.psmp -i label.inp",
            "safe": "cp2k.safe -i label.inp",
        }
        if not Path("/usr/share/cp2k").is_dir():
            continue
        level = levels.target_level(param, ["O", "Si"], tmp_path)
        code, _ = levels.open_code(level.content, how, {})
        assert isinstance(code, cp2k.Cp2k) and code.scf == ("ot" if own else "diagonalization")
        assert code.level(["O", "Si"]) == level.content["cp2k"]
