"""The schema of `param.json`: as JSON schema for programs, as tables for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alloop.config import Param
from alloop.glass.composition import TABLE_1

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
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "param.json of alloop"}


def schema_rows() -> dict[str, tuple[str, list[Row]]]:
    """Return, per section ("" for the top level), its meaning and the rows of its keys, sections first mentioned."""
    schema = Param.model_json_schema()
    sections: dict[str, tuple[str, list[Row]]] = {}

    def walk(prefix: str, section: Schema) -> None:
        rows: list[Row] = []
        sections[prefix.rstrip(".")] = (section.get("description", "").split("\n")[0], rows)
        for key, entry in section["properties"].items():
            name, target = prefix + key, _target(entry, schema)
            listed = entry.get("type") == "array"
            if target is not None:
                kind = "list of sections" if listed else "section"
                rows.append(Row(name, kind, "", entry.get("description") or target["description"].split("\n")[0]))
                walk(f"{name}[]." if listed else f"{name}.", target)
                continue
            default = json.dumps(entry["default"]) if "default" in entry else "required"
            if key in section.get("required", ()):
                default = "required"
            rows.append(Row(name, _kind(entry), default, entry.get("description", "")))

    walk("", schema)
    return sections


def print_schema(console: Console) -> None:
    """Print a table per section; no key or type is cut at 80 columns."""
    for name, (meaning, rows) in schema_rows().items():
        console.print(f"[bold]{escape(name) or 'param.json'}[/bold]  {escape(meaning)}", highlight=False)
        table = Table(box=None, padding=(0, 2, 0, 2), pad_edge=True)
        table.add_column("key", no_wrap=True)
        for column in ("type", "default", "meaning"):
            table.add_column(column, overflow="fold", ratio={"type": 3, "default": 3, "meaning": 6}[column])
        for row in rows:
            own = row.key.removeprefix(f"{name}.")
            table.add_row(own, *map(escape, (row.kind, row.default, row.meaning)))
        console.print(table)
        console.print()


def _target(entry: Schema, schema: Schema) -> Schema | None:
    """Return the section a key holds, alone, in a list or as an alternative to null; None for a plain value."""
    for candidate in (entry, entry.get("items", {}), *entry.get("anyOf", ())):
        if "$ref" in candidate:
            found: Schema = schema["$defs"][candidate["$ref"].rpartition("/")[2]]
            return found
    return None


def _kind(entry: Schema) -> str:
    """Return the type of a plain value in words, such as ``list of number > 0``."""
    if "anyOf" in entry:
        return " or ".join(_kind(option) for option in entry["anyOf"])
    if "enum" in entry or "const" in entry:
        return " | ".join(json.dumps(value) for value in entry.get("enum", [entry.get("const")]))
    kind = entry.get("type", "any value")
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
