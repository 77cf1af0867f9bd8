"""Where templates and examples are found: the campaign's own `templates/` first, then the ones alloop ships."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_templates() -> Path:
    """Return the folder of shipped templates, in a wheel or in a source checkout."""
    inside = _PACKAGE / "templates"
    return inside if inside.is_dir() else _PACKAGE.parent / "templates"


def find_template(name: str, campaign_dir: Path | None = None) -> Path:
    """Return the template `name` (such as ``deepmd/input.json``); FileNotFoundError names the places looked at."""
    places = [shipped_templates() / name]
    if campaign_dir is not None:
        places.insert(0, campaign_dir / "templates" / name)
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"template {name!r} not found; looked for " + " and ".join(map(str, places)))


def examples() -> list[str]:
    """Return the names of the shipped example campaigns."""
    own = [path.parent.name for path in sorted((shipped_templates() / "examples").glob("*/param.json"))]
    return sorted({"quickstart", *own})


def example_file(name: str) -> Path:
    """Return the ``param.json`` of an example; in a checkout the quickstart is the one at the top."""
    inside = shipped_templates() / "examples" / name / "param.json"
    return inside if inside.is_file() else _PACKAGE.parent / "param.json"
