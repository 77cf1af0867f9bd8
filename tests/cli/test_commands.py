"""Every command: its help, the folder it looks at, and what init, schema and plan print."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main

import alloop
from alloop import cli, config
from alloop.event_params import (
    CoordinationParam,
    DensityParam,
    EdgeSharingParam,
    PairDistanceParam,
    RingParam,
    TemperatureParam,
)
from alloop.glass.composition import TABLE_1
from alloop.pool_params import BatchPoolParam, LocalPoolParam
from alloop.quench_params import StageParam
from alloop.report.schema import json_schema, schema_rows

EVENT_MODELS = (
    PairDistanceParam,
    CoordinationParam,
    EdgeSharingParam,
    RingParam,
    DensityParam,
    TemperatureParam,
)
_VARIED = ("pools.", "select.events.", "quench.protocol.", "quench.protocol[].")  # sections of several kinds, or a name
REPOSITORY = Path(alloop.__file__).resolve().parents[1]
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def test_commands_of_a_whole_campaign_are_there():
    wanted = {"init", "check", "plan", "run", "stop", "status", "stats", "quench", "analyze", "schema"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_and_folder(name, alloop_main):
    command = COMMANDS[name]
    shown = alloop_main(name, "--help")
    assert shown.code == 0
    assert command.help.split("\n")[0].split(";")[0].split()[0] in shown.out
    assert "-C" in shown.out
    unexplained = [option.name for option in command.params if not getattr(option, "help", None)]
    assert not unexplained
    for option in command.params:
        for spelling in option.opts if option.param_type_name == "option" else ():
            assert spelling in shown.out


def test_help_of_the_program_names_commands_and_exit_codes(alloop_main):
    shown = alloop_main("--help")
    for name in COMMANDS:
        assert name in shown.out
    assert "Exit codes: 0 done, converged; 2 bad input" in " ".join(shown.out.split())


def test_version_in_a_process_of_its_own(alloop_process):
    shown = alloop_process("--version")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.split() == ["alloop", alloop.__version__]


@pytest.mark.parametrize(
    "arguments", [["--colour"], ["check", "--colour"], ["crunch"], ["analyze"], ["init"], ["run", "--iterations", "0"]]
)
def test_wrong_usage(arguments, alloop_main):
    outcome = alloop_main(*arguments)
    assert outcome.code == 2
    assert not outcome.out
    assert "Usage:" in outcome.err
    assert "Traceback" not in outcome.err


# ---------------------------------------------------------------------------------------- init


def test_init_makes_a_folder_in_which_check_finds_nothing(tmp_path, alloop_process):
    if find_spec("sevenn") is None:
        pytest.skip("the quickstart labels with sevennet-0, and sevenn is not installed")
    made = alloop_process("init", "my glass [1]", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "next: alloop check -C my glass [1]" in made.out
    folder = tmp_path / "my glass [1]"
    assert {path.name for path in folder.iterdir()} == {"param.json", "templates"}
    assert (folder / "templates" / "deepmd" / "input.json").is_file()
    assert (folder / "templates" / "lammps" / "melt_quench.in").is_file()
    listed = alloop_process("check", "-C", folder, "--json")
    assert (listed.code, json.loads(listed.out)["problems"]) == (0, [])


def test_init_into_a_folder_relative_to_another(tmp_path, alloop_main):
    (tmp_path / "empty").mkdir()
    assert alloop_main("init", "empty", "-C", tmp_path, "--example", "quickstart").code == 0
    assert config.load(tmp_path / "empty" / "param.json").name == "lbs-quickstart"


def test_init_overwrites_nothing(tmp_path, alloop_main):
    full = tmp_path / "full"
    full.mkdir()
    (full / "param.json").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in (full, tmp_path / "file"):
        refused = alloop_main("init", place)
        assert refused.code == 2
        assert f"{place} is not an empty folder; choose a new one" in refused.err
        assert "Traceback" not in refused.err
    assert [path.name for path in full.iterdir()] == ["param.json"]
    assert (full / "param.json").read_text() == (tmp_path / "file").read_text() == "mine"


def test_init_from_an_unknown_example(tmp_path, alloop_main):
    refused = alloop_main("init", tmp_path / "new", "--example", "quikstart")
    assert refused.code == 2
    assert "no example 'quikstart'; there are: lbs-vasp-slurm, quickstart" in refused.err
    assert not (tmp_path / "new").exists()


def test_init_where_no_folder_can_be(alloop_main):
    refused = alloop_main("init", "/proc/nothing/campaign")
    assert refused.code == 2
    assert refused.err.startswith("alloop: /proc/nothing")
    assert "Traceback" not in refused.err


# ---------------------------------------------------------------------------------------- schema


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Tell whether a JSON value satisfies the part of JSON schema that the schema of `param.json` uses."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    if "anyOf" in schema:
        return any(accepts(option, value, root) for option in schema["anyOf"])
    if "oneOf" in schema:
        return sum(accepts(option, value, root) for option in schema["oneOf"]) == 1
    if value not in schema.get("enum", [schema.get("const", value)]):
        return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "number": number,
        "integer": number and value == int(value),
    }
    if "type" in schema and not kinds[schema["type"]]:
        return False
    if number:
        return schema.get("minimum", value) <= value and not value <= schema.get("exclusiveMinimum", value - 1)
    if isinstance(value, list):
        return all(accepts(schema.get("items", {}), entry, root) for entry in value)
    if isinstance(value, dict) and "properties" in schema:
        others = schema.get("additionalProperties", True)
        known = all(
            accepts(others, value[key], root) if isinstance(others, dict) else others
            for key in value.keys() - schema["properties"].keys()
        )
        complete = set(schema.get("required", ())) <= set(value)
        return bool(known and complete) and all(
            accepts(schema["properties"][key], entry, root)
            for key, entry in value.items()
            if key in schema["properties"]
        )
    return True


def keys_of(model: type[config.Section], prefix: str = "") -> set[str]:
    found = set()
    for key, field in model.model_fields.items():
        found.add(prefix + key)
        sections = [
            kind
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(kind, type) and issubclass(kind, config.Section)
        ]
        listed = "[]" if "list" in str(field.annotation) else ""
        for section in sections:
            found |= keys_of(section, f"{prefix}{key}{listed}.")
    return found


def test_json_schema_accepts_the_shipped_param_json(alloop_process):
    shown = alloop_process("schema", "--json")
    assert shown.code == 0
    schema = json.loads(shown.out)
    assert schema == json.loads(json.dumps(json_schema()))
    shipped = json.loads((REPOSITORY / "param.json").read_text())
    assert accepts(schema, shipped, schema)
    assert accepts(schema, shipped | {"glasses": ["LBS-20-60-20"]}, schema)
    assert not accepts(schema, shipped | {"glasses": ["LBS-20-60-21"]}, schema)
    assert not accepts(schema, shipped | {"trian": {}}, schema)
    assert not accepts(schema, shipped | {"train": {"cutoff_nm": 0.6}}, schema)
    assert not accepts(schema, shipped | {"train": {"models": 0}}, schema)
    assert not accepts(schema, {key: shipped[key] for key in shipped if key != "name"}, schema)
    for events, good in (
        (
            {"under_coordinated_B": {}, "overlap": {"below_A": {"B-O": 1.2}}, "own": {"kind": "density", "quota": 0}},
            True,
        ),
        ({"five_coordinated_Si": {"cutoff_A": 2.1, "by": "O"}}, True),
        ({"five_coordinated_Si": {"quotas": 3}}, False),
        ({"own": {"kind": "coordination"}}, False),
        ({"own": {}}, False),
    ):
        assert accepts(schema, shipped | {"select": {"events": events}}, schema) is good, events
    effective = config.parse(shipped).model_dump(mode="json")
    assert accepts(schema, effective, schema)


def test_json_schema_holds_every_section_and_key():
    schema = json_schema()

    def names(section: dict[str, Any], prefix: str = "") -> set[str]:
        found = set()
        for key, entry in section["properties"].items():
            found.add(prefix + key)
            text = json.dumps(entry)
            listed = "[]" if entry.get("type") == "array" else ""
            for name, inner in schema["$defs"].items():
                if f'"#/$defs/{name}"' in text:
                    found |= names(inner, f"{prefix}{key}{listed}.")
        return found

    assert {key for key in names(schema) if not key.startswith(_VARIED)} == keys_of(config.Param)
    assert {key for key in names(schema) if key.startswith("select.events.")} == {
        f"select.events.{name}" for event in EVENT_MODELS for name in event.model_fields
    }
    assert {key for key in names(schema) if key.startswith("pools.")} == {
        f"pools.{name}" for pool in (LocalPoolParam, BatchPoolParam) for name in pool.model_fields
    }
    assert {key for key in names(schema) if key.startswith("quench.protocol.")} == {
        f"quench.protocol.{name}" for name in StageParam.model_fields
    }
    assert schema["properties"]["glasses"]["items"]["anyOf"][0]["enum"] == sorted(TABLE_1)


def test_schema_table_tells_every_key_with_type_default_and_meaning():
    rows = {row.key: row for _, section in schema_rows().values() for row in section}
    assert {key for key in rows if not key.startswith(_VARIED)} == keys_of(config.Param)
    for row in rows.values():
        assert row.meaning, f"{row.key} has no meaning"
        assert row.kind
        assert not any(word in row.kind for word in ("Annotated", "FieldInfo", "Optional", "dict[", "$"))
    assert rows["name"].default == "required"
    assert (rows["train.models"].kind, rows["train.models"].default) == ("integer ≥ 2", "4")
    assert rows["explore.temperatures_K"].kind == "list of number > 0"
    assert rows["train.backend"].kind == '"tensorflow" | "pytorch" | "jax"'
    assert rows["glasses[].mole_fractions"].kind == "object, text: number ≥ 0 or null"
    assert rows["pools.NAME (local).slots"].default == "null"
    assert rows["quench.protocol"].kind == '"melt-quench" | "short" | "urata2022" or list of sections'
    assert rows["quench.protocol[].rate_K_ps"].kind == "number > 0 or null"
    assert rows["quench.melting_temperature_K"].kind == "number > 0 or object, text: number > 0 or null"
    assert rows["select.events.NAME (ring).size"].kind == "integer ≥ 2, ≤ 12"
    assert rows["select.events"].default == '{"overlap": {}, "five_coordinated_Si": {}}'
    assert json.loads(rows["explore.ramps"].default) == [
        {"from_K": 300, "to_K": 3000},
        {"from_K": 3000, "to_K": 300},
    ]


def test_schema_is_readable_at_80_columns(alloop_process):
    shown = alloop_process("schema")
    assert shown.code == 0
    words = set(shown.out.split())
    for row in (row for _, section in schema_rows().values() for row in section):
        assert row.key.rpartition(".")[2] in words
        assert set(row.meaning.split()) <= words
    assert "…" not in shown.out


# ---------------------------------------------------------------------------------------- plan, glasses of one's own


OWN_GLASSES = [
    {"name": "borate", "mole_fractions": {"B2O3": 0.8, "Li2O": 0.2}, "density_g_cm3": 2.1, "n_atoms": [90]},
    {"name": "percent", "mole_fractions": {"SiO2": 60, "B2O3": 40, "Li2O": 0}, "density_g_cm3": 2.0},
]


def test_glasses_of_ones_own_with_an_oxide_absent(campaign, alloop_main):
    folder = campaign(glasses=OWN_GLASSES)
    assert alloop_main("check", "-C", folder).code == 0
    folder = campaign(glasses=OWN_GLASSES[:1], elements=["Li", "B", "O"])
    assert alloop_main("check", "-C", folder).code == 0
    planned = json.loads(alloop_main("plan", "-C", folder, "--json").out)
    assert planned["tasks"][0] == {
        "kind": "bootstrap",
        "decided": 0,
        "at_most": 2,
        "core_hours": None,
        "gpu_hours": None,
    }


def test_plan_counts_tasks_files_and_runs_nothing(campaign, alloop_main):
    folder = campaign(
        glasses=["LBS-20-60-20", *OWN_GLASSES],
        bootstrap={
            "trajectories": 3,
            "snapshots": 5,
            "strained_copies": 2,
            "crystals": ["B2O3-I"],
            "crystal_copies": 6,
        },
        train={"models": 3},
        explore={"temperatures_K": [300, 900], "ramps": [], "trajectories": 2, "chunks": 4},
        select={"max_labels": 11},
        stop={"max_iterations": 5},
    )
    planned = json.loads(alloop_main("plan", "-C", folder, "--json").out)
    at_most = {row["kind"]: row["at_most"] for row in planned["tasks"]}
    assert at_most["bootstrap"] == 3 * 3 + 1
    assert at_most["label"] == 9 * (5 + 2) + 6 + 5 * 11
    assert at_most["explore"] == 5 * 3 * 2 * 2 * 4
    assert at_most["train"] == 6 * 3
    assert at_most["quench"] == 0
    assert planned["iterations_left"] == 5
    assert planned["core_hours"] is None
    shown = alloop_main("plan", "-C", folder)
    assert shown.code == 0
    assert "unknown until measured" in shown.out
    assert not (folder / "iterations").exists()


def test_plan_counts_the_labels_of_ones_own_structures(campaign, alloop_main):
    from ase.io import write

    from alloop.glass.crystals import crystal

    folder = campaign(bootstrap={"trajectories": 0, "structures": ["own.extxyz"]}, stop={"max_iterations": 1})
    write(folder / "own.extxyz", [crystal("Li2O")] * 7)
    planned = json.loads(alloop_main("plan", "-C", folder, "--json").out)
    assert {row["kind"]: row["at_most"] for row in planned["tasks"]}["label"] == 7 + 100
    (folder / "own.extxyz").unlink()
    refused = alloop_main("plan", "-C", folder)
    assert refused.code == 2
    assert "own.extxyz does not exist" in refused.err


# ---------------------------------------------------------------------------------------- messages


def on_a_terminal(arguments: list[str], columns: int) -> str:
    """Return what a command writes to a terminal of some width."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": str(columns), "TERM": "dumb"}
    command = [sys.executable, "-m", "alloop", *arguments]
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, timeout=60)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


