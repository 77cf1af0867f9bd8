"""The double of VASP: its files are read alike by all readers, its numbers are known, its faults are what they say."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ase.io
import dpdata
import numpy as np
import pytest
import vasp_double
from ase import Atoms
from ase.build import sort
from double_plan import CURES

from alloop.glass.crystals import crystal

STANDARD = {"ENCUT": "600", "PREC": "Accurate", "ISMEAR": "0", "SIGMA": "0.05", "EDIFF": "1E-6", "ALGO": "Fast"}
VERSIONS = ("5.4.4", "6.3.2")
ENERGY_EV, FORCE_EV_A, PLACE_A = 1e-8, 1e-6, 1e-5  # what OUTCAR prints
TAIL = "General timing and accounting informations for this job:"


def distorted(name: str = "Li2SiO3") -> Atoms:
    atoms = sort(crystal(name))
    atoms.rattle(0.05, seed=3)
    strained = Atoms(cell=atoms.cell.array @ (np.eye(3) + 0.03 * np.tri(3))).cell
    atoms.set_cell(strained.standard_form()[0], scale_atoms=True)  # dpdata turns any other cell into this form
    return atoms


def blocks(atoms: Atoms) -> list[str]:
    symbols = atoms.get_chemical_symbols()
    return [s for i, s in enumerate(symbols) if i == 0 or symbols[i - 1] != s]


def apart_A(first: Atoms, second: Atoms) -> float:
    """Largest distance of an atom from the nearest image of its namesake."""
    difference = np.linalg.solve(first.cell.array.T, (first.positions - second.positions).T).T
    return float(np.abs((difference - np.round(difference)) @ first.cell.array).max())


@dataclass
class Finished:
    folder: Path
    code: int
    out: str

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def ase(self, name: str = "OUTCAR") -> Atoms:
        return ase.io.read(self.folder / name)

    def dpdata(self, name: str = "OUTCAR") -> dpdata.LabeledSystem:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = "vasp/outcar" if name == "OUTCAR" else "vasp/xml"
            return dpdata.LabeledSystem(str(self.folder / name), fmt=kind)


Run = Callable[..., Finished]


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Path]:
    library = vasp_double.make_potcar_library(tmp_path / "library")

    def make(
        atoms: Atoms, incar: Mapping[str, str] | None = None, species: list[str] | None = None, mesh: str = "1 1 1"
    ) -> Path:
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        folder.mkdir()
        ase.io.write(folder / "POSCAR", atoms, format="vasp", vasp5=True, direct=True)
        names = ["Li_sv" if symbol == "Li" else symbol for symbol in species or blocks(atoms)]
        (folder / "POTCAR").write_text(vasp_double.joined_potcar(library, names))
        (folder / "INCAR").write_text("".join(f"{k} = {v}\n" for k, v in (STANDARD | dict(incar or {})).items()))
        (folder / "KPOINTS").write_text(f"mesh\n0\nGamma\n{mesh}\n0 0 0\n")
        return folder

    return make


@pytest.fixture
def run(prepare: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the double in this process."""

    def go(atoms: Atoms, *arguments: str, **inputs: object) -> Finished:
        folder = prepare(atoms, **inputs)
        monkeypatch.chdir(folder)
        capsys.readouterr()
        code = vasp_double.main(list(arguments))
        out = capsys.readouterr().out
        (folder / "vasp.out").write_text(out)
        return Finished(folder, code, out)

    return go


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., str]:
    def write(**content: object) -> str:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


