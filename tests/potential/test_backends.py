"""Every DeePMD backend that is installed here trains, goes on after a kill, starts warm, and drives dynamics."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ci]


def _installed() -> list[str]:
    found = ["tensorflow"]
    if find_spec("jax") is not None:
        found.append("jax")
    try:
        if version("torch").startswith("2.11."):  # the one that DeePMD 3.2 is built for
            found.append("pytorch")
    except PackageNotFoundError:
        pass
    return found


def test_jax_is_among_them() -> None:
    assert "jax" in _installed(), "the development extra brings it"


@pytest.mark.parametrize("backend", _installed())
def test_backend_from_training_to_dynamics(
    trained: tuple[Path, Any], start_script: Callable[[Path, str], Any], backend: str
) -> None:
    folder, _ = trained
    told = start_script(
        folder,
        f"""
        import os
        from dataclasses import replace
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")  # JAX compiles every training anew
        import dpdata
        from alloop.potential.checkpoints import BACKENDS, newest_whole_checkpoint
        from alloop.selection.deviation import force_deviation
        backend, place = {backend!r}, folder / {backend!r}
        systems = request().training_systems[:1]
        plain = request(backend=backend, n_steps=40, save_freq=20, training_systems=systems)
        told = {{"first": train(plain, place).started_from}}
        step, last = newest_whole_checkpoint(place, BACKENDS[backend])
        for part in BACKENDS[backend].files(last):
            for file in [part] if part.is_file() else [f for f in part.rglob("*") if f.is_file()]:
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        told["whole"] = [step, newest_whole_checkpoint(place, BACKENDS[backend])[0]]
        again = train(plain, place)
        told["again"] = again.started_from
        follower = replace(plain, n_steps=20, seed=2, init_checkpoint=again.checkpoint)
        warm = train(follower, folder / f"{{backend}}.warm")
        told["warm"] = warm.started_from
        told["steps"] = [int(line.split()[0]) for line in again.lcurve.read_text().splitlines() if line[0] != "#"]

        paths = [result.compressed_model or result.model for result in (again, warm)]
        system = dpdata.LabeledSystem(str(systems[0]), fmt="deepmd/npy")
        atoms = system[0].to_ase_structure()[0]
        ensemble = Ensemble(paths)
        forces, h = ensemble.evaluate(atoms).forces_eV_A, 1e-3
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[0, 0] += sign * h
            energies.append(ensemble.evaluate(moved).energies_eV)
        told["force_error"] = np.abs(-(energies[0] - energies[1]) / (2 * h) - forces[:, 0, 0]).max()
        told["force"] = np.abs(forces[:, 0, 0]).max()
        engine = AseEngine(paths, atoms, MdCondition(ensemble="nve", temperature_start_K=300, temperature_end_K=300,
                           n_steps=10, timestep_fs=1.0), seed=1, directory=folder, deviation_every=10)
        engine.advance(10)
        state = engine.state()
        own = force_deviation(ensemble.evaluate(state.atoms).forces_eV_A)
        told["deviation_error"] = np.abs(own / state.force_deviation_eV_A - 1).max()
        print(json.dumps(told))
        """,
    ).result()
    assert told["first"] == "scratch"
    assert told["whole"] == [40, 20], "the damaged checkpoint must be passed over"
    assert told["again"] == "step 20"
    assert told["warm"] == "warm start"
    assert told["steps"] == sorted(set(told["steps"])) and told["steps"][-1] == 40
    assert told["force_error"] < 1e-4 * max(1.0, told["force"])
    assert told["deviation_error"] < 1e-5
