"""Reading a JSON file a person wrote, and saying in plain words what is wrong with it."""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Tag

from alloop.errors import InputError

REMEDY = "correct the file; every key with its type, default and meaning: alloop schema"

# last words of keys that carry a unit
_UNITS = ("A", "K", "ps", "fs", "bar", "cm3")


class ConfigError(InputError):
    """A configuration with problems: `problems` holds (key, message) of each, `data` what was read."""

    def __init__(self, source: str, problems: list[tuple[str, str]], data: dict[str, Any]) -> None:
        lines = [f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
        lines += [f"  {where}: {message}" if where else f"  {message}" for where, message in problems]
        super().__init__("\n".join([*lines, f"  {REMEDY}"]))
        self.problems = problems
        self.data = data


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; InputError for one that is missing, unreadable, no JSON or no object.

    NaN, infinities (also numbers too large for a float) and keys given twice are refused: JSON as Python reads it
    would let them through.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"no {path.name} in {path.parent}\n"
            "  expected a campaign folder; make one with: alloop init DIR --example quickstart"
        ) from None
    except IsADirectoryError:
        raise InputError(
            f"{path} is a folder\n  expected a file; make one with: alloop init DIR --example quickstart"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}\n  see who may read it: ls -l {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason})\n  save it again with UTF-8 encoding"
        ) from None
    try:
        data = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys
        )
    except (ValueError, RecursionError) as error:
        hint = (
            "is the file cut short, a comma missing or too many, a comment or a single quote in it?"
            if isinstance(error, json.JSONDecodeError)
            else REMEDY
        )
        raise InputError(f"{path} is not valid JSON: {error}\n  {hint}") from None
    if not isinstance(data, dict):
        raise InputError(not_an_object(data, str(path)))
    return data


def not_an_object(data: Any, source: str) -> str:
    """Return the message for JSON that is a list or a bare value where sections are expected."""
    return (
        f"{source}: found {_kind(data)}, expected an object with sections\n"
        '  such as {"name": "my-glass", "glasses": ["LBS-20-60-20"]}'
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number a campaign can use")


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice in one object")
    return found


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


_MUST_BE = {
    "model_type": 'must be an object, {"key": value, ...}',
    "dict_type": 'must be an object, {"key": value, ...}',
    "list_type": "must be a list, [value, ...]",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
    "string_pattern_mismatch": "must begin with a letter or digit and hold letters, digits, - and _ only",
}


def explain(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Return key (such as ``glasses[0].n_atoms``) and message of one error pydantic found in `model`."""
    location, own_keys = _without_variant([part for part in item["loc"] if not str(part).startswith("[")], model)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    if item["type"] == "extra_forbidden":
        return where, f"unknown key; {_hint(location, model, own_keys)}"
    if item["type"] == "missing":
        return where, "is missing"
    if item["type"] == "value_error":
        return where, item["msg"].removeprefix("Value error, ")
    found = item["input"]
    shown = _kind(found) if isinstance(found, dict | list) else json.dumps(found)
    must = _MUST_BE.get(item["type"], item["msg"].replace("Input should", "must", 1))
    least = item.get("ctx", {}).get("min_length", 1) if item["type"] == "too_short" else 1
    if least > 1:
        shown, must = f"{shown} of {len(found)}", f"must hold at least {least}"
    return where, f"found {shown if len(shown) <= 60 else shown[:57] + '...'}, {must}"


def _without_variant(location: list[Any], model: type[BaseModel]) -> tuple[list[Any], list[str] | None]:
    """Return a location without the name of the variant that a section of several kinds has, and that variant's keys.

    Such sections are values of an object: ``pools.NAME`` is a local or a batch pool. The keys are None where the
    location does not end in one of the variant's own.
    """
    section: type[BaseModel] | None = model
    for depth, part in enumerate(location[:-2]):
        field = section.model_fields.get(part) if section else None
        variants = _variants(field.annotation) if field else {}
        if location[depth + 2] in variants:
            keys = list(variants[location[depth + 2]].model_fields) if len(location) == depth + 4 else None
            return location[: depth + 2] + location[depth + 3 :], keys
        section = _section_of(field.annotation) if field else None
    return location, None


def _variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return, by tag, the models an object's values may be."""
    found: dict[str, type[BaseModel]] = {}
    for inner in getattr(annotation, "__args__", ()):
        tags = [item.tag for item in getattr(inner, "__metadata__", ()) if isinstance(item, Tag)]
        if tags and isinstance(inner.__origin__, type) and issubclass(inner.__origin__, BaseModel):
            found[tags[0]] = inner.__origin__
        found |= _variants(getattr(inner, "__origin__", None) if hasattr(inner, "__metadata__") else inner)
    return found


def _hint(location: list[Any], model: type[BaseModel], own_keys: list[str] | None = None) -> str:
    """Return what an unknown key may have been meant to be: one of another unit, one of another section, a near one."""
    wrong = str(location[-1])
    known = own_keys or _known_keys(location[:-1], model)
    for key in known:
        stem, _, unit = key.rpartition("_")
        if unit in _UNITS and stem == wrong.rpartition("_")[0]:
            return f"did you mean {key!r}? The unit is part of the key, so give the value in that unit"
    elsewhere = [repr(section) for section in model.model_fields if wrong in _known_keys([section], model)]
    if elsewhere and wrong not in known:
        return f"did you mean {wrong!r} in {' or '.join(elsewhere)}?"
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}"


def _known_keys(location: list[Any], model: type[BaseModel]) -> list[str]:
    section: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or section is None:
            continue
        field = section.model_fields.get(part)
        section = None if field is None else _section_of(field.annotation)
    return [] if section is None else list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_of(argument) for argument in getattr(annotation, "__args__", ()))
    return next((section for section in found if section is not None), None)
