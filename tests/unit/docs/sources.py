"""Source files as syntax trees: what each defines, what its functions are given and return, and where names come from.

Nothing is imported or run.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definitions = defaultdict[str, list["Callee"]]


@dataclass(eq=False)
class Callee:
    """A function with its parameters, or a class with its fields, in the order in which a call gives them."""

    module: "Module"
    node: Function | ast.ClassDef
    names: tuple[str, ...]
    members: dict[str, str] = field(default_factory=dict)
    """Of an enumeration: member to value."""


@dataclass(eq=False)
class Module:
    """One source file."""

    name: str
    tree: ast.Module
    functions: Definitions = field(default_factory=lambda: defaultdict(list))
    methods: Definitions = field(default_factory=lambda: defaultdict(list))
    classes: dict[str, Callee] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Local name to module and name there."""

    @property
    def package(self) -> str:
        """The package at the top: what a field's name means, it means within one."""
        return self.name.partition(".")[0]

    def defined(self, name: str) -> list[Callee]:
        """Return the class or the functions of that name."""
        own = self.classes.get(name)
        return [own] if own else self.functions.get(name, [])


@dataclass(frozen=True)
class Place:
    """Where an expression stands: its names are looked up here."""

    module: Module
    function: Callee | None = None


def modules_of(packages: Iterable[Path], *, without: Iterable[Path] = ()) -> list[Module]:
    """Return the modules of packages, without those in some folders."""
    left_out = tuple(without)
    return [
        _module(path, package=package)
        for package in packages
        for path in sorted(package.rglob("*.py"))
        if not any(path.is_relative_to(folder) for folder in left_out)
    ]


def _module(path: Path, *, package: Path) -> Module:
    parts = path.relative_to(package.parent).with_suffix("").parts
    module = Module(".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text(encoding="utf-8")))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module.imports |= {each.asname or each.name: (node.module, each.name) for each in node.names}
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                home = module.methods if isinstance(node, ast.ClassDef) else module.functions
                home[child.name].append(Callee(module, child, _parameters(child)))
            elif isinstance(child, ast.ClassDef):
                module.classes[child.name] = Callee(module, child, _fields(child), _members(child))
    module.constants |= dict(_bound(module.tree.body))
    return module


def nodes_of(module: Module) -> Iterator[tuple[ast.AST, Place]]:
    """Yield every node of a module with the function that it stands in."""
    return _nodes(module.tree, Place(module))


def _nodes(node: ast.AST, place: Place) -> Iterator[tuple[ast.AST, Place]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            known = (*place.module.functions[child.name], *place.module.methods[child.name])
            yield from _nodes(child, Place(place.module, next(each for each in known if each.node is child)))
        else:
            yield child, place
            yield from _nodes(child, place)


def _parameters(node: Function) -> tuple[str, ...]:
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return tuple(names[1:] if names[:1] in (["self"], ["cls"]) else names)


def _fields(node: ast.ClassDef) -> tuple[str, ...]:
    """Return what a class is made from: its constructor's parameters, or its annotated fields."""
    constructor = next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)
    if constructor is not None:
        return _parameters(constructor)
    annotated = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
    return tuple(target.id for target in annotated if isinstance(target, ast.Name))


def _members(node: ast.ClassDef) -> dict[str, str]:
    constants = ((name, value) for name, value in _bound(node.body) if isinstance(value, ast.Constant))
    return {name: value.value for name, value in constants if isinstance(value.value, str)}


def defaults_of(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield the fields of a class that have a default, with it."""
    return _bound(each for each in node.body if isinstance(each, ast.AnnAssign))


def _bound(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that these statements bind, with their values; tuples are taken apart where they can be."""
    for targets, value in map(_assignment, statements):
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                yield target.id, value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts, strict=True)
                yield from ((name.id, inner) for name, inner in pairs if isinstance(name, ast.Name))


def assigned_in(function: ast.AST, name: str) -> Iterator[tuple[ast.expr, int | None]]:
    """Yield what a function assigns to a name, with the part of it where it is taken out of a tuple."""
    for targets, value in map(_assignment, ast.walk(function)):
        if value is None:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id == name:
                yield value, None
            elif isinstance(target, ast.Tuple):
                for index, part in enumerate(target.elts):
                    if isinstance(part, ast.Name) and part.id == name:
                        yield value, index


def _assignment(node: ast.AST) -> tuple[list[ast.expr], ast.expr | None]:
    """Return the targets of an assignment with its value; of a loop over single values, what is looped over."""
    match node:
        case ast.Assign(targets=targets, value=value):
            return targets, value
        case ast.AnnAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            return [target], value
        case (
            ast.For(target=ast.Name() as target, iter=value)
            | ast.comprehension(target=ast.Name() as target, iter=value)
        ):
            return [target], value
        case _:
            return [], None


def returned_by(function: ast.AST) -> Iterator[ast.expr]:
    """Yield what a function returns."""
    values = (node.value for node in ast.walk(function) if isinstance(node, ast.Return))
    return (value for value in values if value is not None)
