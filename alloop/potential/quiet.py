"""Keep the chatter of TensorFlow and LAMMPS out of the terminal: everything written goes to one log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Append all that Python and C code write to stdout and stderr to `log` while the block runs.

    Acts on the file descriptors of the whole process: one such block at a time. DeePMD's log handlers made inside
    the block are removed at its end, for they would write to a closed file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(1), os.dup(2)]
    with log.open("a", buffering=1) as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            logging.getLogger("deepmd").handlers.clear()
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
