"""The schema of `param.json`: as JSON schema for programs, as tables for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alloop.config import Param
from alloop.glass.composition import TABLE_1
from alloop.glass.events import PRESETS

Schema = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One key: its full name (``glasses[].n_atoms``), type in words, default as JSON, and meaning."""

    key: str
    kind: str
    default: str
    meaning: str


def json_schema() -> Schema:
    """Return the JSON schema (draft 2020-12) of `param.json`; a glass may also be given by its Table 1 name alone."""
    schema = Param.model_json_schema()
    glasses = schema["properties"]["glasses"]
    glasses["items"] = {"anyOf": [{"type": "string", "enum": sorted(TABLE_1)}, glasses["items"]]}
    events = schema["$defs"]["SelectParam"]["properties"]["events"]
    events["properties"] = {name: _complete(preset["kind"], schema) for name, preset in PRESETS.items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "param.json of alloop"}


def _complete(kind: str, schema: Schema) -> Schema:
    """Return the schema of an event that a preset completes, so that it requires no key."""
    (found,) = (d for d in schema["$defs"].values() if d["properties"].get("kind", {}).get("const") == kind)
    return {key: value for key, value in found.items() if key != "required"}


def schema_rows() -> dict[str, tuple[str, list[Row]]]:
    """Return, per section ("" for the top level), its meaning and the rows of its keys, outer sections first."""
    schema = Param.model_json_schema()
    sections: dict[str, tuple[str, list[Row]]] = {}

    def walk(prefix: str, section: Schema) -> None:
        rows: list[Row] = []
        sections[prefix.rstrip(".")] = (section.get("description", "").split("\n")[0], rows)
        for key, entry in section["properties"].items():
            name, target = prefix + key, _target(entry, schema)
            for variant in _variants(entry, schema):
                walk(f"{name}.NAME ({' | '.join(_kinds(variant))}).", variant)
            default = json.dumps(entry["default"]) if "default" in entry else "required"
            if target is None:
                rows.append(Row(name, _kind(entry), default, entry.get("description", "")))
                continue
            words = [_kind(option) for option in entry.get("oneOf", ()) if _target(option, schema) is None]
            listed = entry.get("type") == "array" or bool(words)
            meaning = entry.get("description") or target["description"].split("\n")[0]
            kind = " or ".join([*words, "list of sections" if listed else "section"])
            rows.append(Row(name, kind, "" if isinstance(entry.get("default"), dict) else default, meaning))
            walk(f"{name}[]." if listed else f"{name}.", target)

    walk("", schema)
    return sections


def print_schema(console: Console) -> None:
    """Print the keys of each section with type, default and meaning; no word is cut at 80 columns."""
    for name, (meaning, rows) in schema_rows().items():
        heading = Text.assemble((name or "param.json", "bold underline"), ": ", meaning)
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column(overflow="fold")
        for row in rows:
            default = row.default if row.default in ("", "required") else f"default {row.default}"
            kind = Text("; ".join(filter(None, (row.kind, default))), style="dim")
            grid.add_row(f"  {row.key.removeprefix(f'{name}.')}", Text("\n").join([kind, Text(row.meaning)]))
        console.print(heading, grid, "", sep="\n")


def _target(entry: Schema, schema: Schema) -> Schema | None:
    """Return the section a key holds, alone, in a list or as an alternative; None for a plain value."""
    options = [*entry.get("anyOf", ()), *entry.get("oneOf", ())]
    for candidate in (entry, entry.get("items", {}), *options, *(option.get("items", {}) for option in options)):
        if "$ref" in candidate:
            found: Schema = schema["$defs"][candidate["$ref"].rpartition("/")[2]]
            return found
    return None


def _variants(entry: Schema, schema: Schema) -> list[Schema]:
    """Return the sections that the values of an object may be, such as those of the pools."""
    values: Any = entry.get("additionalProperties", next(iter(entry.get("patternProperties", {}).values()), None))
    options: list[Schema] = values.get("oneOf") or values.get("anyOf") or [] if isinstance(values, dict) else []
    return [schema["$defs"][option["$ref"].rpartition("/")[2]] for option in options if "$ref" in option]


def _kinds(variant: Schema) -> list[str]:
    """Return the values of the key that tells a variant from the others, its `type` or `kind`."""
    own = variant["properties"]
    key: Schema = own["type"] if "type" in own else own["kind"]
    return key.get("enum") or [key["const"]]


def _kind(entry: Schema) -> str:
    """Return the type of a plain value in words, such as ``list of number > 0``."""
    if "anyOf" in entry or "oneOf" in entry:
        return " or ".join(_kind(option) for option in [*entry.get("anyOf", ()), *entry.get("oneOf", ())])
    if "enum" in entry or "const" in entry:
        return " | ".join(json.dumps(value) for value in entry.get("enum", [entry.get("const")]))
    kind: str = entry.get("type", "any value")
    if kind == "array":
        return f"list of {_kind(entry.get('items', {}))}"
    if kind == "object":
        names = _kind(entry["propertyNames"]) if "propertyNames" in entry else "text"
        values = entry.get("additionalProperties")
        return f"object, {names}: {_kind(values) if isinstance(values, dict) else 'any value'}"
    words = {"string": "text", "boolean": "true | false"}
    return words.get(kind, kind) + _bounds(entry)


def _bounds(entry: Schema) -> str:
    parts = [
        f"{sign} {entry[key]:g}" if isinstance(entry[key], float) else f"{sign} {entry[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in entry
    ]
    return " " + ", ".join(parts) if parts else ""
