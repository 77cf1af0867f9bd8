"""Train, freeze and compress one DeePMD model in one process.

``dp train``, ``dp freeze`` and ``dp compress`` started one by one import TensorFlow three times; here
DeePMD's own entry point is called three times in this process. It works in the current directory and logs to
the standard streams, so :func:`train` changes both for the whole process while it runs: give it a process of its
own, started with the environment of :func:`alloop.potential.environment.md_environment`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.potential.checkpoints import (
    PREFIX,
    Backend,
    backend_named,
    is_whole,
    model_of_checkpoint,
    newest_whole_checkpoint,
)
from alloop.potential.neighbours import adequate_sel, neighbour_counts, sampled_structures
from alloop.potential.quiet import output_to
from alloop.potential.short_range import BACKENDS, MODEL_KEYS, ShortRange, write_table

LOGGER = logging.getLogger(__name__)
LCURVE = "lcurve.out"
LOG = "train.log"
REQUEST = "request.json"


@dataclass(frozen=True)
class TrainRequest:
    """One model to train.

    template: DeePMD input with network and loss; `sel` may be numbers or "auto" (see :func:`train`).
    Learning rate, steps, seeds, type map and data are set from the fields below. `init_checkpoint` is the prefix of a
    checkpoint whose weights the training starts from (step counter and learning rate begin anew). Where it cannot be
    used, the training starts from scratch, with `scratch_steps` and `scratch_lr` in place of what a warm start needs.
    `restart` continues from the newest whole checkpoint in the directory if it belongs to this same request.
    `short_range` gives the model a wall (tensorflow only); a checkpoint with another one, or none, is not continued.
    """

    template: dict[str, Any]
    type_map: Sequence[str]
    training_systems: Sequence[Path]
    n_steps: int
    seed: int
    start_lr: float = 1e-3
    stop_lr: float = 1e-6
    validation_systems: Sequence[Path] = field(default_factory=tuple)
    init_checkpoint: Path | None = None
    scratch_steps: int | None = None
    scratch_lr: float | None = None
    restart: bool = True
    save_freq: int = 1000
    compress: bool = True
    backend: str = "tensorflow"
    short_range: ShortRange | None = None


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind; `started_from` is "scratch", "warm start" or "step <n>" of an earlier run."""

    model: Path
    compressed_model: Path | None
    checkpoint: Path
    checkpoint_files: tuple[Path, ...]
    lcurve: Path
    log: Path
    started_from: str
    steps: int
    short_range_table: Path | None = None


def train(request: TrainRequest, directory: Path) -> TrainResult:
    """Train a model in `directory` (made if missing), freeze it, compress it if asked, and say what came of it.

    With `sel` "auto" it is counted from the training and validation structures with room for denser and hotter
    ones (`adequate_sel`), or taken over from the checkpoint of a warm start: weights fit one `sel` only. A
    checkpoint with too small a `sel` for the data, of another network, or unreadable is passed over and the training
    starts from scratch, as `started_from` tells. All output goes to ``train.log`` in the directory. Raises
    ValueError for a request that cannot be trained.
    """
    backend = backend_named(request.backend)
    _check(request)
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with output_to(directory / LOG), contextlib.chdir(directory):
        warm = usable_init_checkpoint(request)
        if request.init_checkpoint is not None and warm is None:
            steps, rate = request.scratch_steps or request.n_steps, request.scratch_lr or request.start_lr
            request = replace(request, init_checkpoint=None, n_steps=steps, start_lr=rate)
        warm_model = model_of_checkpoint(warm, backend) if warm else None
        dp_input = training_input(request, warm_model)
        digest = _request_digest(request, dp_input, warm, backend)
        step, prefix = _resume_point(request, directory, backend, digest)
        wall = request.short_range
        table = write_table(wall, request.type_map, directory) if wall else None
        (directory / REQUEST).write_text(json.dumps({"digest": digest}) + "\n")
        _link_systems(request)
        (directory / "input.json").write_text(json.dumps(dp_input, indent=1) + "\n")
        if step < request.n_steps:
            _run_training(backend, prefix, warm, step)
        checkpoint = backend.prefix(directory, request.n_steps)
        model, compressed = _freeze(backend, checkpoint, request.compress)
    started = f"step {step}" if prefix else "warm start" if warm else "scratch"
    return TrainResult(
        model=directory / model,
        compressed_model=directory / compressed if compressed else None,
        checkpoint=checkpoint,
        checkpoint_files=backend.files(checkpoint),
        lcurve=directory / LCURVE,
        log=directory / LOG,
        started_from=started,
        steps=request.n_steps,
        short_range_table=table,
    )


def derived_seeds(seed: int) -> tuple[int, int, int]:
    """Return the descriptor's, the fitting network's and the batch order's seed, independent 31-bit numbers."""
    first, second, third = np.random.SeedSequence(seed).generate_state(3) >> np.uint32(1)
    return int(first), int(second), int(third)