def logged(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


# --- what a good run tells


@pytest.mark.parametrize("version", VERSIONS)
def test_dpdata_reads_the_expected_numbers_from_both_outputs(run: Run, version: str) -> None:
    atoms = distorted()
    energy, forces, virial = vasp_double.expected(atoms)
    done = run(atoms, "--version", version)
    assert done.code == 0
    for name in ("OUTCAR", "vasprun.xml"):
        system = done.dpdata(name)
        assert len(system) == 1
        assert [system["atom_names"][t] for t in system["atom_types"]] == atoms.get_chemical_symbols()
        assert abs(system["energies"][0] - energy) < ENERGY_EV
        assert np.abs(system["forces"][0] - forces).max() < FORCE_EV_A
        assert np.abs(system["virials"][0] - virial).max() < 1e-5  # 5 decimals of kB, and dpdata's own constant
        assert np.abs(system["cells"][0] - atoms.cell.array).max() < 1e-8


@pytest.mark.parametrize("version", VERSIONS)
def test_ase_reads_the_expected_numbers_from_both_outputs(run: Run, version: str) -> None:
    atoms = distorted()
    energy, forces, virial = vasp_double.expected(atoms)
    done = run(atoms, "--version", version)
    for name in ("OUTCAR", "vasprun.xml"):
        (found,) = ase.io.read(done.folder / name, index=":")
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        assert abs(found.get_potential_energy() - energy) < ENERGY_EV
        assert abs(found.get_potential_energy(force_consistent=True) - energy) < ENERGY_EV
        assert np.abs(found.get_forces() - forces).max() < FORCE_EV_A
        assert np.abs(-found.get_stress(voigt=False) * atoms.get_volume() - virial).max() < 1e-5
        assert apart_A(atoms, found) < PLACE_A


@pytest.mark.filterwarnings("ignore:POTCAR data with symbol")
@pytest.mark.parametrize("version", VERSIONS)
def test_pymatgen_and_custodian_read_a_good_run(run: Run, version: str) -> None:
    outputs = pytest.importorskip("pymatgen.io.vasp")
    handlers = pytest.importorskip("custodian.vasp.handlers")
    atoms = distorted()
    energy, forces, _ = vasp_double.expected(atoms)
    done = run(atoms, "--version", version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xml = outputs.Vasprun(done.folder / "vasprun.xml", parse_potcar_file=False)
        outcar, oszicar = outputs.Outcar(done.folder / "OUTCAR"), outputs.Oszicar(done.folder / "OSZICAR")
        titles = [single.TITEL for single in outputs.Potcar.from_file(done.folder / "POTCAR")]
        checks = [
            handlers.VaspErrorHandler(output_filename="vasp.out").check(directory=str(done.folder)),
            handlers.UnconvergedErrorHandler().check(directory=str(done.folder)),
        ]
    assert xml.converged and xml.vasp_version.startswith(version) and xml.incar["ENCUT"] == 600
    assert len(xml.ionic_steps[0]["electronic_steps"]) == len(oszicar.electronic_steps[0])
    assert abs(float(xml.final_energy) - energy) < 2 * ENERGY_EV and abs(outcar.final_energy - energy) < ENERGY_EV
    assert abs(oszicar.final_energy - energy) < 1e-6 * abs(energy)
    assert np.abs(np.array(xml.ionic_steps[-1]["forces"]) - forces).max() < FORCE_EV_A
    assert outcar.run_stats["cores"] == 4 and outcar.efermi is not None
    assert titles == ["PAW_PBE Li_sv 10Sep2004", "PAW_PBE O 08Apr2002", "PAW_PBE Si 05Jan2001"]
    assert checks == [False, False]
    assert np.allclose(outputs.Poscar.from_file(done.folder / "CONTCAR").structure.lattice.matrix, atoms.cell.array)
    assert len(outputs.Xdatcar(done.folder / "XDATCAR").structures) == 1


def test_a_compressed_cell_pushes_outwards(run: Run) -> None:
    """VASP's `in kB` is positive, ASE's stress negative and the virial positive where a cell wants to expand."""
    atoms = distorted()
    atoms.set_cell(0.9 * atoms.cell.array, scale_atoms=True)
    assert np.trace(vasp_double.expected(atoms)[2]) > 0
    done = run(atoms)
    line = next(line for line in done.text("OUTCAR").splitlines() if line.startswith("  in kB"))
    assert all(float(word) > 0 for word in line.split()[2:5])
    assert all(np.linalg.eigvalsh(done.ase().get_stress(voigt=False)) < 0)
    assert np.trace(done.dpdata("vasprun.xml")["virials"][0]) > 0


def test_versions_write_their_own_first_line(run: Run) -> None:
    heads = {version: run(distorted(), "--version", version).text("OUTCAR")[:200] for version in VERSIONS}
    assert heads["5.4.4"].startswith(" vasp.5.4.4.18Apr17-6-g9f103f2a35 (build ")
    assert heads["6.3.2"].startswith(" vasp.6.3.2 27Jun22 (build ")


def test_large_files_appear_unless_switched_off(run: Run) -> None:
    written = run(distorted()).folder
    assert (written / "WAVECAR").stat().st_size > 0 and (written / "CHGCAR").stat().st_size > 0
    quiet = run(distorted(), incar={"LWAVE": ".FALSE.", "LCHARG": "F"}).folder
    assert not (quiet / "WAVECAR").exists() and not (quiet / "CHGCAR").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_species_in_several_blocks(run: Run, version: str) -> None:
    """`O B O` in POSCAR needs three datasets in POTCAR."""
    atoms = sort(
        distorted("B2O3-I"), tags=[{"B": 1}.get(s, 2 * (i % 2)) for i, s in enumerate(crystal("B2O3-I").symbols)]
    )
    assert blocks(atoms) == ["O", "B", "O"]
    forces = vasp_double.expected(atoms)[1]
    done = run(atoms, "--version", version)
    for name in ("OUTCAR", "vasprun.xml"):
        found = done.ase(name)
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        assert np.abs(found.get_forces() - forces).max() < FORCE_EV_A
        system = done.dpdata(name)
        order = [system["atom_names"][t] for t in system["atom_types"]]
        assert order == atoms.get_chemical_symbols()
        assert np.abs(system["forces"][0] - forces).max() < FORCE_EV_A


@pytest.mark.parametrize("version", VERSIONS)
def test_the_potcar_wins_over_the_poscar_and_vasp_warns(run: Run, plan: Callable[..., str], version: str) -> None:
    atoms = distorted("B2O3-I")
    swapped = Atoms([{"B": "O", "O": "B"}[s] for s in atoms.symbols], atoms.positions, cell=atoms.cell, pbc=True)
    done = run(atoms, "--version", version, "--plan", plan(log="log.jsonl"), species=["O", "B"])
    assert "WARNING: type information on POSCAR and POTCAR are incompatible" in done.out
    assert "POTCAR overwrites the type information in POSCAR" in done.out
    assert done.ase("vasprun.xml").get_chemical_symbols() == swapped.get_chemical_symbols()
    assert abs(done.ase().get_potential_energy() - vasp_double.expected(swapped)[0]) < ENERGY_EV
    (entry,) = logged(done.folder.parent)
    assert entry["species_poscar"] == atoms.get_chemical_symbols()
    assert entry["species_potcar"] == swapped.get_chemical_symbols()
    assert (
        entry["hash"]
        == vasp_double.structure_hash(swapped)
        == vasp_double.structure_hash(vasp_double.atoms_of(done.folder))
    )
    assert "WARNING" not in run(atoms).out


def test_too_short_a_potcar_is_refused(run: Run) -> None:
    done = run(distorted(), species=["Li"])
    assert done.code != 0 and "number of potentials on File POTCAR" in done.out


# --- the level of theory


@pytest.mark.parametrize(
    "changed",
    [{"ENCUT": "500"}, {"PREC": "Normal"}, {"SIGMA": "0.2"}, {"ISMEAR": "1"}, {"GGA": "PS"}, {"mesh": "2 2 2"}],
)
def test_another_level_of_theory_shifts_the_energy_alone(run: Run, changed: dict[str, str]) -> None:
    atoms = distorted()
    energy, forces, _ = vasp_double.expected(atoms)
    inputs = {"mesh": changed["mesh"]} if "mesh" in changed else {"incar": changed}
    found = run(atoms, **inputs).ase()
    assert 1e-4 < abs(found.get_potential_energy() - energy) / len(atoms) < 0.05
    assert np.abs(found.get_forces() - forces).max() < FORCE_EV_A


def test_tags_that_only_help_the_electrons_change_nothing(run: Run) -> None:
    atoms = distorted()
    helped = {"ALGO": "All", "AMIX": "0.1", "BMIX": "0.01", "NCORE": "4", "ISYM": "0", "NELM": "200", "LWAVE": "F"}
    del (plain := dict(STANDARD))["PREC"]
    for incar in (helped, plain):
        assert abs(run(atoms, incar=incar).ase().get_potential_energy() - vasp_double.expected(atoms)[0]) < ENERGY_EV


# --- steps


@pytest.mark.parametrize("version", VERSIONS)
def test_too_few_electronic_steps_give_wrong_numbers(run: Run, version: str) -> None:
    atoms = distorted()
    energy, forces, _ = vasp_double.expected(atoms)
    done = run(atoms, "--version", version, incar={"NELM": "6"})
    text = done.text("OUTCAR")
    assert text.count("Iteration      1(") == 6
    assert ("aborting loop because EDIFF is reached" in text) == (version == "5.4.4")
    assert ("aborting loop EDIFF was not reached (unconverged)" in text) == (version == "6.3.2")
    assert ("The electronic self-consistency was not achieved" in done.out) == (version == "6.3.2")
    assert abs(done.ase().get_potential_energy() - energy) > 1e-3
    assert np.abs(done.ase().get_forces() - forces).max() > 1e-3
    assert len(done.dpdata()) == 0 and len(done.dpdata("vasprun.xml")) == 0
    handlers = pytest.importorskip("custodian.vasp.handlers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert handlers.UnconvergedErrorHandler().check(directory=str(done.folder))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("isif", [2, 3])
def test_a_relaxation_goes_downhill_in_steps_written_in_full(run: Run, version: str, isif: int) -> None:
    atoms = distorted()
    done = run(atoms, "--version", version, incar={"NSW": "20", "IBRION": "2", "ISIF": str(isif), "EDIFFG": "-0.3"})
    for name in ("OUTCAR", "vasprun.xml"):
        frames = ase.io.read(done.folder / name, index=":")
        assert 3 < len(frames) <= 20
        assert frames[-1].get_potential_energy() < frames[0].get_potential_energy() - 0.1
        assert (np.abs(frames[-1].cell - atoms.cell).max() > 0.01) == (isif == 3)
        for frame in (frames[1], frames[-1]):
            energy, forces, _ = vasp_double.expected(frame)
            assert abs(frame.get_potential_energy() - energy) < 1e-3  # OUTCAR has places to 5 decimals
            assert np.abs(frame.get_forces() - forces).max() < 2e-3
        assert len(done.dpdata(name)) == len(frames)
    reached = "reached required accuracy - stopping structural energy minimisation"
    assert (reached in done.text("OUTCAR")) == (len(frames) < 20)
    last = ase.io.read(done.folder / "CONTCAR", format="vasp")
    assert apart_A(last, frames[-1]) < PLACE_A


def test_a_relaxation_ends_at_nsw(run: Run) -> None:
    done = run(distorted(), incar={"NSW": "3", "IBRION": "2", "EDIFFG": "-1E-4"})
    assert len(ase.io.read(done.folder / "OUTCAR", index=":")) == 3
    assert "reached required accuracy" not in done.out


# --- who meets which fault


def test_the_hash_of_a_structure_does_not_know_orders_images_or_folders(prepare: Callable[..., Path]) -> None:
    atoms = distorted()
    key = vasp_double.structure_hash(atoms)
    shuffled = atoms[np.random.default_rng(1).permutation(len(atoms))]
    shuffled.positions += shuffled.cell.array[0] - 2 * shuffled.cell.array[2]
    assert vasp_double.structure_hash(shuffled) == key
    assert vasp_double.structure_hash(vasp_double.atoms_of(prepare(sort(shuffled)))) == key
    moved = atoms.copy()
    moved.positions[0] += 0.02
    assert vasp_double.structure_hash(moved) != key


def test_faults_are_drawn_with_their_probabilities_and_only_for_the_chosen(plan: Callable[..., str]) -> None:
    keys = [f"{number:016x}" for number in range(2000)]
    read = vasp_double.read_plan(Path(plan(seed=1, faults={"hang": 0.1, "nelm": 0.3})))
    faults = [read.fault(key) for key in keys]
    assert faults == [read.fault(key) for key in keys]
    assert 0.07 < faults.count("hang") / 2000 < 0.13 and 0.25 < faults.count("nelm") / 2000 < 0.35
    other = vasp_double.read_plan(Path(plan(seed=2, faults={"hang": 0.1, "nelm": 0.3})))
    assert faults != [other.fault(key) for key in keys]
    chosen = vasp_double.read_plan(Path(plan(always="crash", only=keys[:1])))
    assert [chosen.fault(key) for key in keys[:3]] == ["crash", None, None]


@pytest.mark.parametrize(
    "content",
    [{"faults": {"hangs": 0.1}}, {"fault": {}}, {"faults": {"hang": 0.6, "nelm": 0.6}}, {"transient": {"hang": 1}}],
)
def test_a_plan_with_a_mistake_is_refused(plan: Callable[..., str], content: dict) -> None:
    with pytest.raises(ValueError, match=r"unknown|add up|state"):
        vasp_double.read_plan(Path(plan(**content)))


def test_a_transient_fault_is_over_after_its_runs(run: Run, plan: Callable[..., str], tmp_path: Path) -> None:
    path = plan(always="missing_stress", transient={"missing_stress": 2}, state="state", log="log.jsonl")
    stresses = ["in kB" in run(distorted(), "--plan", path).text("OUTCAR") for _ in range(3)]
    assert stresses == [False, False, True]
    assert "in kB" not in run(distorted("B2O3-I"), "--plan", path).text("OUTCAR")
    assert [(entry["run"], entry["fault"]) for entry in logged(tmp_path)][:3] == [
        (1, "missing_stress"),
        (2, "missing_stress"),
        (3, None),
    ]
    assert "PATH" in logged(tmp_path)[0]["environment"] and logged(tmp_path)[0]["incar"]["ENCUT"] == "600"


# --- faults a change of tags cures


CURING = {
    "nelm": [{"NELM": "200"}, {"ALGO": "Normal"}, {"ALGO": "All"}],
    "edddav": [{"ALGO": "All"}, {"ALGO": "Damped"}],
    "zpotrf": [{"NCORE": "1"}, {"ALGO": "All"}, {"ISTART": "0", "ICHARG": "2"}],
    "brmix": [{"AMIX": "0.1", "BMIX": "0.01"}, {"ISYM": "0"}, {"ISTART": "0", "ICHARG": "2"}],
}
NO_CURE = {"nelm": {"NELM": "100"}, "edddav": {"NCORE": "1"}, "zpotrf": {"AMIX": "0.1"}, "brmix": {"NELM": "200"}}


@pytest.mark.parametrize("fault", sorted(CURES))
def test_a_curable_fault_is_cured_by_the_right_tags_alone(run: Run, plan: Callable[..., str], fault: str) -> None:
    atoms = distorted()
    energy = vasp_double.expected(atoms)[0]

    def good(incar: dict[str, str], always: str = fault, **more: object) -> bool:
        done = run(atoms, "--plan", plan(always=always, **more), incar=incar)
        if done.code or TAIL not in done.text("OUTCAR"):
            return False
        return abs(done.ase().get_potential_energy() - energy) < ENERGY_EV

    assert not good({}) and not good(NO_CURE[fault])
    assert all(good(tags) for tags in CURING[fault])
    assert not any(good(tags, f"{fault}_forever") for tags in CURING[fault])
    assert not good(CURING[fault][0], cures={fault: []})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", ["edddav", "zpotrf", "brmix"])
def test_custodian_knows_the_messages(run: Run, plan: Callable[..., str], version: str, fault: str) -> None:
    handlers = pytest.importorskip("custodian.vasp.handlers")
    done = run(distorted(), "--version", version, "--plan", plan(always=fault))
    handler = handlers.VaspErrorHandler(output_filename="vasp.out")
    assert handler.check(directory=str(done.folder))
    assert handler.errors == {fault}
    assert (TAIL in done.text("OUTCAR")) == (fault == "brmix")
    assert done.code == (0 if version == "5.4.4" or fault == "brmix" else 1)
    assert ("I REFUSE TO CONTINUE" in done.text("OUTCAR")) == (version == "6.3.2" and fault != "brmix")


def test_nelm_runs_up_to_nelm(run: Run, plan: Callable[..., str]) -> None:
    done = run(distorted(), "--plan", plan(always="nelm"), incar={"NELM": "40"})
    assert done.text("OUTCAR").count("Iteration      1(") == 40
    patient = run(distorted(), "--plan", plan(always="nelm"), incar={"NELM": "200"})
    assert 100 < patient.text("OUTCAR").count("Iteration      1(") < 200


# --- faults that write wrong numbers


@pytest.mark.parametrize("version", VERSIONS)
def test_forces_that_are_no_numbers(run: Run, plan: Callable[..., str], version: str) -> None:
    done = run(distorted(), "--version", version, "--plan", plan(always="nan_forces"))
    assert "           NaN           NaN           NaN\n" in done.text("OUTCAR")
    assert "NaN" in done.text("vasprun.xml")
    assert np.isnan(done.ase().get_forces()).any() and np.isnan(done.dpdata()["forces"]).any()


def test_missing_stress(run: Run, plan: Callable[..., str]) -> None:
    done = run(distorted(), "--plan", plan(always="missing_stress"))
    assert "in kB" not in done.text("OUTCAR") and 'name="stress"' not in done.text("vasprun.xml")
    assert "virials" not in done.dpdata().data


def test_merged_columns(run: Run, plan: Callable[..., str]) -> None:
    text = run(distorted(), "--plan", plan(always="merged_columns")).text("OUTCAR")
    assert "-123456.789012-123456.789012-123456.789012\n" in text and "*" * 14 in text
    assert "-12345.67891-12345.67891-12345.67891" in text


def test_wrong_order(run: Run, plan: Callable[..., str]) -> None:
    atoms = distorted()
    forces = vasp_double.expected(atoms)[1]
    done = run(atoms, "--plan", plan(always="wrong_order"))
    for name in ("OUTCAR", "vasprun.xml"):
        found = done.ase(name)
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        assert apart_A(atoms[::-1], found) < PLACE_A
        assert np.abs(found.get_forces() - forces[::-1]).max() < FORCE_EV_A


def test_wrong_cell(run: Run, plan: Callable[..., str]) -> None:
    atoms = distorted()
    done = run(atoms, "--plan", plan(always="wrong_cell"))
    for name in ("OUTCAR", "vasprun.xml"):
        assert np.allclose(done.ase(name).cell, 1.02 * atoms.cell, atol=1e-6)


def test_outputs_that_disagree(run: Run, plan: Callable[..., str]) -> None:
    atoms = distorted()
    done = run(atoms, "--plan", plan(always="disagree"))
    assert np.abs(done.ase().get_forces() - vasp_double.expected(atoms)[1]).max() < FORCE_EV_A
    assert np.abs(done.ase().get_forces() - done.ase("vasprun.xml").get_forces()).max() == pytest.approx(0.05, abs=1e-5)


def test_empty_outputs_of_a_run_that_says_it_went_well(run: Run, plan: Callable[..., str]) -> None:
    done = run(distorted(), "--plan", plan(always="empty"))
    assert done.code == 0 and done.text("OUTCAR") == "" and not (done.folder / "vasprun.xml").exists()


# --- runs as processes of their own


def command(version: str, plan: str | None = None) -> list[str]:
    return shlex.split(vasp_double.double_command(version, None if plan is None else Path(plan)))


@pytest.mark.parametrize(
    ("fault", "code"),
    [("crash", -signal.SIGSEGV), ("walltime", -signal.SIGTERM), ("signal9", -signal.SIGKILL), ("full_disk", 38)],
)
def test_interrupted_runs(prepare: Callable[..., Path], plan: Callable[..., str], fault: str, code: int) -> None:
    folder = prepare(distorted())
    ended = subprocess.run(command("5.4.4", plan(always=fault)), cwd=folder, capture_output=True, text=True)
    assert ended.returncode == code
    outcar = (folder / "OUTCAR").read_text()
    assert len(outcar) > 1000 and TAIL not in outcar
    assert "</modeling>" not in (folder / "vasprun.xml").read_text()
    assert (folder / "CONTCAR").read_text() == ""
    assert ("No space left on device" in ended.stdout and "No space left" in ended.stderr) == (fault == "full_disk")


def test_a_hanging_run_neither_ends_nor_writes(prepare: Callable[..., Path], plan: Callable[..., str]) -> None:
    folder = prepare(distorted())
    process = subprocess.Popen(command("6.3.2", plan(always="hang")), cwd=folder, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not ((folder / "OUTCAR").exists() and (folder / "OUTCAR").stat().st_size > 1000):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert TAIL not in (folder / "OUTCAR").read_text() and (folder / "vasprun.xml").read_text() == ""
    finally:
        process.kill()
        process.wait()


def test_the_command_runs_in_a_shell_and_processes_share_a_plan(
    prepare: Callable[..., Path], plan: Callable[..., str], tmp_path: Path
) -> None:
    path = plan(state="state", log="log.jsonl")
    folders = [prepare(distorted()) for _ in range(6)]
    line = vasp_double.double_command("6.3.2", Path(path))

    def go(folder: Path) -> int:
        return subprocess.run(line, shell=True, cwd=folder, stdout=subprocess.DEVNULL).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(go, folders)) == [0] * 6
    assert sorted(entry["run"] for entry in logged(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert {entry["cwd"] for entry in logged(tmp_path)} == {str(folder) for folder in folders}
