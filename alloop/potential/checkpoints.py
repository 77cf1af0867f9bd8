"""DeePMD checkpoints on disk: which files, of which step, and whether they read whole."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "model.ckpt"


@dataclass(frozen=True)
class Backend:
    """What differs between DeePMD's backends.

    flag: its command-line flag; checkpoint_suffixes, model_suffix: endings of what it writes (a JAX checkpoint or
    model is a folder); compresses: whether a compressed model can drive dynamics.
    """

    flag: str
    checkpoint_suffixes: tuple[str, ...]
    model_suffix: str
    compresses: bool = True

    def prefix(self, directory: Path, step: int) -> Path:
        """Return what ``dp`` takes as the checkpoint of a step."""
        ending = self.checkpoint_suffixes[0] if len(self.checkpoint_suffixes) == 1 else ""
        return directory / f"{PREFIX}-{step}{ending}"

    def files(self, prefix: Path) -> tuple[Path, ...]:
        """Return all that makes up the checkpoint of that prefix."""
        if len(self.checkpoint_suffixes) == 1:
            return (prefix,)
        return tuple(prefix.with_name(prefix.name + suffix) for suffix in self.checkpoint_suffixes)


BACKENDS = {
    "tensorflow": Backend("--tf", (".index", ".meta", ".data-00000-of-00001"), ".pb"),
    "pytorch": Backend("--pt", (".pt",), ".pth"),
    "jax": Backend("--jax", (".jax",), ".savedmodel", compresses=False),
}


def backend_named(name: str) -> Backend:
    """Return the backend of that name; ValueError lists the names known."""
    if name not in BACKENDS:
        raise ValueError(f"unknown DeePMD backend {name!r}; use one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def newest_whole_checkpoint(directory: Path, backend: Backend) -> tuple[int, Path] | None:
    """Return (step, prefix) of the newest checkpoint in `directory` that reads whole, None if there is none."""
    ending = re.escape(backend.checkpoint_suffixes[0])
    steps = [
        int(match.group(1))
        for path in directory.glob(f"{PREFIX}-*")
        if (match := re.fullmatch(rf"{re.escape(PREFIX)}-(\d+){ending}", path.name))
    ]
    for step in sorted(steps, reverse=True):
        prefix = backend.prefix(directory, step)
        if is_whole(prefix, backend):
            return step, prefix
    return None


def is_whole(prefix: Path, backend: Backend) -> bool:
    """Tell whether all files of a checkpoint are there and can be read to the last value.

    TensorFlow's reader compares the checksum of every tensor; a PyTorch file is a zip archive with checksums;
    JAX's reader decodes every array.
    """
    if not all(path.exists() for path in backend.files(prefix)):
        return False
    try:
        if backend.flag == "--pt":
            import torch

            torch.load(prefix, map_location="cpu", weights_only=True)
        elif backend.flag == "--jax":
            _read_jax(prefix)
        else:
            import tensorflow as tf

            _read_meta(prefix)
            reader = tf.train.load_checkpoint(str(prefix))
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
    except Exception:  # whatever the reader stumbles over, the checkpoint is of no use
        return False
    return True


def model_of_checkpoint(prefix: Path, backend: Backend) -> dict[str, Any]:
    """Return the ``model`` section a checkpoint was trained with, its ``sel`` resolved to numbers."""
    if backend.flag == "--pt":
        import torch

        state = torch.load(prefix, map_location="cpu", weights_only=True)
        return dict(state["model"]["_extra_state"]["model_params"])
    if backend.flag == "--jax":
        return dict(_read_jax(prefix)["model_def_script"])
    for node in _read_meta(prefix).graph_def.node:
        if node.name == "train_attr/training_script":
            return dict(json.loads(node.attr["value"].tensor.string_val[0])["model"])
    raise ValueError(f"{prefix}.meta holds no training script; give a checkpoint written by `dp train`")


def _read_jax(prefix: Path) -> dict[str, Any]:
    from deepmd.jax.utils.serialization import serialize_from_file

    return dict(serialize_from_file(str(prefix)))


def _read_meta(prefix: Path) -> Any:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    return MetaGraphDef.FromString(prefix.with_name(prefix.name + ".meta").read_bytes())