def training_input(request: TrainRequest, warm_model: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the full ``input.json``; systems are named as `_link_systems` links them, so no path enters a model."""
    dp_input = copy.deepcopy(request.template)
    descriptor_seed, fitting_seed, batch_seed = derived_seeds(request.seed)
    model = dp_input["model"]
    model["type_map"] = list(request.type_map)
    model.update(_wall_section(request))
    model["descriptor"]["seed"] = descriptor_seed
    model["fitting_net"]["seed"] = fitting_seed
    if str(model["descriptor"]["sel"]).startswith("auto"):
        model["descriptor"]["sel"] = warm_model["descriptor"]["sel"] if warm_model else _sel_of_data(request)
    rates = {"start_lr": request.start_lr, "stop_lr": request.stop_lr}
    dp_input["learning_rate"] = {"type": "exp", **dp_input.get("learning_rate", {}), **rates}
    training = dp_input.setdefault("training", {})
    # DeePMD saves only at steps that it also displays: the saving interval is rounded down to a multiple
    disp_freq = min(training.get("disp_freq", 100), request.save_freq)
    training.update(
        numb_steps=request.n_steps,
        seed=batch_seed,
        disp_freq=disp_freq,
        save_freq=request.save_freq // disp_freq * disp_freq,
        save_ckpt=PREFIX,
        disp_file=LCURVE,
    )
    for key, systems in (
        ("training_data", request.training_systems),
        ("validation_data", request.validation_systems),
    ):
        training[key] = {"batch_size": "auto", **training.get(key, {})}
        training[key]["systems"] = [f"systems/{key}.{number:04d}" for number in range(len(systems))]
    if not request.validation_systems:
        del training["validation_data"]
    return dp_input


def _check(request: TrainRequest) -> None:
    if not request.training_systems:
        raise ValueError("no training systems; write at least one with write_systems")
    missing = [str(s) for s in (*request.training_systems, *request.validation_systems) if not Path(s).is_dir()]
    if missing:
        raise ValueError(f"systems not found: {', '.join(missing)}; give folders in deepmd/npy layout")
    if request.n_steps < 1 or request.save_freq < 1:
        raise ValueError(f"n_steps {request.n_steps}, save_freq {request.save_freq}: both must be 1 or more")

    if request.short_range and request.backend not in BACKENDS:
        raise ValueError(
            f"short_range {request.short_range.form} with backend {request.backend}: only {', '.join(BACKENDS)} is "
            "known to keep the wall through freezing, compression and a warm start; use that, or no wall"
        )
    own = [key for key in MODEL_KEYS if key in request.template["model"]]
    if request.short_range and own:
        raise ValueError(
            f"the DeePMD template gives {', '.join(own)} and short_range asks for {request.short_range.form}; "
            "leave those keys out of the template, or set short_range to null"
        )


def _wall_section(request: TrainRequest) -> dict[str, Any]:
    return request.short_range.model_section() if request.short_range else {}


def _structures(request: TrainRequest) -> list[Any]:
    return sampled_structures([Path(s) for s in (*request.training_systems, *request.validation_systems)])


def _sel_of_data(request: TrainRequest) -> list[int]:
    cutoff_A = request.template["model"]["descriptor"]["rcut"]
    return adequate_sel(_structures(request), request.type_map, cutoff_A)


def usable_init_checkpoint(request: TrainRequest) -> Path | None:
    """Return the warm start's prefix if it is whole and its network, type map and `sel` suit the request, or None."""
    if request.init_checkpoint is None:
        return None
    backend = backend_named(request.backend)
    prefix = Path(request.init_checkpoint).resolve()
    if not is_whole(prefix, backend):
        LOGGER.warning("checkpoint %s is missing or damaged; training from scratch", prefix)
        return None
    old, new = model_of_checkpoint(prefix, backend), request.template["model"] | _wall_section(request)
    wanted = new["descriptor"]["sel"]
    if str(wanted).startswith("auto"):
        wanted = old["descriptor"]["sel"]
        cutoff_A = new["descriptor"]["rcut"]
        counts = [neighbour_counts(atoms, request.type_map, cutoff_A) for atoms in _structures(request)]
        if (np.max(counts, axis=0) > wanted).any():
            LOGGER.warning("more neighbours in the data than sel %s of the checkpoint; training from scratch", wanted)
            return None
    same = (
        list(old["type_map"]) == list(request.type_map)
        and old["descriptor"]["sel"] == wanted
        and all(old.get(key) == new.get(key) for key in MODEL_KEYS)
        and all(
            old[part].get(key) == value
            for part in ("descriptor", "fitting_net")
            for key, value in new[part].items()
            if key not in ("seed", "sel")
        )
    )
    if not same:
        LOGGER.warning("checkpoint %s is of another network, wall, type map or sel; training from scratch", prefix)
    return prefix if same else None


def _link_systems(request: TrainRequest) -> None:
    """Link the systems into ``systems/`` of the current directory, under names that depend on their order only."""
    folder = Path("systems")
    folder.mkdir(exist_ok=True)
    for link in folder.iterdir():
        link.unlink()
    for key, systems in (
        ("training_data", request.training_systems),
        ("validation_data", request.validation_systems),
    ):
        for number, system in enumerate(systems):
            (folder / f"{key}.{number:04d}").symlink_to(Path(system).resolve())


def _request_digest(request: TrainRequest, dp_input: dict[str, Any], warm: Path | None, backend: Backend) -> str:
    """Hash all that decides the training: the input, and data and starting weights by content."""
    digest = hashlib.sha256(json.dumps([backend.flag, dp_input], sort_keys=True).encode())
    start = backend.files(warm) if warm else ()
    for root in map(Path, (*request.training_systems, *request.validation_systems, *start)):
        for path in (p for p in (root, *sorted(root.rglob("*"))) if p.is_file()):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _resume_point(request: TrainRequest, directory: Path, backend: Backend, digest: str) -> tuple[int, Path | None]:
    """Return the step and checkpoint to continue from, (0, None) to begin; what does not belong is removed."""
    record = directory / REQUEST
    same = request.restart and record.is_file() and json.loads(record.read_text()).get("digest") == digest
    found = newest_whole_checkpoint(directory, backend) if same else None
    if found is None:
        for path in (*directory.glob(f"{PREFIX}*"), directory / LCURVE):
            _remove(path)
        return 0, None
    return found


def _run_training(backend: Backend, resume: Path | None, warm: Path | None, step: int) -> None:
    arguments = ["train", "input.json"]
    if resume:
        _cut_lcurve(Path(LCURVE), step)
        arguments += ["--restart", str(resume)]
    elif warm:
        arguments += ["--init-model", str(warm)]
    _dp([backend.flag, *arguments])
    _cut_lcurve(Path(LCURVE), None)


def _dp(arguments: list[str]) -> None:
    from deepmd.main import main

    main(arguments)


def last_step(lcurve: Path) -> int:
    """Return the last step that a learning curve, perhaps still being written, has a whole line of; 0 for none."""
    try:
        lines = lcurve.read_text().split("\n")[:-1]
    except OSError:
        return 0
    return max((int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")), default=0)


def _cut_lcurve(lcurve: Path, before_step: int | None) -> None:
    """Drop repeated headers and, if a step is given, the rows from it on (a continued run writes them again)."""
    if not lcurve.is_file():
        return
    header: list[str] = []
    rows: list[str] = []
    for line in lcurve.read_text().splitlines(keepends=True):
        words = line.split()
        if line.startswith("#"):
            header += [line] if line not in header else []
        elif line.endswith("\n") and words and (before_step is None or int(words[0]) < before_step):
            rows.append(line)
    lcurve.write_text("".join(header + rows))


def _freeze(backend: Backend, checkpoint: Path, compress: bool) -> tuple[str, str | None]:
    """Freeze into the current directory and compress; the names appear only when the files are complete."""
    model, compressed = f"model{backend.model_suffix}", f"model-compressed{backend.model_suffix}"
    _write_model([backend.flag, "freeze", "-c", checkpoint.name], model)
    if not (compress and backend.compresses):
        return model, None
    _write_model([backend.flag, "compress", "-i", model], compressed)
    return model, compressed


def _write_model(command: list[str], model: str) -> None:
    unfinished = Path(model).with_stem("unfinished")
    for leftover in (unfinished, Path(model)):
        _remove(leftover)
    _dp([*command, "-o", unfinished.name])
    tidy_frozen_model(unfinished)
    unfinished.replace(model)


def _remove(path: Path) -> None:
    """Remove a file, a link, or (what JAX writes) a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def tidy_frozen_model(model: Path) -> None:
    """Rewrite a TensorFlow model so that equal models are equal files; other kinds of file are left as they are.

    A protobuf map is written in any order unless asked otherwise. Of the training script inside only the network
    is kept: data paths say nothing to a model's user, and `dp compress` would build the whole training graph anew.
    """
    if model.suffix != ".pb":
        return
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef.FromString(model.read_bytes())
    for node in graph.node:
        if node.name == "train_attr/training_script":
            script = json.loads(node.attr["value"].tensor.string_val[0])
            network = {key: value for key, value in script["model"].items() if key != "compress"}
            kept = {"model": network, "learning_rate": script["learning_rate"], "training": {"numb_steps": 0}}
            text = json.dumps(kept, sort_keys=True)
            node.attr["value"].tensor.string_val[0] = text.encode()
    model.write_bytes(graph.SerializeToString(deterministic=True))
