from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import vasp_double
from ase.stress import voigt_6_to_full_3x3_stress
from double_plan import CURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vasp_double import double_command
from vasp_outputs import RELAXATION, SINGLE, drop_lines, edit_line, glass, put, texts, write_inputs

from alloop.glass.force_field import TeterCalculator
from alloop.labelers.vasp.errors import detected_errors
from alloop.labelers.vasp.judge import find_outputs, judge_run, judge_vasp
from alloop.labelers.verdict import Verdict

VERSIONS = ("5.4.4", "6.3.2")
ENERGY = r"free  energy   TOTEN"
FORCES = r"TOTAL-FORCE"
STRESS = r"^  in kB"
pytestmark = pytest.mark.parametrize("version", VERSIONS)


def faulty(verdict: Verdict, fault: str, *words: str) -> None:
    assert (verdict.fault, verdict.trusted) == (fault, False), verdict.message
    for word in words:
        assert word in verdict.message, verdict.message
    assert "\n" not in verdict.message


def test_a_good_run_is_trusted_with_the_numbers_of_the_double(tmp_path: Path, version: str) -> None:
    verdict = judge_vasp(put(tmp_path, *texts(version)), glass())
    assert verdict.trusted, verdict.message
    assert verdict.version is not None and verdict.version.startswith(version)
    assert verdict.potentials == tuple(
        f"PAW_PBE {title}" for title in ("O 08Apr2002", "Si 05Jan2001", "O 08Apr2002", "Li_sv 10Sep2004", "O 08Apr2002")
    )
    assert (verdict.ionic_steps, len(verdict.electronic_steps), verdict.flags) == (1, 1, ())
    atoms = glass()
    atoms.calc = TeterCalculator()
    frame = verdict.frame
    assert frame is not None
    assert frame.atoms.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert frame.atoms.pbc.all()
    np.testing.assert_allclose(frame.atoms.cell, atoms.cell, atol=1e-8)
    np.testing.assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-6)
    np.testing.assert_allclose(frame.forces_eV_A, atoms.get_forces(), atol=1e-5)
    virial_eV = -voigt_6_to_full_3x3_stress(atoms.get_stress()) * atoms.get_volume()
    np.testing.assert_allclose(frame.virial_eV, virial_eV, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("left", [0, 1])
def test_one_file_alone_is_enough(tmp_path: Path, version: str, left: int) -> None:
    pair = texts(version)
    both, alone = (
        judge_vasp(put(tmp_path / "a", *pair)),
        judge_vasp(put(tmp_path / "b", *[text if index == left else None for index, text in enumerate(pair)]), glass()),
    )
    assert alone.trusted, alone.message
    assert both.frame is not None and alone.frame is not None
    np.testing.assert_allclose(alone.frame.forces_eV_A, both.frame.forces_eV_A, atol=1e-6)
    np.testing.assert_allclose(alone.frame.virial_eV, both.frame.virial_eV, atol=1e-4)
    assert alone.frame.energy_eV == pytest.approx(both.frame.energy_eV, abs=1e-7)


def test_a_relaxation_gives_its_last_step_and_is_compared_by_its_first(tmp_path: Path, version: str) -> None:
    for number, pair in enumerate((texts(version, RELAXATION), (texts(version, RELAXATION)[0], None))):
        verdict = judge_vasp(put(tmp_path / str(number), *pair), glass())
        assert verdict.trusted, verdict.message
        assert verdict.ionic_steps == len(verdict.electronic_steps) == 4
        assert verdict.frame is not None and verdict.first_energy_eV is not None
        assert verdict.first_energy_eV > verdict.frame.energy_eV
        assert np.abs(verdict.frame.atoms.positions - glass().positions).max() > 1e-3


def test_nothing_and_empty_files(tmp_path: Path, version: str) -> None:
    outcar, _ = texts(version)
    faulty(judge_vasp(put(tmp_path / "none", None, None)), "empty", "no OUTCAR")
    faulty(judge_vasp(tmp_path / "nowhere"), "empty")
    faulty(judge_vasp(put(tmp_path / "a", "", None)), "empty", "OUTCAR")
    faulty(judge_vasp(put(tmp_path / "b", outcar, "")), "empty", "vasprun.xml")
    faulty(judge_vasp(put(tmp_path / "c", None, "")), "empty", "vasprun.xml")


def test_what_vasp_did_not_write_is_unreadable(tmp_path: Path, version: str) -> None:
    faulty(judge_vasp(put(tmp_path / "a", "a letter\nof two lines\n", None)), "unreadable", "OUTCAR")
    faulty(judge_vasp(put(tmp_path / "b", None, "<html><p>proxy error</p></html>")), "unreadable", "vasprun.xml")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "OUTCAR").write_bytes(bytes(range(256)) * 20)
    faulty(judge_vasp(tmp_path / "c"), "unreadable")
    outcar, vasprun = texts(version)
    faulty(judge_vasp(put(tmp_path / "d", outcar, vasprun.replace("<atoms>", "<at oms>"))), "unreadable", "valid XML")
    (tmp_path / "e" / "OUTCAR").mkdir(parents=True)
    faulty(judge_vasp(tmp_path / "e"), "empty")


