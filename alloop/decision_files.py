"""The decisions of a campaign on disk: one immutable file each, closed ones a thousand to a file.

``decisions/00000042.json`` holds one decision, ``decisions/00000000-00000999.json`` a block of them, one a line. Which
block a number belongs to is fixed, so that a number is known to be taken by two names alone. Where a block is, files of
single decisions it holds count for nothing: they are what a killed driver had not removed yet.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from alloop.errors import InputError
from alloop.failpoint import failpoint
from alloop.store import create_json_once, create_once, read_json

BLOCK = 1000
"""Decisions in a block. Part of the format: it may never change."""
_SINGLE = re.compile(r"(\d{8,})\.json")
_BLOCK = re.compile(r"(\d{8,})-\d{8,}\.json")
_LOOKS = 5
_PAUSE_SECONDS = 0.05


class DecisionFiles:
    """The folder of decisions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def single(self, number: int) -> Path:
        """Return the file of one decision."""
        return self.folder / f"{number:08d}.json"

    def block(self, number: int) -> Path:
        """Return the file of the block that holds, or will hold, a decision."""
        first = number - number % BLOCK
        return self.folder / f"{first:08d}-{first + BLOCK - 1:08d}.json"

    def taken(self, number: int) -> bool:
        """Tell whether a decision has this number, alone or in a block."""
        return os.path.exists(self.single(number)) or os.path.exists(self.block(number))  # noqa: PTH110

    def create(self, number: int, decision: dict[str, Any]) -> bool:
        """Put a decision in place unless its number is taken; tell whether this call did it.

        A number is taken for good: its own file is removed only after the block that holds it has appeared, so that a
        late writer who finds the single file gone finds the block, if not before it writes then after.
        """
        if self.block(number).exists() or not create_json_once(self.single(number), decision):
            return False
        if self.block(number).exists():
            self.single(number).unlink(missing_ok=True)
            return False
        return True

    def read(self) -> list[dict[str, Any]]:
        """Return all decisions in order; InputError if one is missing or cannot be read.

        A driver may merge at the same time: what is gone, or missing from a listing, is looked for again.
        """
        for look in range(_LOOKS):
            try:
                found = self._read_listed()
            except FileNotFoundError:
                if look == _LOOKS - 1:
                    raise InputError(f"{self.folder} changes while it is read; try again") from None
            else:
                missing = sorted(set(range(max(found, default=-1) + 1)) - found.keys())
                if not missing:
                    return [found[number] for number in range(len(found))]
                if look == _LOOKS - 1:
                    raise InputError(
                        f"{self.folder} lacks decision file(s) {missing[:5]}\n"
                        "  restore them from a backup: a campaign without them cannot know what it asked for"
                    )
            time.sleep(_PAUSE_SECONDS)
        raise AssertionError

    def one(self, number: int) -> dict[str, Any] | None:
        """Return one decision, None if its number is not taken."""
        for _ in range(2):  # it may be merged between the two looks
            for file in (self.block(number), self.single(number)):
                try:
                    found = _read(file)
                except FileNotFoundError:
                    continue
                decision: dict[str, Any] = found[number % BLOCK] if isinstance(found, list) else found
                return decision
        return None

    def _read_listed(self) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        blocks, singles = self._listing()
        for first in blocks:
            found |= {first + place: entry for place, entry in enumerate(_read(self.block(first)))}
        for number in singles:
            if number not in found:
                found[number] = _read(self.single(number))
        return found

    def _listing(self) -> tuple[list[int], list[int]]:
        """Return the first numbers of all blocks, and the numbers of all single files."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []  # noqa: PTH208
        blocks = [int(match[1]) for name in names if (match := _BLOCK.fullmatch(name))]
        singles = [int(match[1]) for name in names if (match := _SINGLE.fullmatch(name))]
        return sorted(blocks), sorted(singles)

    def merge(self, count: int) -> int:
        """Merge, as the driver, every whole block of the first `count` decisions; return how many blocks were made.

        A kill between any two steps leaves single files, a block, or both, which all read the same.
        """
        made = 0
        for first in range(0, count - BLOCK + 1, BLOCK):
            block = self.block(first)
            if not block.exists():
                try:
                    decisions = [_read(self.single(number)) for number in range(first, first + BLOCK)]
                except FileNotFoundError:  # merged by a driver that has taken over meanwhile
                    return made
                failpoint("merge:before")
                create_once(block, ("[" + ",\n".join(map(json.dumps, decisions)) + "]\n").encode())
                failpoint("merge:linked")
                made += 1
        self.sweep()
        return made

    def sweep(self) -> None:
        """Delete, as the driver, what a killed one left: half-written files, and single ones that are in a block."""
        for aside in self.folder.glob(".tmp.*"):
            aside.unlink(missing_ok=True)
        blocks, singles = self._listing()
        held = set(blocks)
        for number in singles:
            if number - number % BLOCK in held:
                self.single(number).unlink(missing_ok=True)
                failpoint("merge:removing")


def _read(file: Path) -> Any:
    try:
        return read_json(file)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}\n  restore it from a backup") from None
