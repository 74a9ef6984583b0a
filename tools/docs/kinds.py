"""The API reference: one page a kind, generated from its CustomResourceDefinition.

One section an object and one row a field, in the order of the CRD, so that a diff of the page is a diff of the API. An
object that has the fields of one before it is linked to that one and not described again.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tools.docs.markdown import anchor_of, code, table

Json = Mapping[str, Any]

_RULES = "x-kubernetes-validations"
_OF_KUBERNETES = frozenset({"apiVersion", "kind", "metadata"})
_PLURALS = {"string": "strings", "integer": "integers", "number": "numbers", "boolean": "booleans"}
_CODE_OR_URI = re.compile(r"(`[^`]*`|(?:pvc|s3|gs|az|https)://[\w/.:-]*\w)")
_MARKS = re.compile(r"[*<\\]|(?<!\w)_|_(?!\w)")
"""What a page would read as a mark."""


@dataclass(frozen=True)
class Section:
    """Where an object is described."""

    page: str
    """File name of the page."""
    path: str
    """The object's path, `[]` for the items of a list."""

    def link(self, page: str) -> str:
        """Return what links lead to it from a page."""
        return f"{'' if page == self.page else self.page}#{anchor_of(self.path)}"


@dataclass
class Sections:
    """Objects that are described already, so that another one with the same fields leads there."""

    whole: dict[str, Section] = field(default_factory=dict)
    without_rules: dict[str, Section] = field(default_factory=dict)
    """For copies of what was admitted, whose rules were taken out."""

    def of(self, node: Json) -> Section | None:
        """Return where an object of these fields is described."""
        return self.whole.get(_identity(node)) or self.without_rules.get(_identity(node))

    def add(self, node: Json, section: Section) -> None:
        """Note where an object is described."""
        self.whole[_identity(node)] = section
        self.without_rules.setdefault(_identity(_without_rules(node)), section)


class KindPage:
    """The page of one kind."""

    def __init__(self, crd: Json, sections: Sections, *, name: str, source: str) -> None:
        """`sections` learns what this page describes; `name` is its file's, `source` the CRD's from the root."""
        self._crd = crd
        self._version = crd["spec"]["versions"][0]
        self._sections = sections
        self._name = name
        self._source = source

    def text(self) -> str:
        """Return the page."""
        schema = self._version["schema"]["openAPIV3Schema"]
        own = {name: node for name, node in schema["properties"].items() if name not in _OF_KUBERNETES}
        parts = [part for name, node in own.items() for part in self._describe(node, name)]
        contents = [f"{'  ' * path.count('.')}- [{path}](#{anchor_of(path)})" for path, _ in parts]
        lines = [*self._head(schema), "", *contents, *(line for path, node in parts for line in self._part(path, node))]
        return "\n".join(lines) + "\n"

    def _describe(self, node: Json, path: str) -> Iterator[tuple[str, Json]]:
        """Yield the objects at and below a field that are not described yet, outer ones first."""
        while "items" in node:
            node, path = node["items"], f"{path}[]"
        if "properties" not in node or self._sections.of(node):
            return
        self._sections.add(node, Section(self._name, path))
        yield path, node
        for name, child in node["properties"].items():
            yield from self._describe(child, f"{path}.{name}")

    def _head(self, schema: Json) -> Iterator[str]:
        names, group = self._crd["spec"]["names"], self._crd["spec"]["group"]
        yield f"# {names['kind']}"
        yield ""
        yield f"<!-- Generated from {self._source} by `make docs`. Do not edit. -->"
        yield ""
        yield f"{schema['description']} `apiVersion: {group}/{self._version['name']}`, `kind: {names['kind']}`."
        yield ""
        yield "A field without a default may be left out unless it is required. Rules are checked by the API server,"
        yield "whose answer is their sentence; the expression behind each is CEL."
        yield from _rules(schema, {})
        yield ""
        short = ", ".join(code(name) for name in names["shortNames"])
        yield f"`kubectl get {names['plural']}` (short: {short}) shows:"
        yield ""
        columns = self._version["additionalPrinterColumns"]
        rows = ((code(each["name"].upper()), code(each["jsonPath"]), _when_shown(each)) for each in columns)
        yield from table(("Column", "Field", "Shown"), rows)

    def _part(self, path: str, node: Json) -> Iterator[str]:
        yield ""
        yield f"{'###' if '.' in path else '##'} {path}"
        yield ""
        yield _prose(node["description"])
        yield ""
        rows = (self._row(path, name, child, node) for name, child in node["properties"].items())
        yield from table(("Field", "Type", "Default", "Allowed", "Description"), rows)
        yield from _rules(node, node["properties"])

    def _row(self, path: str, name: str, child: Json, parent: Json) -> tuple[str, ...]:
        required = name in parent.get("required", ())
        return (
            f'<a id="{path.replace("[]", "")}.{name}"></a>{code(name)}',
            self._type(child, f"{path}.{name}"),
            "**required**" if required else _default(child),
            ", ".join(_allowed(child)),
            _prose(child["description"]),
        )

    def _type(self, node: Json, path: str, *, plural: bool = False) -> str:
        if "items" in node:
            return f"list{'s' if plural else ''} of {self._type(node['items'], f'{path}[]', plural=True)}"
        if "additionalProperties" in node:
            return f"map of {self._type(node['additionalProperties'], path, plural=True)}"
        section = self._sections.of(node) if "properties" in node else None
        if section is not None:
            words = f"[object{'s' if plural else ''}]({section.link(self._name)})"
            return words if (section.page, section.path) == (self._name, path) else f"{words} as {code(section.path)}"
        if node.get("x-kubernetes-int-or-string"):
            return "integers or strings" if plural else "integer or string"
        kind = "time" if node.get("format") == "date-time" else node["type"]
        return _PLURALS.get(kind, f"{kind}s") if plural else kind