def test_messages_keep_every_word_at_80_columns(campaign, alloop_main):
    folder = campaign(
        train={"template": "deepmd/[bold]mine.json", "cutoff_A": 5.0},
        label={"labeler": "nowhere.calculator:Nowhere"},
        bootstrap={"structures": ["a [red]long name of a file, which is not there.extxyz"]},
    )
    whole = alloop_main("run", "-C", folder).err
    shown = on_a_terminal(["run", "-C", str(folder)], columns=80)
    assert shown.split() == whole.split()
    for line in shown.splitlines():
        assert len(line) <= 80 or len(max(line.split(), key=len)) > 60, line
    assert "[bold]mine.json" in whole
    assert "[red]long name" in whole


def test_extras_in_brackets_are_printed(campaign, alloop_main, monkeypatch):
    from alloop.labelers import ase_calculator

    monkeypatch.setattr(ase_calculator, "find_spec", lambda name: None)
    folder = campaign(label={"labeler": "sevennet-0"})
    assert "pip install 'alloop[quickstart]'" in alloop_main("check", "-C", folder).out
    assert "pip install 'alloop[quickstart]'" in alloop_main("run", "-C", folder).err


def test_stop_and_status_of_a_campaign_that_never_ran(campaign, alloop_main):
    folder = campaign()
    stopped = alloop_main("stop", "-C", folder)
    assert (stopped.code, stopped.out) == (0, "no driver runs here; nothing to stop\n")
    status = json.loads(alloop_main("status", "-C", folder, "--json").out)
    assert "start it with: alloop run" in status["reason"]
    assert alloop_main("stats", "-C", folder, "--json").code == 0
    refused = alloop_main("quench", "-C", folder)
    assert refused.code == 2
    assert "has no quench section" in refused.err
    assert not (folder / "iterations").exists()
