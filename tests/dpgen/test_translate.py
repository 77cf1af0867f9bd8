"""DP-GEN's keys in alloop's words: known ones, old ones, unknown ones, and what has no counterpart."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from dpgen_kit import job, machine, param, training_param
from hypothesis import given
from hypothesis import strategies as st

from alloop.config import parse
from alloop.dpgen.glasses import GlassSystem, glass_entries, glass_name, oxide_fractions
from alloop.dpgen.translate import translate
from alloop.dpgen.translation import Known, Translation
from alloop.errors import InputError
from alloop.glass.composition import OXIDES, TABLE_1

GLASSES = [{"name": "LBS-20-60-20", "n_atoms": [21]}, {"name": "LBS-40-20-40", "n_atoms": [17]}]
SYSTEMS = [GlassSystem(0, "LBS-20-60-20", 21), GlassSystem(1, "LBS-40-20-40", 17)]


def translated(root: Path = Path("glass"), labeler: str | None = "teter-rehearsal", **more: Any) -> Translation:
    known = Known(root, GLASSES, SYSTEMS, more.pop("iterations", 2), {0: 2, 1: 2}, labeler)
    found = translate(param(**more), more.get("machine", machine()), known)
    start = {"trajectories": 0, "structures": ["a.vasp"]}
    parse(found.param | {"bootstrap": start}, "the translation")
    return found


def left_out(found: Translation) -> dict[str, str]:
    return dict(found.left_out)


def test_what_both_know_is_translated() -> None:
    found = translated()
    assert found.param["name"] == "glass"
    assert found.param["elements"] == ["Li", "B", "O", "Si"]
    assert found.param["train"] == {
        "models": 2,
        "backend": "tensorflow",
        "cutoff_A": 4.0,
        "smoothing_A": 0.5,
        "steps": 400,
        "warm_steps": 400,
        "learning_rate": 0.002,
        "warm_learning_rate": 0.001,
        "final_learning_rate": 1e-6,
        "save_every": 100,
    }
    assert found.param["explore"] == {
        "temperatures_K": [500.0, 1200.0],
        "ramps": [],
        "chunks": 1,
        "ensembles": ["nvt"],
        "timestep_fs": 2.0,
        "chunk_ps": 0.1,
        "deviation_every": 10,
        "trajectories": 2,
    }
    assert found.param["select"]["trust_low_eV_A"] == 0.3
    assert found.param["select"]["trust_high_eV_A"] == 3.0
    assert found.param["select"]["max_labels"] == 20
    assert found.param["select"]["events"] == {"overlap": {"quota": 1}, "five_coordinated_Si": {"quota": 1}}
    assert found.param["pools"] == {"local": {"slots": 3, "threads": 2}}
    assert found.to_fill_in == []


def test_network_goes_on_in_the_template() -> None:
    template = json.loads(translated().templates["deepmd/input.json"])
    wanted = training_param()
    for part in ("descriptor", "fitting_net"):
        wanted["model"][part].pop("seed")
    assert template["model"] == wanted["model"]
    assert template["loss"] == wanted["loss"]
    assert template["learning_rate"] == {"type": "exp", "decay_steps": 50}
    assert template["training"] == {
        "disp_freq": 50,
        "training_data": {"batch_size": "auto"},
        "validation_data": {"batch_size": "auto"},
    }


def test_comments_and_neutral_values_are_no_losses() -> None:
    found = translated(_note="x", use_ele_temp=0, model_devi_plumed=False, shuffle_poscar=False, one_h5=False)
    assert not {"_note", "_comment", "use_ele_temp", "model_devi_plumed", "shuffle_poscar", "one_h5"} & set(
        left_out(found)
    )


def test_keys_without_a_counterpart_tell_why() -> None:
    found = left_out(translated(use_ele_temp=1, fp_cluster_vacuum=10.0, ratio_failed=0.2, model_devi_skip=100))
    assert "electron temperature" in found["use_ele_temp"]
    assert "a label that fails costs alloop that label only" in found["ratio_failed"]
    assert "periodic" in found["fp_cluster_vacuum"]
    assert "first record" in found["model_devi_skip"]


def test_old_and_unknown_keys_are_told_apart() -> None:
    found = left_out(translated(train_param="input.json", sys_charges=[0], fp_task_mx=3))
    assert found["train_param"].startswith("key of an old version")
    assert found["sys_charges"].startswith("key of an old version")
    assert found["fp_task_mx"] == "unknown key, to DP-GEN 0.14 as well"


def test_old_names_in_a_job_are_translated() -> None:
    old = {
        "sys_idx": [0],
        "Ts": [300, 900],
        "Ps": [1.0],
        "trj_freq": 5,
        "nsteps": 100,
        "ensemble": "npt",
        "task_min": 2,
    }
    found = translated(model_devi_jobs=[old, old | {"f_trust_lo": 0.2, "f_trust_hi": 0.6, "_idx": 1}])
    assert found.param["explore"]["temperatures_K"] == [300.0, 900.0]
    assert found.param["explore"]["ensembles"] == ["npt"]
    assert found.param["explore"]["pressure_bar"] == 1.0
    assert found.param["select"]["trust_low_eV_A"] == 0.2
    assert "old name of temps" in left_out(found)["model_devi_jobs[1].Ts"]
    assert left_out(found)["model_devi_jobs[1].task_min"].startswith("key of an old version")


def test_job_of_the_next_iteration_counts() -> None:
    jobs = [job(), job(temps=[700]), job(temps=[900], model_devi_f_trust_lo={"0": 0.2, "1": 0.25}), job(temps=[2000])]
    found = translated(model_devi_jobs=jobs)
    assert found.param["explore"]["temperatures_K"] == [900.0]
    assert found.param["select"]["trust_low_eV_A"] == 0.2
    assert found.param["stop"] == {"max_iterations": 2}
    assert "entry 2 is used, 1 that differ are not" in left_out(found)["model_devi_jobs"]
    assert "lowest and the highest" in left_out(found)["model_devi_f_trust_lo/hi"]


def test_templates_of_lammps_are_left_out() -> None:
    found = translated(model_devi_jobs=[{"sys_idx": [0], "trj_freq": 10, "template": {"lmp": "in.lmp"}, "rev_mat": {}}])
    assert "explore.temperatures_K" in found.to_fill_in[0]
    assert "model_devi_jobs[0].template" in left_out(found)


def test_what_dynamics_alloop_has_not() -> None:
    found = left_out(translated(model_devi_jobs=[job(ensemble="npt-t", press=[1, 1000], nbeads=8)]))
    assert "npt is used" in found["model_devi_jobs.ensemble"]
    assert "one pressure, 1 bar" in found["model_devi_jobs.press"]
    assert "classical" in found["model_devi_jobs[0].nbeads"]


def test_levels_too_near_to_be_calibrated_are_fixed() -> None:
    found = translated(model_devi_jobs=[job(model_devi_f_trust_lo=0.2, model_devi_f_trust_hi=0.25)])
    assert parse(found.param | {"name": "imported"}).select.trust == "fixed"
    assert "cannot follow the error" in left_out(found)["model_devi_f_trust_lo/hi"]
    assert "trust" not in translated().param["select"]


def test_virial_trust_levels_count_only_if_set() -> None:
    assert "model_devi_v_trust_lo" not in left_out(translated(model_devi_v_trust_lo=1e10))
    assert "deviation of forces" in left_out(translated(model_devi_v_trust_lo=0.1))["model_devi_v_trust_lo"]


def test_warm_starts_of_dpgen_become_alloops() -> None:
    reuse = {"training_reuse_iter": 1, "training_reuse_numb_steps": 150, "training_reuse_start_lr": 4e-4}
    train = translated(**reuse, training_reuse_old_ratio=0.9).param["train"]
    assert (train["warm_steps"], train["warm_learning_rate"]) == (150, 4e-4)
    assert "training_reuse_iter" not in left_out(translated(**reuse))
    old = {"training_reuse_iter": 1, "training_reuse_stop_batch": 99}
    assert translated(**old).param["train"]["warm_steps"] == 99


def test_training_param_of_deepmd_1() -> None:
    given_param = training_param()
    given_param["learning_rate"] = {"type": "exp", "start_lr": 0.001, "decay_rate": 0.95, "decay_steps": 50}
    given_param["training"] = {"systems": [], "set_prefix": "set", "stop_batch": 777, "batch_size": 2, "disp_freq": 10}
    found = translated(default_training_param=given_param)
    assert found.param["train"]["steps"] == 777
    assert found.param["train"]["final_learning_rate"] == 1e-8
    assert json.loads(found.templates["deepmd/input.json"])["training"]["disp_freq"] == 10
    lost = left_out(found)
    assert "key of DeePMD 1" in lost["default_training_param.training.batch_size"]
    assert "default_training_param.learning_rate.decay_rate" in lost
    assert "default_training_param.training.set_prefix" not in lost


def test_committee_of_different_networks() -> None:
    other = training_param()
    other["model"]["fitting_net"]["neuron"] = [9]
    found = translated(default_training_param=[training_param(), other])
    assert "the first one's is used" in left_out(found)["default_training_param"]
    assert "default_training_param" not in left_out(translated(default_training_param=[training_param()] * 2))


@pytest.mark.parametrize("descriptor", [{"type": "hybrid", "list": []}, None])
def test_network_alloop_cannot_build(descriptor: Any) -> None:
    given_param = training_param()
    given_param["model"]["descriptor"] = descriptor
    found = translated(default_training_param=given_param)
    assert found.templates == {}
    assert "alloop's own template is used" in left_out(found)["default_training_param"]


def test_backend_alloop_has_not() -> None:
    found = translated(train_backend="pytorch-exportable")
    assert "backend" not in found.param["train"]
    assert "no backend pytorch-exportable" in left_out(found)["train_backend"]


def test_vasp(tmp_path: Path) -> None:
    (tmp_path / "INCAR").write_text("ENCUT = 600\nISMEAR = 0\nNSW = 0\nKSPACING = 0.5\nKGAMMA = .TRUE.\nNBANDS = 9\n")
    files = ["POTCAR.Li_sv", "B/POTCAR", "O", "POTCAR_Si"]
    found = translated(
        tmp_path, None, fp_style="vasp", fp_pp_path="paw", fp_pp_files=files, fp_incar="INCAR", iterations=2
    )
    vasp = found.param["label"]["vasp"]
    assert vasp["potcar_library"] == str(tmp_path / "paw")
    assert vasp["potcars"] == {"Li": "Li_sv"}
    assert vasp["kpoint_spacing_inv_A"] == 0.5
    assert found.param["label"]["run"]["command"] == "python o.py"
    assert found.param["label"]["run"]["environment"] == {"OMP_NUM_THREADS": "2"}
    incar = found.templates["vasp/INCAR"]
    assert "ENCUT" in incar and "KSPACING" not in incar and "NSW" not in incar and "NBANDS" not in incar
    assert left_out(found)["fp_incar: NBANDS"].startswith("9: it depends on the number of atoms")
    assert "label.vasp.potcar_library" in found.to_fill_in[0]


def test_incar_that_is_missing_is_to_fill_in(tmp_path: Path) -> None:
    found = translated(tmp_path, None, fp_style="vasp", fp_pp_path=".", fp_pp_files=[], fp_incar="nowhere")
    assert any("templates/vasp/INCAR" in item for item in found.to_fill_in)


def test_cp2k_and_others() -> None:
    found = translated(Path("x"), None, fp_style="cp2k", external_input_path="cp2k.inp")
    assert found.param["label"]["labeler"] == "cp2k"
    assert "templates/cp2k/label.inp" in found.to_fill_in[0]
    found = translated(Path("x"), None, fp_style="abacus")
    assert "fp_style abacus" in found.to_fill_in[0]
    assert left_out(found)["fp_style"] == "alloop has no abacus"


def test_queues_are_left_out_by_name() -> None:
    section = {"command": "dp", "machine": {"batch_type": "Slurm", "context_type": "SSHContext"}}
    section["resources"] = {"queue_name": "long", "number_node": 1, "gpu_per_node": 4}
    found = translate(
        param(), {"train": [section], "lmp_command": "lmp"}, Known(Path("x"), GLASSES, SYSTEMS, 0, {}, "a:B")
    )
    assert "Slurm over SSHContext (queue_name long, number_node 1, gpu_per_node 4)" in left_out(found)["machine.train"]
    assert "machine.lmp_command" in left_out(found)
    assert "pools" not in found.param


def test_configurations_that_have_no_counterpart_at_all() -> None:
    with pytest.raises(InputError, match="has no type_map"):
        translated(type_map=None)
    with pytest.raises(InputError, match="model_devi_engine is calypso; alloop explores with molecular dynamics"):
        translated(model_devi_engine="calypso")


def test_name_is_one_alloop_takes() -> None:
    assert translated(Path("my glass (2)")).param["name"] == "my-glass-2-"
    assert translated(Path("..")).param["name"] == "from-dpgen"


# ---------------------------------------------------------------------------------------- compositions


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_cells_of_oxides_become_their_mole_fractions(silica: int, boria: int, lithia: int) -> None:
    units = {"SiO2": silica, "B2O3": boria, "Li2O": lithia}
    counts: Counter[str] = Counter()
    for oxide, number in units.items():
        counts.update({element: number * per_unit for element, per_unit in OXIDES[oxide].items()})
    total = sum(units.values())
    if total == 0:
        with pytest.raises(ValueError, match="holds no Si, B or Li"):
            oxide_fractions(counts)
        return
    assert oxide_fractions(+counts) == {oxide: Fraction(n, total) for oxide, n in units.items() if n}


@pytest.mark.parametrize(("name", "glass"), TABLE_1.items())
def test_glasses_of_table_1_keep_their_names(name: str, glass: Any) -> None:
    fractions = {o: Fraction(x).limit_denominator(100) for o, x in glass.mole_fractions.items()}
    assert glass_name(fractions) == name


def test_cells_that_are_no_glass_are_told() -> None:
    cells = {
        0: [Atoms("Li4B4O20Si4", cell=[9] * 3), Atoms("Li2B6O12Si", cell=[6] * 3)],
        1: [Atoms("Na8Si8O20", cell=[9] * 3)],
        2: [Atoms("SiO2", cell=[4] * 3)],
    }
    remarks: list[tuple[str, str]] = []
    entries, systems = glass_entries(cells, remarks)
    assert [entry["name"] for entry in entries] == ["LBS-20-60-20"]
    assert systems == [GlassSystem(0, "LBS-20-60-20", 21)]
    told = dict(remarks)
    assert "its oxides would take 16 O, but it holds 20" in told["sys_configs[0]"]
    assert "it holds Na" in told["sys_configs[1]"]
    assert "3 atoms; alloop's cells have at least 12" in told["sys_configs[2]"]


def test_own_composition_gets_a_formula_and_fractions() -> None:
    entries, _ = glass_entries({3: [Atoms("Li4B4O8", cell=[6] * 3), Atoms("Li8B8O16", cell=[8] * 3)]}, [])
    assert entries[0]["name"] == "Li1B1O2"
    assert entries[0]["mole_fractions"] == {"B2O3": 0.5, "Li2O": 0.5}
    assert entries[0]["n_atoms"] == [16, 32]