def _identity(node: Json) -> str:
    """Return what makes an object's fields what they are, as text; its own description does not."""
    parts = {key: value for key, value in node.items() if key not in {"description", "default"}}
    return json.dumps(parts, sort_keys=True)


def _without_rules(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_rules(value) for key, value in node.items() if key != _RULES}
    return [_without_rules(item) for item in node] if isinstance(node, list) else node


def _when_shown(column: Json) -> str:
    return "with `-o wide`" if column.get("priority") else "always"


def _prose(text: str) -> str:
    """Return a description that shows as it is written: URIs as code, as pages would make links of them."""
    parts = _CODE_OR_URI.split(text)
    plain = (_MARKS.sub(r"\\\g<0>", part) for part in parts[::2])
    marked = [part if part.startswith("`") else code(part) for part in parts[1::2]]
    return "".join(f"{words}{after}" for words, after in zip(plain, [*marked, ""], strict=True))


def _default(node: Json) -> str:
    if "default" not in node:
        return ""
    value = node["default"]
    if "properties" in node and all(node["properties"][key].get("default") == value[key] for key in value):
        return "see its fields"
    plain = isinstance(value, str) and yaml.safe_load(value) == value
    return code(value if plain else json.dumps(value))


def _allowed(node: Json) -> Iterator[str]:
    """Yield what a value must keep, in words; rules stand below the table."""
    yield from (code(value) for value in node.get("enum", ()))
    if "pattern" in node:
        yield f"matching {code(node['pattern'])}"
    yield from _span(node, "minimum", "maximum", "")
    if "enum" not in node:
        yield from _span(node, "minLength", "maxLength", " characters")
    yield from _span(node, "minItems", "maxItems", " items")
    yield from _span(node, "minProperties", "maxProperties", " entries")
    if node.get("x-kubernetes-list-type") == "set":
        yield "each once"
    if "x-kubernetes-list-map-keys" in node:
        yield f"each {' and '.join(map(code, node['x-kubernetes-list-map-keys']))} once"
    inner = node.get("items") or node.get("additionalProperties")
    if inner and "properties" not in inner:
        yield from (f"each {words}" if "enum" not in inner else words for words in _allowed(inner))


def _span(node: Json, low: str, high: str, unit: str) -> Iterator[str]:
    if low in node and high in node:
        yield f"{node[low]} to {node[high]}{unit}"
    elif high in node:
        yield f"at most {node[high]}{unit}"
    elif low in node:
        yield f"at least {node[low]}{unit}"


def _rules(node: Json, fields: Json) -> Iterator[str]:
    """Yield the rules on an object and on those of its fields that have no section of their own."""
    rules = [("", rule) for rule in node.get(_RULES, ())]
    for name, child in fields.items():
        rules += [(f"{code(name)}: ", rule) for rule in _rules_below(child)]
    if rules:
        yield ""
        yield "Rules:"
        yield ""
    for subject, rule in rules:
        yield f"- {subject}{_prose(rule['message'])}  "
        yield f"  {code(rule['rule'])}"


def _rules_below(node: Json) -> Iterator[Json]:
    """Yield the rules on a value, and on what a list or a map holds, as far as that is no object with fields."""
    if "properties" not in node:
        yield from node.get(_RULES, ())
        inner = node.get("items") or node.get("additionalProperties")
        yield from _rules_below(inner) if inner else ()
