"""Labels by VASP through its double: inputs in the right order, clean runs, recovery, and no wrong label ever."""

from __future__ import annotations

import json
import re
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import numpy as np
import pytest
import vasp_double
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop import config
from alloop.labelers import levels
from alloop.labelers.code import CodeFault, CodeLabel, _run_script, label_with_code, tried_before
from alloop.labelers.vasp.code import RECIPES, Vasp
from alloop.labelers.vasp.inputs import FREE_TAGS, blocks
from alloop.resources import shipped_templates
from alloop.store import write_json

ELEMENTS = ["Li", "B", "O", "Si"]


def atoms_of(symbols: list[str], seed: int = 1) -> Atoms:
    """Atoms on a jittered grid of 2.3 Å in a cell of no special orientation."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(len(symbols) ** (1 / 3)))
    grid = 2.3 * np.stack(np.meshgrid(*[range(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[: len(symbols)]
    atoms = Atoms(symbols, positions=grid + rng.uniform(-0.2, 0.2, grid.shape), cell=[2.3 * side] * 3, pbc=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3))), scale_atoms=True)
    return atoms


class Site:
    """A campaign folder with templates, a POTCAR library and the double as its VASP."""

    def __init__(self, root: Path, version: str = "6.3.2", **run: Any) -> None:
        self.root = root
        vasp_double.make_potcar_library(root / "potpaw", vasp_double.GLASS_POTENTIALS)
        self.plan: dict[str, Any] = {"log": "runs.jsonl", "state": "state", "seed": 1}
        command = vasp_double.double_command(version, root / "plan.json")
        vasp = {"potcar_library": "potpaw", "potcars": {"Li": "Li_sv"}}
        self.param: dict[str, Any] = {"labeler": "vasp", "vasp": vasp, "run": {"command": command} | run}

    def label(self, atoms: Atoms, tried: list[dict[str, Any]] | None = None, **about: Any) -> CodeLabel:
        (self.root / "plan.json").write_text(json.dumps(self.plan))
        label = config.LabelParam.model_validate(self.param)
        level = levels.target_level(label, ELEMENTS, self.root)
        code, settings_ = levels.open_code(level.content, levels.run_settings(label, ELEMENTS, self.root), about)
        return label_with_code(code, settings_, atoms, self.root / "work", tried)

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "runs.jsonl").read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def assert_right(found: CodeLabel, atoms: Atoms) -> None:
    """The label is what the double's force field gives for these atoms, in their order and their cell's orientation."""
    energy_eV, forces_eV_A, virial_eV = vasp_double.expected(atoms)
    assert found.frame.energy_eV == pytest.approx(energy_eV, abs=1e-6)
    np.testing.assert_allclose(found.frame.forces_eV_A, forces_eV_A, atol=2e-6)
    np.testing.assert_allclose(found.frame.virial_eV, virial_eV, atol=1e-5 * atoms.get_volume())
    assert found.frame.atoms.get_chemical_symbols() == atoms.get_chemical_symbols()


@pytest.mark.parametrize("version", ["5.4.4", "6.3.2"])
def test_label_is_the_force_fields_in_the_asked_order_and_orientation(tmp_path: Path, version: str) -> None:
    site = Site(tmp_path, version)
    atoms = atoms_of(["O", "Si", "O", "Li", "B", "O", "Li", "O", "B", "O", "O", "O"])
    found = site.label(atoms)
    assert_right(found, atoms)
    assert (found.corrections, found.return_code) == ([], 0)
    assert found.verdict.version is not None and version[0] in found.verdict.version
    assert found.verdict.potentials[0] == vasp_double.GLASS_POTENTIALS["O"]
    assert not any((found.folder / name).exists() for name in ("POTCAR", "WAVECAR", "CHGCAR"))


ORDERS = [order for count in range(1, 5) for order in permutations(ELEMENTS, count)]


@pytest.mark.parametrize("number", range(0, len(ORDERS), 9))
def test_double_reads_the_species_of_poscar(site: Site, number: int) -> None:
    atoms = atoms_of([*ORDERS[number], *ORDERS[number][::-1], "O"][:9], seed=number)
    assert_right(site.label(atoms), atoms)
    assert all(run["species_poscar"] == run["species_potcar"] for run in site.runs())


def test_potcar_follows_poscar_for_every_subset_and_order(site: Site, tmp_path: Path) -> None:
    label = config.LabelParam.model_validate(site.param)
    how = levels.run_settings(label, ELEMENTS, tmp_path)
    code, _ = levels.open_code(levels.target_level(label, ELEMENTS, tmp_path).content, how, {})
    for number, order in enumerate(ORDERS):
        rng = np.random.default_rng(number)
        written = code.write(tmp_path, atoms_of(rng.permutation([*order, *order, "O"]).tolist()), {})
        poscar = ase.io.read(tmp_path / "POSCAR", format="vasp")
        read = re.findall(r"VRHFIN\s*=\s*(\w+)", (tmp_path / "POTCAR").read_text())
        assert [symbol for symbol, _ in blocks(poscar.get_chemical_symbols())] == read
        assert poscar.get_chemical_symbols() == written.get_chemical_symbols()


def test_run_sees_a_clean_environment_of_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    site.param["run"]["environment"] = {"OMP_STACKSIZE": "512m"}
    site.label(atoms_of(["Li", "O", "B"]))
    seen = set(site.runs()[0]["environment"])
    assert {"SLURM_JOB_ID", "OMP_STACKSIZE", "HOME", "OMP_NUM_THREADS"} <= seen
    assert not {"VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH"} & seen


def test_gamma_command_is_used_for_the_gamma_point_only(site: Site) -> None:
    gamma = f"env GAMMA=1 {site.param['run']['command']}"
    site.param["run"]["command_gamma"] = gamma
    site.label(atoms_of(["Li", "O", "B"]))
    site.param["vasp"]["kpoint_spacing_inv_A"] = 0.5
    site.label(atoms_of(["Li", "O", "B"]))
    assert ["GAMMA" in run["environment"] for run in site.runs()] == [True, False]


def test_scratch_is_used_and_left_clean(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_LOCAL", str(tmp_path / "node"))
    site.param["run"]["scratch"] = "$NODE_LOCAL/alloop"
    found = site.label(atoms_of(["Li", "O", "B"]))
    assert site.runs()[0]["cwd"].startswith(str(tmp_path / "node"))
    assert (found.folder / "OUTCAR").is_file() and list((tmp_path / "node" / "alloop").iterdir()) == []
    site.param["run"]["scratch"] = "$NOT_SET_HERE"
    with pytest.raises(CodeFault, match="NOT_SET_HERE"):
        site.label(atoms_of(["Li", "O", "B"]))


@pytest.mark.parametrize(
    ("fault", "version"),
    [("nelm", "5.4.4"), ("nelm", "6.3.2"), ("edddav", "6.3.2"), ("zpotrf", "5.4.4"), ("brmix", "6.3.2")],
)
def test_what_an_expert_can_cure_is_cured_and_recorded(tmp_path: Path, fault: str, version: str) -> None:
    site = Site(tmp_path, version)
    site.plan["always"] = fault
    atoms = atoms_of(["Li", "O", "B", "O", "Si", "O"])
    found = site.label(atoms)
    assert_right(found, atoms)
    assert found.corrections and all(set(correction) <= FREE_TAGS for correction in found.corrections)
    deciding = [{tag: v for tag, v in run["incar"].items() if tag not in FREE_TAGS} for run in site.runs()]
    assert len(deciding) > 1 and all(tags == deciding[0] for tags in deciding)


CLASSES = {
    "nelm_forever": "unconverged",
    "edddav_forever": "edddav",
    "zpotrf_forever": "zpotrf",
    "brmix_forever": "brmix",
    "crash": "crash",
    "walltime": "killed",
    "signal9": "killed",
    "full_disk": "disk_full",
    "empty": "empty",
    "nan_forces": "not_finite",
    "missing_stress": "no_stress",
    "merged_columns": "merged_columns",
    "wrong_order": "wrong_atoms",
    "wrong_cell": "wrong_cell",
    "disagree": "disagreement",
}


@pytest.mark.parametrize(("fault", "version"), list(zip(CLASSES, ["5.4.4", "6.3.2"] * 8, strict=False)))
def test_what_cannot_be_cured_is_told_apart(tmp_path: Path, fault: str, version: str) -> None:
    site = Site(tmp_path, version)
    site.plan["always"] = fault
    with pytest.raises(CodeFault) as caught:
        site.label(atoms_of(["Li", "O", "B", "O", "Si", "O"]))
    assert caught.value.kind == CLASSES[fault], str(caught.value)
    assert caught.value.final == (fault not in ("walltime", "signal9", "full_disk"))


@pytest.mark.parametrize(
    ("said", "code", "kind", "final"),
    [
        ("srun: error: Unable to create step for job 7: Job/step already completing or completed", 1, "killed", False),
        ("Error EDDDAV: Call to ZHEGV failed. Returncode = 20", 137, "edddav", True),
        ("", 137, "killed", False),
    ],
)
def test_what_srun_returns_is_told_from_what_vasp_said(
    site: Site, said: str, code: int, kind: str, final: bool
) -> None:
    """A job that ends makes every new step fail; ranks killed because one gave up are no signal from outside."""
    site.param["run"]["command"] = f"sh -c 'echo \"{said}\"; exit {code}'"
    with pytest.raises(CodeFault) as caught:
        site.label(atoms_of(["Li", "O", "B"]))
    assert (caught.value.kind, caught.value.final) == (kind, final)


def test_hanging_run_is_ended(site: Site) -> None:
    site.plan["always"] = "hang"
    site.param["run"]["silent_minutes"] = 0.05
    with pytest.raises(CodeFault, match="without output") as caught:
        site.label(atoms_of(["Li", "O", "B"]))
    assert caught.value.kind == "hang"
    assert len(json.loads((site.root / "work" / "tried.json").read_text())) == 1


def test_run_beyond_its_time_limit_is_ended(site: Site) -> None:
    site.plan |= {"always": "hang", "transient": {"hang": 1}}
    site.param["run"]["timeout_minutes"] = 0.08
    atoms = atoms_of(["Li", "O", "B"])
    assert_right(site.label(atoms), atoms)


def test_missing_program_is_a_crash_that_names_it(site: Site) -> None:
    site.param["run"]["command"] = "/nowhere/vasp_std"
    with pytest.raises(CodeFault) as caught:
        site.label(atoms_of(["Li", "O", "B"]))
    assert caught.value.kind == "crash"


def test_force_ceiling_flags_but_overlaps_are_meant(site: Site) -> None:
    atoms = atoms_of(["Li", "O", "B", "O"])
    largest = float(np.linalg.norm(vasp_double.expected(atoms)[1], axis=1).max())
    site.param["run"]["force_ceiling_eV_A"] = largest / 2
    assert site.label(atoms).verdict.flags == ("force_ceiling",)
    assert site.label(atoms, reason="overlap").verdict.flags == ()


def test_overrides_of_a_glass_and_an_event_reach_the_incar(site: Site) -> None:
    site.param["vasp"] |= {"incar_by_glass": {"G": {"NCORE": 2}}, "incar_by_event": {"overlap": {"algo": "All"}}}
    site.label(atoms_of(["Li", "O", "B"]), glass="G", reason="overlap")
    assert site.runs()[0]["incar"]["NCORE"] == "2" and site.runs()[0]["incar"]["ALGO"] == "All"


def test_interrupted_attempt_goes_on_with_the_correction_it_had_reached(site: Site, tmp_path: Path) -> None:
    site.plan["always"] = "edddav_forever"
    with pytest.raises(CodeFault):
        site.label(atoms_of(["Li", "O", "B"]))
    history = tried_before([tmp_path / "nothing", tmp_path / "work"])
    assert len(history) == len(RECIPES["edddav"])
    (tmp_path / "runs.jsonl").unlink()
    with pytest.raises(CodeFault):
        site.label(atoms_of(["Li", "O", "B"]), tried=history[:1])
    assert len(site.runs()) == len(history)


def test_retried_label_begins_anew_once_it_had_failed_for_good(tmp_path: Path) -> None:
    works = [tmp_path / name / "work" for name in ("new", "given_up", "interrupted")]
    for work in works:
        work.mkdir(parents=True)
    for work in works[1:]:
        write_json(work / "tried.json", [{"faults": ["unconverged"], "next": {"ALGO": "All", "NELM": 200}}])
    assert len(tried_before(works)) == 1
    write_json(works[1].parent / "failed.json", {"class": "unconverged", "final": False})
    assert len(tried_before(works)) == 1
    write_json(works[1].parent / "failed.json", {"class": "unconverged", "final": True})
    assert tried_before(works) == []


def test_potcar_that_changed_under_the_campaign_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    label = config.LabelParam.model_validate(site.param)
    level = levels.target_level(label, ELEMENTS, tmp_path)
    how = levels.run_settings(label, ELEMENTS, tmp_path)
    file = Path(how["potcars"]["O"])
    file.write_bytes(file.read_bytes().replace(b"PAW_PBE O ", b"PAW_PBE O_"))
    code, settings_ = levels.open_code(level.content, how, {})
    with pytest.raises(CodeFault, match="alloop relabel") as caught:
        label_with_code(code, settings_, atoms_of(["Li", "O"]), tmp_path / "work")
    assert caught.value.kind == "config"


# ---------------------------------------------------------------------------------------- level of theory


def test_level_is_what_decides_the_numbers_and_nothing_else(site: Site, tmp_path: Path) -> None:
    def name(**changes: Any) -> str:
        incar = (shipped_templates() / "vasp" / "INCAR").read_text()
        for tag, value in changes.pop("incar", {}).items():
            incar = f"{tag} = {value}\n{incar}"
        (tmp_path / "templates" / "vasp").mkdir(parents=True, exist_ok=True)
        (tmp_path / "templates" / "vasp" / "INCAR").write_text(incar)
        param = site.param | {"vasp": site.param["vasp"] | changes}
        return levels.target_level(config.LabelParam.model_validate(param), ELEMENTS, tmp_path).name

    standard = name()
    for tags in ({"ALGO": "All"}, {"NELM": 300}, {"NCORE": 8}, {"ISYM": 0}, {"ENCUT": "6E2"}, {"AMIX": 0.1}):
        assert name(incar=tags) == standard
    others = [
        *({"incar": {"ENCUT": 520}}, {"incar": {"SIGMA": 0.1}}, {"incar": {"PREC": "Normal"}}),
        *({"incar": {"LREAL": ".FALSE."}}, {"incar": {"IVDW": 12}}, {"kpoint_spacing_inv_A": 0.3}),
    ]
    assert len({standard, *(name(**change) for change in others)}) == 1 + len(others)
    (tmp_path / "potpaw" / "Li_sv" / "POTCAR").write_text(
        (tmp_path / "potpaw" / "Li_sv" / "POTCAR").read_text().replace("End of Dataset", "1.0\nEnd of Dataset")
    )
    assert name() != standard


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_recipe_touches_the_level(data: st.DataObject) -> None:
    code = Vasp({"incar": {"ENCUT": "600"}, "kpoint_spacing_inv_A": None, "potcars": {}}, {"NELM": "60"}, {})
    faults = data.draw(st.lists(st.sampled_from([*RECIPES, "wrong_atoms", "unheard_of"]), min_size=1, max_size=4))
    tried: list[dict[str, Any]] = []
    while (correction := code.next_correction(faults, tried)) is not None:
        assert set(correction) <= FREE_TAGS and correction not in tried
        assert code.incar(correction)["ENCUT"] == "600"
        tried.append(dict(correction))
    assert len(tried) <= 4


def test_correction_of_the_level_is_refused() -> None:
    code = Vasp({"incar": {}, "kpoint_spacing_inv_A": None, "potcars": {}}, {}, {})
    for tag in ("ENCUT", "ISMEAR", "SIGMA", "PREC", "LREAL", "GGA"):
        with pytest.raises(ValueError, match=tag):
            code.incar({tag: 1})


def test_recipe_for_the_parallel_layout_is_not_undone_by_npar() -> None:
    code = Vasp({"incar": {}, "kpoint_spacing_inv_A": None, "potcars": {}}, {"NPAR": "8"}, {})
    assert "NPAR" not in code.incar({"NCORE": 1}) and code.incar({"ALGO": "All"})["NPAR"] == "8"


def test_run_whose_folder_vanishes_is_ended(tmp_path: Path) -> None:
    """A cleaner of scratch folders has been there: the run must not go on beside the next label."""
    folder = tmp_path / "run"
    folder.mkdir()
    script = folder / "run.sh"
    script.write_text(f"echo $$ > {tmp_path / 'pid'}; rm -r {folder}; exec sleep 60\n")
    settings = SimpleNamespace(silent_s=0.5, timeout_s=60.0)
    with pytest.raises(CodeFault, match="cannot be watched") as caught:
        _run_script(script, tmp_path / "log", settings)  # type: ignore[arg-type]
    assert caught.value.kind == "infra" and not caught.value.final
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