def test_cut_files_are_truncated_and_say_where(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version, RELAXATION)
    cut = outcar[: outcar.index("Iteration      3(   2)") + 500]
    faulty(judge_vasp(put(tmp_path / "a", cut, None)), "truncated", "electronic step 2 of ionic step 3")
    faulty(judge_vasp(put(tmp_path / "b", outcar, vasprun[: len(vasprun) // 2])), "truncated", "vasprun.xml")
    faulty(judge_vasp(put(tmp_path / "c", outcar[:2000], vasprun[:900])), "truncated", "before the first")
    unconverged = texts(version, SINGLE.replace("NELM = 60", "NELM = 9"))[0]
    faulty(judge_vasp(put(tmp_path / "d", unconverged[:-4000], None)), "truncated")


def test_as_many_electronic_steps_as_nelm_are_unconverged_whatever_is_printed(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version, SINGLE.replace("NELM = 60", "NELM = 9"))
    for number, pair in enumerate(((outcar, vasprun), (outcar, None), (None, vasprun))):
        verdict = judge_vasp(put(tmp_path / str(number), *pair))
        faulty(verdict, "unconverged", "9")
        assert verdict.frame is not None and verdict.electronic_steps == (9,)
    assert ("EDIFF is reached" in outcar) == (version == "5.4.4")


def test_an_unconverged_step_in_the_middle_counts(tmp_path: Path, version: str) -> None:
    steps = judge_vasp(put(tmp_path, *texts(version, RELAXATION))).electronic_steps
    assert steps[-1] < max(steps) - 1
    pair = texts(version, RELAXATION.replace("NELM = 60", f"NELM = {max(steps) - 1}"))
    faulty(judge_vasp(put(tmp_path, *pair)), "unconverged", f"ionic step {steps.index(max(steps)) + 1}")


def test_the_last_allowed_step_counts_where_vasp_6_says_so(tmp_path: Path, version: str) -> None:
    (needed,) = judge_vasp(put(tmp_path, *texts(version))).electronic_steps
    outcar, vasprun = texts(version, SINGLE.replace("NELM = 60", f"NELM = {needed}"))
    assert "EDIFF is reached" in outcar
    assert judge_vasp(put(tmp_path, outcar, vasprun)).trusted == (version == "6.3.2")
    faulty(judge_vasp(put(tmp_path, None, vasprun)), "unconverged")
    early = outcar.replace("vasp.6.3.2", "vasp.6.1.0")
    faulty(judge_vasp(put(tmp_path, early, vasprun)), "unconverged")
    lacks = outcar.replace("because EDIFF is reached ", "EDIFF was not reached (unconverged) ")
    faulty(judge_vasp(put(tmp_path, lacks, vasprun)), "unconverged", "not reached")


def test_a_hard_stop_is_unconverged(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    stopped = edit_line(outcar, "aborting loop", lambda line: f"{line} hard stop encountered!  aborting job ...\n")
    faulty(judge_vasp(put(tmp_path, stopped, vasprun)), "unconverged", "STOPCAR")


def test_a_fixed_density_is_unconverged(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    fixed = edit_line(outcar, r"^   ICHARG =", lambda line: line.replace("2 ", "11 ", 1))
    assert fixed != outcar
    faulty(judge_vasp(put(tmp_path, fixed, vasprun)), "unconverged", "ICHARG = 11")


def test_without_nelm_nothing_can_be_trusted(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    silent = "".join(line for line in outcar.splitlines(keepends=True) if "NELM" not in line)
    for text in (None, vasprun):
        faulty(judge_vasp(put(tmp_path, silent, text)), "unreadable", "NELM")
    faulty(judge_vasp(put(tmp_path, None, vasprun.replace('name="NELM"', 'name="NLEM"'))), "unreadable", "NELM")


def test_missing_numbers(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    faulty(judge_vasp(put(tmp_path, drop_lines(outcar, ENERGY), vasprun)), "no_energy", "OUTCAR")
    faulty(judge_vasp(put(tmp_path, outcar, drop_lines(vasprun, "e_fr_energy"))), "no_energy", "vasprun.xml")
    faulty(judge_vasp(put(tmp_path, drop_lines(outcar, FORCES, 15), vasprun)), "no_forces", "OUTCAR")
    faulty(judge_vasp(put(tmp_path, outcar, drop_lines(vasprun, '"forces"', 14))), "no_forces", "vasprun.xml")
    faulty(judge_vasp(put(tmp_path, drop_lines(outcar, STRESS), vasprun)), "no_stress", "OUTCAR")
    faulty(judge_vasp(put(tmp_path, outcar, drop_lines(vasprun, '"stress"', 5))), "no_stress", "vasprun.xml")


@pytest.mark.parametrize("isif", [0, 1])
def test_no_full_stress_by_isif(tmp_path: Path, version: str, isif: int) -> None:
    pair = texts(version, SINGLE.replace("ISIF = 2", f"ISIF = {isif}"))
    faulty(judge_vasp(put(tmp_path, *pair), glass()), "no_stress", f"ISIF = {isif}", "ISIF = 2")
    outcar, vasprun = texts(version)
    told = edit_line(outcar, r"^   ISIF   =", lambda line: line.replace("2", str(isif), 1))
    faulty(judge_vasp(put(tmp_path, told, vasprun)), "no_stress")


def _run_together(line: str) -> str:
    return "  1.00000  2.00000  3.00000   -123.45678-1234.56789     0.10000\n"


def test_merged_columns_and_stars(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    merged = edit_line(outcar, FORCES, _run_together, offset=3)
    faulty(judge_vasp(put(tmp_path, merged, vasprun)), "merged_columns", "OUTCAR", "row 2 of the forces", "-123.45678-")
    stars = edit_line(outcar, FORCES, lambda line: f"{line[:-14]}*************\n", offset=2)
    faulty(judge_vasp(put(tmp_path, stars, None)), "merged_columns", "stars")
    stress = edit_line(outcar, STRESS, lambda _: "  in kB  -12353.08821-12353.08821 62213.36307 0.0 0.0 0.0\n")
    faulty(judge_vasp(put(tmp_path, stress, vasprun)), "merged_columns", "stress")
    energy = edit_line(outcar, ENERGY, lambda _: "  free  energy   TOTEN  =   **************** eV\n")
    faulty(judge_vasp(put(tmp_path, energy, vasprun)), "merged_columns", "energy")
    in_xml = edit_line(vasprun, '"forces"', lambda _: "   <v> **************** 0.0 0.0 </v>\n", offset=1)
    faulty(judge_vasp(put(tmp_path, outcar, in_xml)), "merged_columns", "vasprun.xml")
    relaxed = texts(version, RELAXATION)[1]
    early = edit_line(relaxed, '"stress"', lambda _: "   <v> **************** 0.0 0.0 </v>\n", which=0, offset=1)
    faulty(judge_vasp(put(tmp_path, None, early)), "merged_columns")


def test_vectors_of_a_large_cell_may_touch(tmp_path: Path, version: str) -> None:
    outcar = edit_line(texts(version)[0], "direct lattice vectors", lambda line: line.replace(" -", "-"), offset=2)
    assert judge_vasp(put(tmp_path, outcar, None), glass()).trusted


@pytest.mark.parametrize("word", ["NaN", "Infinity"])
def test_numbers_that_are_none(tmp_path: Path, version: str, word: str) -> None:
    outcar, vasprun = texts(version)
    forces = edit_line(outcar, FORCES, lambda line: f"{line[:-14]}{word:>13}\n", offset=4)
    faulty(judge_vasp(put(tmp_path, forces, vasprun)), "not_finite", "row 3 of the forces", word)
    energy = edit_line(outcar, ENERGY, lambda _: f"  free  energy   TOTEN  =      {word} eV\n")
    faulty(judge_vasp(put(tmp_path, energy, None)), "not_finite", "energy")
    stress = edit_line(vasprun, '"stress"', lambda _: f"   <v> 1.0 {word} 2.0 </v>\n", offset=2)
    faulty(judge_vasp(put(tmp_path, outcar, stress)), "not_finite", "vasprun.xml", "stress")


def test_other_atoms_order_or_places_than_asked_for(tmp_path: Path, version: str) -> None:
    for pair in (texts(version), (texts(version)[0], None)):
        folder = put(tmp_path, *pair)
        other = glass()
        other.symbols[3] = "B"
        faulty(judge_vasp(folder, other), "wrong_atoms", "POTCAR")
        faulty(judge_vasp(folder, glass()[[*range(1, 12), 0]]), "wrong_atoms", "order", "atom 2")
        faulty(judge_vasp(folder, glass()[:-1]), "wrong_atoms")
        swapped = glass()[[1, 0, *range(2, 12)]]
        faulty(judge_vasp(folder, swapped), "wrong_atoms", "atom", "off the place")
        moved = glass()
        moved.positions[7, 1] += 2e-4
        faulty(judge_vasp(folder, moved), "wrong_atoms", "atom 7")
        wrapped = glass()
        wrapped.positions += np.array([[1, -2, 3]]) @ wrapped.cell.array
        assert judge_vasp(folder, wrapped).trusted


def test_another_cell_than_asked_for(tmp_path: Path, version: str) -> None:
    other = glass()
    other.set_cell(other.cell.array * [[1, 1, 1], [1, 1.0001, 1], [1, 1, 1]], scale_atoms=True)
    faulty(judge_vasp(put(tmp_path, *texts(version)), other), "wrong_cell", "cell")
    faulty(judge_vasp(put(tmp_path, texts(version)[0], None), other), "wrong_cell", "cell")


def test_wrong_atoms_are_told_before_lack_of_convergence(tmp_path: Path, version: str) -> None:
    pair = texts(version, SINGLE.replace("NELM = 60", "NELM = 9"))
    faulty(judge_vasp(put(tmp_path, *pair), glass()[::-1]), "wrong_atoms")


def test_a_long_force_is_flagged_and_no_fault(tmp_path: Path, version: str) -> None:
    folder = put(tmp_path, *texts(version))
    frame = judge_vasp(folder).frame
    assert frame is not None
    longest_eV_A = float(np.linalg.norm(frame.forces_eV_A, axis=1).max())
    above = judge_vasp(folder, force_ceiling_eV_A=0.99 * longest_eV_A)
    assert above.trusted and above.flags == ("force_ceiling",)
    assert judge_vasp(folder, force_ceiling_eV_A=1.01 * longest_eV_A).flags == ()


def _add(line: str, digits: str) -> str:
    """Change one digit of the last number of a line, counted from its point."""
    head, _, tail = line.rpartition(".")
    at = len(digits)
    return f"{head}.{tail[:at]}{(int(tail[at]) + 5) % 10}{tail[at + 1 :]}"


def test_files_of_different_runs_disagree(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    energy = edit_line(outcar, ENERGY, lambda line: _add(line, "00"))
    faulty(judge_vasp(put(tmp_path, energy, vasprun)), "disagreement", "energy", "eV")
    forces = edit_line(outcar, FORCES, lambda line: _add(line, "00"), offset=2)
    faulty(judge_vasp(put(tmp_path, forces, vasprun)), "disagreement", "forces")
    stress = edit_line(outcar, STRESS, lambda line: _add(line, "0"))
    faulty(judge_vasp(put(tmp_path, stress, vasprun)), "disagreement", "stress")
    relaxed = texts(version, RELAXATION)
    faulty(judge_vasp(put(tmp_path, outcar, relaxed[1])), "disagreement")
    faulty(judge_vasp(put(tmp_path, relaxed[0], vasprun)), "disagreement")
    renamed = vasprun.replace("PAW_PBE Si 05Jan2001", "PAW_PBE B 06Sep2000 ").replace("<c>Si</c>", "<c>B </c>")
    faulty(judge_vasp(put(tmp_path, outcar, renamed)), "disagreement", "atoms")


def test_a_step_of_a_machine_learned_force_field_is_no_label(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    later = "  free  energy ML TOTEN  =       -24.12738815 eV\n General timing and accounting"
    faulty(judge_vasp(put(tmp_path, outcar.replace(" General timing and accounting", later), None)), "no_energy")
    steps = ' </calculation>\n <varray name="forces" >\n  <v> 0.0 0.0 0.0 </v>\n </varray>\n'
    faulty(judge_vasp(put(tmp_path, None, vasprun.replace(" </calculation>\n", steps))), "no_energy", "machine-learned")
    prediction = later.partition("\n")[0] + "\n"
    first = edit_line(outcar, "Iteration", lambda line: prediction + line, which=0)
    assert judge_vasp(put(tmp_path, first, None), glass()).trusted


def test_species_that_the_outcar_cannot_tell_come_from_the_vasprun(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    short = edit_line(outcar, "ions per type", lambda line: f"{line.rstrip()[:-4]}\n")
    faulty(judge_vasp(put(tmp_path, short, None)), "unreadable", "vasprun.xml", "5 potentials")
    assert judge_vasp(put(tmp_path, short, vasprun), glass()).trusted
    forces = edit_line(short, FORCES, lambda line: _add(line, "00"), offset=2)
    faulty(judge_vasp(put(tmp_path, forces, vasprun)), "disagreement", "forces")


def test_a_potential_of_no_element(tmp_path: Path, version: str) -> None:
    outcar, vasprun = (text.replace("PAW_PBE Si 05Jan2001", "PAW_PBE Z 05Jan2001 ") for text in texts(version))
    faulty(judge_vasp(put(tmp_path, outcar, vasprun)), "unreadable", "element", "Z")
    named = texts(version)[1].replace("<c>Si</c>", "<c>X </c>")
    assert judge_vasp(put(tmp_path, None, named), glass()).trusted


def test_bytes_that_are_no_utf_8(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    folder = put(tmp_path, outcar, vasprun)
    (folder / "OUTCAR").write_bytes(outcar.replace(" POSCAR: ", " POSCAR: Gläser ", 1).encode("latin-1"))
    assert judge_vasp(folder, glass()).trusted


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files(tmp_path: Path, version: str, suffix: str, pack) -> None:
    outcar, vasprun = texts(version)
    packed = pack(outcar.encode())
    (tmp_path / f"OUTCAR.{suffix}").write_bytes(packed)
    (tmp_path / f"vasprun.xml.{suffix}").write_bytes(pack(vasprun.encode()))
    assert judge_vasp(tmp_path, glass()).trusted
    (tmp_path / f"OUTCAR.{suffix}").write_bytes(packed[: len(packed) // 2])
    faulty(judge_vasp(tmp_path, glass()), "truncated", f"OUTCAR.{suffix}")
    (tmp_path / f"OUTCAR.{suffix}").write_bytes(outcar.encode())
    faulty(judge_vasp(tmp_path, glass()), "unreadable", f"OUTCAR.{suffix}")
    (tmp_path / f"vasprun.xml.{suffix}").write_bytes(pack(vasprun.encode())[:3000])
    (tmp_path / f"OUTCAR.{suffix}").write_bytes(packed)
    faulty(judge_vasp(tmp_path, glass()), "truncated", f"vasprun.xml.{suffix}")


def test_a_folder_of_outputs(tmp_path: Path, version: str) -> None:
    outcar, vasprun = texts(version)
    put(tmp_path / "one", outcar, vasprun)
    put(tmp_path / "two" / "deep", outcar, None)
    three = put(tmp_path / "three", None, None)
    for name, text in {
        "OUTCAR.relax1": outcar,
        "OUTCAR_unconverged": outcar,
        "vasprun.relax1.xml": vasprun,
        "vasprun_x.xml": vasprun,
        "6362_OUTCAR": outcar,
        "vasprun.xml-001": vasprun,
        "outcar.py": "",
        "test_OUTCAR.py": "",
        "vaspruns.tar.lzma": "",
        "INCAR": "",
    }.items():
        (three / name).write_text(text)
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress(outcar.encode()))
    (three / "OUTCAR.relax1.gz").write_bytes(b"")
    runs = {run.name: run for run in find_outputs(tmp_path)}
    assert set(runs) == {
        "OUTCAR.gz",
        "one",
        "two/deep",
        "three/OUTCAR.relax1",
        "three/OUTCAR_unconverged",
        "three/vasprun_x.xml",
        "three/6362_OUTCAR",
        "three/vasprun.xml-001",
    }
    pair = runs["three/OUTCAR.relax1"]
    assert pair.outcar == three / "OUTCAR.relax1" and pair.vasprun == three / "vasprun.relax1.xml"
    assert all(judge_run(run, glass()).trusted for run in runs.values())
    assert judge_vasp(three / "vasprun_x.xml").trusted
    assert find_outputs(tmp_path / "three" / "nothing") == []


def same_numbers(verdict: Verdict, good: Verdict) -> bool:
    one, other = verdict.frame, good.frame
    assert one is not None and other is not None
    return (
        one.atoms.get_chemical_symbols() == other.atoms.get_chemical_symbols()
        and abs(one.energy_eV - other.energy_eV) < 1e-4
        and np.allclose(one.forces_eV_A, other.forces_eV_A, atol=1e-4)
        and np.allclose(one.virial_eV, other.virial_eV, atol=1e-3)
        and np.allclose(one.atoms.positions, other.atoms.positions, atol=1e-4)
        and np.allclose(one.atoms.cell, other.atoms.cell, atol=1e-4)
    )


FAULTS = {
    "nelm": "unconverged",
    "brmix": "unconverged",
    "edddav": "truncated",
    "zpotrf": "truncated",
    "crash": "truncated",
    "walltime": "truncated",
    "signal9": "truncated",
    "full_disk": "truncated",
    "empty": "empty",
    "nan_forces": "not_finite",
    "missing_stress": "no_stress",
    "merged_columns": "merged_columns",
    "wrong_order": "wrong_atoms",
    "wrong_cell": "wrong_cell",
    "disagree": "disagreement",
}


KNOWN = ("brmix", "edddav", "zpotrf", "no_space", "segmentation_fault")


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_of_the_double_is_told_apart(tmp_path, monkeypatch, capfd, version: str, name: str) -> None:
    write_inputs(tmp_path, SINGLE)
    monkeypatch.chdir(tmp_path)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"always": f"{name}_forever" if name in CURES else name}))
    if name in ("crash", "walltime", "signal9"):
        subprocess.run(double_command(version, plan), shell=True, check=False, timeout=60)
    else:
        with suppress(SystemExit):
            vasp_double.main(["--version", version, "--plan", str(plan)])
    faulty(judge_vasp(tmp_path, glass()), FAULTS[name])
    expected = {"full_disk": "no_space", "crash": "segmentation_fault"}.get(name, name)
    assert detected_errors("".join(capfd.readouterr())) == ([expected] if expected in KNOWN else [])


@pytest.mark.parametrize("kept", ["both", "OUTCAR", "vasprun.xml"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoilt_files_never_pass_with_other_numbers(tmp_path: Path, version: str, kept: str, data) -> None:
    pair = dict(
        zip(("OUTCAR", "vasprun.xml"), texts(version, data.draw(st.sampled_from([SINGLE, RELAXATION]))), strict=True)
    )
    pair = {name: text for name, text in pair.items() if kept in ("both", name)}
    good = judge_vasp(put(tmp_path, pair.get("OUTCAR"), pair.get("vasprun.xml")))
    assert good.trusted
    name = data.draw(st.sampled_from(sorted(pair)))
    how = data.draw(st.sampled_from(["cut", "line", "NaN"]))
    lines = pair[name].splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    if how == "cut":
        pair[name] = pair[name][: data.draw(st.integers(0, len(pair[name]) - 1))]
    elif how == "line":
        pair[name] = "".join(lines[:at] + lines[at + 1 :])
    else:
        mark, below = (FORCES, 2) if name == "OUTCAR" else ('"forces"', 1)
        row = data.draw(st.integers(0, 11))
        pair[name] = edit_line(pair[name], mark, lambda line: _to_nan(line, data), offset=below + row)
    verdict = judge_vasp(put(tmp_path, pair.get("OUTCAR"), pair.get("vasprun.xml")))
    if how == "NaN":
        faulty(verdict, "not_finite")
    elif verdict.trusted:
        assert same_numbers(verdict, good)


def _to_nan(line: str, data) -> str:
    words = line.split()
    numbers = [index for index, word in enumerate(words) if word[-1].isdigit()][-3:]
    words[data.draw(st.sampled_from(numbers))] = "NaN"
    return "  ".join(words) + "\n"
