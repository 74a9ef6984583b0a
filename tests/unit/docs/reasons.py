"""Collect the reasons that the code can set: the words in its source that reach anything called `reason`.

No module is named, so that code may move. A reason that is put together in a way that this reader does not follow is
not collected, and the page that names it fails its test: extend the reader then.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product

from tests.unit.docs.sources import (
    Callee,
    Function,
    Module,
    Place,
    assigned_in,
    defaults_of,
    nodes_of,
    returned_by,
)

ROOT = "reason"
"""Name of the parameters, fields and keys that hold a reason."""
_CAMEL_CASE = re.compile(r"[A-Z][A-Za-z0-9]+")
_PART = re.compile(r"[A-Za-z0-9]*")
"""What a reason may be put together from; anything else belongs to a sentence."""


class Reader:
    """Follows values backwards from `reason` to the words in the source, until nothing new turns up."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self._modules = {module.name: module for module in modules}
        self._by_name: dict[str, list[Callee]] = defaultdict(list)
        """Methods of all modules."""
        for name, callees in (found for module in modules for found in module.methods.items()):
            self._by_name[name] += callees
        self._givers = [part for module in modules for part in nodes_of(module) if isinstance(part[0], _GIVERS)]
        self._fields = {(module.package, ROOT) for module in modules}
        self._parameters: set[tuple[Callee, str]] = set()
        self._words: dict[tuple[Callee | str, str], set[str]] = defaultdict(set)
        """By function and parameter, or by package and field."""
        self._seen: dict[tuple[ast.expr, int | None], set[str]] = {}
        """What an expression can be, as known in this round; empty while it is being found out."""

    def reasons(self) -> set[str]:
        """Return every word in CamelCase that can become a reason."""
        before = -1
        while before != self._size():
            before = self._size()
            self._seen.clear()
            for node, place in self._givers:
                self._take(node, place)
        words = set().union(*self._words.values())
        return {word for word in words if _CAMEL_CASE.fullmatch(word)}

    def _size(self) -> int:
        return len(self._fields) + len(self._parameters) + sum(map(len, self._words.values()))

    # --- where words are handed to a reason ---------------------------------------------------------------------------

    def _take(self, node: ast.AST, place: Place) -> None:
        if isinstance(node, ast.Call):
            callees = self._callees(node.func, place) or self._methods(node.func, place)
            for callee in callees:
                self._take_call(node, callee, place)
            if not callees:
                self._take_named(((word.arg, word.value) for word in node.keywords), place)
        elif isinstance(node, ast.Dict):
            keys = (key.value if isinstance(key, ast.Constant) else None for key in node.keys)
            self._take_named(zip(keys, node.values, strict=True), place)
        elif isinstance(node, ast.ClassDef):
            self._take_named(defaults_of(node), place)

    def _take_named(self, values: Iterable[tuple[object, ast.expr]], place: Place) -> None:
        for name, value in values:
            if (place.module.package, name) in self._fields:
                self._words[place.module.package, str(name)] |= self._strings(value, place)

    def _take_call(self, call: ast.Call, callee: Callee, place: Place) -> None:
        package = callee.module.package
        is_class = isinstance(callee.node, ast.ClassDef)
        for index, name in enumerate(callee.names):
            if (package, name) in self._fields if is_class else name == ROOT or (callee, name) in self._parameters:
                self._words[package if is_class else callee, name] |= self._argument(call, index, name, place)

    def _argument(self, call: ast.Call, index: int, name: str, place: Place) -> set[str]:
        for keyword in call.keywords:
            if keyword.arg == name:
                return self._strings(keyword.value, place)
        for position, argument in enumerate(call.args[: index + 1]):
            if isinstance(argument, ast.Starred):
                return self._strings(argument.value, place, element=index - position)
            if position == index:
                return self._strings(argument, place)
        return set()

    # --- what an expression can be ------------------------------------------------------------------------------------

    def _strings(self, node: ast.expr, place: Place, *, element: int | None = None) -> set[str]:
        """Return the words that an expression can be; with `element`, those that this part of its tuples can be."""
        if (node, element) not in self._seen:
            self._seen[node, element] = set()
            self._seen[node, element] = self._read(node, place, element)
        return self._seen[node, element]

    def _read(self, node: ast.expr, place: Place, element: int | None) -> set[str]:
        match node:
            case ast.Constant(value=str(word)):
                return {word} if element is None and _PART.fullmatch(word) else set()
            case ast.Name(id=name):
                return self._named(name, place, element)
            case ast.Attribute():
                return self._attribute(node, place) if element is None else set()
            case ast.Call():
                return self._called(node, place, element)
            case ast.JoinedStr(values=parts) if all(_is_part(part) for part in parts):
                return {"".join(words) for words in product(*(self._strings(part, place) for part in parts))}
            case ast.Tuple(elts=parts) if element is not None:
                return self._strings(parts[element], place) if element < len(parts) else set()
            case _:
                return self._any(_alternatives(node), place, element)

    def _any(self, nodes: Iterable[ast.expr], place: Place, element: int | None = None) -> set[str]:
        return {word for node in nodes for word in self._strings(node, place, element=element)}

    def _named(self, name: str, place: Place, element: int | None) -> set[str]:
        words: set[str] = set()
        values = [*assigned_in(place.function.node, name)] if place.function else []
        for value, index in values:
            words |= self._strings(value, place, element=element if index is None else index)
        if place.function and name in place.function.names:
            self._parameters.add((place.function, name))
            return words | self._words[place.function, name]
        module, name = self._resolved(name, place.module)
        if values or module is None or name not in module.constants:
            return words
        return self._strings(module.constants[name], Place(module), element=element)

    def _attribute(self, node: ast.Attribute, place: Place) -> set[str]:
        """Return a member's value, a module's constant, or whatever any field of that name is given."""
        if node.attr == "value":
            return self._strings(node.value, place)
        if isinstance(node.value, ast.Name):
            module, name = self._resolved(node.value.id, place.module)
            if module is not None and name in module.classes:
                return {word for member, word in module.classes[name].members.items() if member == node.attr}
            if module is not None and not name:
                constant = module.constants.get(node.attr)
                return self._strings(constant, Place(module)) if constant else set()
        self._fields.add((place.module.package, node.attr))
        return set(self._words[place.module.package, node.attr])

    def _called(self, call: ast.Call, place: Place, element: int | None) -> set[str]:
        """Return what a function of ours returns; of a few others, what they are given."""
        functions = [callee for callee in self._callees(call.func, place) if isinstance(callee.node, Function)]
        if functions:
            return {
                word
                for callee in functions
                for value in returned_by(callee.node)
                for word in self._strings(value, Place(callee.module, callee), element=element)
            }
        match call.func:
            case ast.Attribute(value=words, attr="get") if self._is_table(words, place):
                return self._any((words, *call.args[1:]), place)
            case ast.Attribute(value=ast.Constant() as between, attr="join"):
                return self._any((between, *call.args), place)
            case ast.Attribute(value=ast.Call() as made):
                return self._strings(made, place)
            case ast.Name():
                return self._any(call.args, place)
            case _:
                return set()

    def _is_table(self, node: ast.expr, place: Place) -> bool:
        """Whether this is a dictionary that is written out, here or as a constant."""
        if isinstance(node, ast.Name):
            module, name = self._resolved(node.id, place.module)
            return module is not None and isinstance(module.constants.get(name), ast.Dict)
        return isinstance(node, ast.Dict)

    # --- what a name stands for ---------------------------------------------------------------------------------------

    def _callees(self, node: ast.expr, place: Place) -> list[Callee]:
        """Return what a name, or a name of a module, stands for."""
        if isinstance(node, ast.Name):
            module, name = self._resolved(node.id, place.module)
            return module.defined(name) if module else []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = self._resolved(node.value.id, place.module)
            return module.defined(node.attr) if module and not name else []
        return []

    def _methods(self, node: ast.expr, place: Place) -> list[Callee]:
        """Return every method of the name that is called on some object; a private one is of the same module."""
        if not isinstance(node, ast.Attribute):
            return []
        return (place.module.methods if node.attr.startswith("_") else self._by_name).get(node.attr, [])

    def _resolved(self, name: str, module: Module) -> tuple[Module | None, str]:
        """Return the module that a name comes from and its name there; None where that is none of ours."""
        if name not in module.imports:
            return module, name
        origin, original = module.imports[name]
        if f"{origin}.{original}" in self._modules:
            return self._modules[f"{origin}.{original}"], ""
        source = self._modules.get(origin)
        return self._resolved(original, source) if source else (None, original)


_GIVERS = (ast.Call, ast.Dict, ast.ClassDef)


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """Return the expressions one of which is the value, or makes a part of it."""
    match node:
        case ast.IfExp(body=body, orelse=other):
            return [body, other]
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.BoolOp(values=parts) | ast.Dict(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            return parts
        case ast.FormattedValue(value=inner) | ast.Starred(value=inner) | ast.Subscript(value=inner):
            return [inner]
        case ast.GeneratorExp(elt=inner) | ast.ListComp(elt=inner):
            return [inner]
        case _:
            return []


def _is_part(node: ast.expr) -> bool:
    """Whether this part of a formatted string can stand in a word, and not only in a sentence."""
    return not isinstance(node, ast.Constant) or bool(_PART.fullmatch(str(node.value)))
