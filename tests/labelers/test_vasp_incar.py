"""INCAR and its overrides: what would be read as something else than it looks, and what no label may depend on."""

from __future__ import annotations

from typing import Any

import pytest

from alloop.labelers.vasp.inputs import canonical_value, incar_problems, override_problems, parse_incar

GOOD = {"ENCUT": "600", "EDIFF": "1E-5"}


def test_the_first_of_two_tags_counts_and_comments_go_to_the_end_of_the_line() -> None:
    text = "encut=500;Encut = 600 ! x ; ISMEAR=0\nIVDW = \\\n 12 # D3\nSYSTEM = a = b\nNCORE = 4 \\"
    assert parse_incar(text) == {"ENCUT": "500", "IVDW": "12", "SYSTEM": "a = b", "NCORE": "4"}


@pytest.mark.parametrize("text", ["ALGO = A # note \\\nSIGMA = 0.05", "! head \\ \nENCUT = 600"])
def test_a_comment_may_not_swallow_the_next_line(text: str) -> None:
    with pytest.raises(ValueError, match="hides the next line"):
        parse_incar(text)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("LDAUU", "0 0 4.0 0", "lists species"),
        ("ROPT", "1e-4 1e-4", "lists species"),
        ("VDW_C6", "1 2 3 4", "lists species"),
        ("NGXF", "120", "grid"),
        ("LDIAG", ".FALSE.", "ground state"),
        ("ALGO", "Exact", "ground state"),
        ("SIGMA", "0.05 LREAL = F", "not one statement"),
    ],
)
def test_tags_that_make_labels_differ_in_silence_are_refused(tag: str, value: str, words: str) -> None:
    assert any(words in found for found, _ in incar_problems(GOOD | {tag: value}))


@pytest.mark.parametrize("value", ["F", "f", "Fast", "N", "A", "VeryFast"])
def test_every_spelling_of_a_free_minimiser_is_free(value: str) -> None:
    assert incar_problems(GOOD | {"ALGO": value}) == override_problems({"ALGO": value}, GOOD) == []


@pytest.mark.parametrize(
    "override",
    [
        *({"AMIX": "0.1; ISPIN = 2"}, {"NELM": "200 ; IVDW = 12"}, {"SYSTEM": "a\nISPIN = 2"}, {"AMIX": "0.1 ! x"}),
        *({"NCORE": "4 \\"}, {"NELM": ""}, {"AMIX": []}, {"LDIAG": False}, {"ISPIN": 2}),
    ],
)
def test_no_override_smuggles_in_another_tag(override: dict[str, Any]) -> None:
    assert override_problems(override, GOOD)


def test_settings_that_differ_never_share_a_spelling() -> None:
    groups = [("1E-5", "1d-5", "0.00001"), ("T", ".true."), ("F", ".FALSE."), ("Auto",), ("On",), ("PE",), ("2*0.5",)]
    assert len({canonical_value(value) for group in groups for value in group}) == len(groups)
