"""The generated references: whole, in step with their sources, and shown as they are written."""

import argparse
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.cli.main import parser
from tools.docs.__main__ import CRDS, FOLDER, main, pages
from tools.docs.commands import command_page
from tools.docs.kinds import KindPage, Sections
from tools.docs.markdown import Page

Json = Mapping[str, Any]

ROOT = Path(__file__).resolve().parents[3]
PAGES = pages(ROOT)
NOTED = {"description": "A field."}


def crd(**spec: Json) -> Json:
    """A CRD of a kind with these fields in its spec."""
    node = {"type": "object", "description": "What is wanted.", "properties": spec}
    schema = {"description": "A thing.", "properties": {"metadata": {"type": "object"}, "spec": node}}
    version = {"name": "v1", "additionalPrinterColumns": [], "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Thing", "plural": "things", "singular": "thing", "shortNames": ["th"]}
    return {"spec": {"names": names, "group": "example.dev", "scope": "Namespaced", "versions": [version]}}


def row(page: str, name: str) -> list[str]:
    """The cells of a field's row, without its name."""
    (line,) = (line for line in page.splitlines() if f'<a id="{name}"></a>' in line)
    return [cell.strip() for cell in line.replace("\\|", "/").split("|")[2:-1]]


def page_of(**spec: Json) -> str:
    """The page of a kind with these fields in its spec."""
    return KindPage(crd(**spec), Sections(), name="thing.md", source="thing.yaml").text()


def fields(node: Json, path: str) -> Iterator[tuple[str, str]]:
    """Every field below a node, and the path of the object that it is a field of."""
    while "items" in node:
        node = node["items"]
    for name, child in node.get("properties", {}).items():
        yield path, name
        yield from fields(child, f"{path}.{name}")


@pytest.mark.parametrize("source", CRDS, ids=lambda path: path.stem)
def test_every_field_can_be_linked(source: Path) -> None:
    """A field has a row of its own, unless its object is described under another field that its own row leads to."""
    document = yaml.safe_load((ROOT / source).read_text())
    text = PAGES[FOLDER / f"{document['spec']['names']['singular']}.md"]
    anchors = Page(text).anchors()
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    tops = {name: schema["properties"][name] for name in ("spec", "status")}
    paths = [(path, name) for top, node in tops.items() for path, name in fields(node, top)]
    absent = {path for path, name in paths if f"{path}.{name}" not in anchors}
    inside = {path for path in absent if any(path.startswith(f"{other}.") for other in absent)}
    assert len(paths) > 100
    assert [path for path in absent - inside if " as `" not in row(text, path)[0]] == []


def test_a_row_says_what_the_schema_says() -> None:
    """Type, default, bounds and whether it must be given, as the API server enforces them."""
    text = PAGES[FOLDER / "modeloptimization.md"]
    assert row(text, "spec.search.maxTrials")[:3] == ["integer", "`24`", "1 to 1000"]
    assert row(text, "spec.search.maxTrials")[3].endswith(".")
    assert row(text, "spec.model.uri")[:2] == ["string", "**required**"]
    assert row(text, "spec.deletionPolicy")[1:3] == ["`KeepChampion`", "`KeepChampion`, `RestoreOriginal`"]
    assert row(text, "spec.objectives.tolerance")[1] == '`"0"`'


def test_a_value_of_every_shape_has_words() -> None:
    """Lists, maps, times, sets and spans that are open at one end."""
    short = {"type": "string", "maxLength": 5}
    text = page_of(
        names={**NOTED, "type": "array", "items": short, "maxItems": 3, "x-kubernetes-list-type": "set"},
        marks={**NOTED, "type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2},
        when={**NOTED, "type": "string", "format": "date-time"},
        count={**NOTED, "type": "integer", "minimum": 1},
        like={**NOTED, "type": "string", "pattern": "a|b"},
    )
    bounds = "at most 3 items, each once, each at most 5 characters"
    assert row(text, "spec.names") == ["list of strings", "", bounds, "A field."]
    assert row(text, "spec.marks")[:3] == ["map of strings", "", "at most 2 entries"]
    assert row(text, "spec.when")[0] == "time"
    assert row(text, "spec.count")[2] == "at least 1"
    assert row(text, "spec.like")[2] == "matching `a/b`"


def test_a_rule_stands_with_its_sentence() -> None:
    """Rules of an object and of its plain fields are below the object's table, each with its expression."""
    rule = {"rule": "self.size() < 5 || self == 'x'", "message": "keep it short"}
    text = page_of(name={"type": "string", "description": "Name.", "x-kubernetes-validations": [rule]})
    assert "- `name`: keep it short  \n  `self.size() < 5 || self == 'x'`\n" in text


def test_an_object_with_the_same_fields_leads_to_the_first() -> None:
    """What has been described once is linked, with the path under which it is."""
    node = {
        "type": "object",
        "description": "Data.",
        "properties": {"uri": {"type": "string", "description": "Where."}},
    }
    text = page_of(first=node, second={**node, "description": "Other data."})
    assert row(text, "spec.first")[0] == "[object](#specfirst)"
    assert row(text, "spec.second")[0] == "[object](#specfirst) as `spec.first`"
    assert text.count("### spec.") == 1


def test_texts_show_as_they_are_written() -> None:
    """No description becomes emphasis, markup or a link to somewhere by accident."""
    text = page_of(name={"type": "string", "description": "Letters and _ or * or <b>, as in pvc://CLAIM/PATH or _x_."})
    assert row(text, "spec.name")[-1] == "Letters and \\_ or \\* or \\<b>, as in `pvc://CLAIM/PATH` or \\_x\\_."


@pytest.mark.slow
def test_a_stale_page_is_named_with_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed CRD or parser is noticed, page by page, until the pages are written again."""
    shutil.copytree(ROOT / "crds", tmp_path / "crds")
    assert main(["--check"], root=tmp_path) == 1
    assert "docs/reference/cli.md is stale: run `make docs`\n" in capsys.readouterr().err
    assert main([], root=tmp_path) == 0
    assert main(["--check"], root=tmp_path) == 0
    (tmp_path / FOLDER / "cli.md").write_text("old")
    assert main(["--check"], root=tmp_path) == 1
    assert capsys.readouterr().err == "docs/reference/cli.md is stale: run `make docs`\n"


def test_every_option_of_every_command_is_described() -> None:
    """Usage, arguments in the order of a person who reads, defaults, and the exit codes."""
    text = PAGES[FOLDER / "cli.md"]
    (commands,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        section = text.partition(f"## retune {name}\n")[2].partition("\n## ")[0]
        options = [option for action in command._actions for option in action.option_strings if action.dest != "help"]
        assert [option for option in options if f"`{option}" not in section] == []
    assert "waits for a person" in text.partition("## Exit codes")[2]


def test_a_usage_line_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is generated must not depend on whose window it was generated in."""
    monkeypatch.setenv("COLUMNS", "20")
    assert command_page(parser(), source="operator/retune/cli") == PAGES[FOLDER / "cli.md"]
