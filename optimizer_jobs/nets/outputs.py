"""What a network takes and answers, as tensors in the order of a signature, whatever its forward is written like.

A forward may answer a dict, a tuple, a dataclass, any of them within another, with None among them. Every tensor gets a
name that does not depend on the others: `logits`, `hidden_states.0`, or `output_1` for the second of a tuple.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optimizer_jobs.signature import Signature

SCORES = ("logits", "scores", "probabilities", "probs")
"""Names that outputs with class scores usually have, the most likely first."""
EMBEDDINGS = ("embedding", "embeddings", "sentence_embedding", "pooler_output")
"""Names that outputs with one vector a row usually have, the most likely first."""


def named(answer: Any, *, only: str = "output", taken: Collection[str] = ()) -> dict[str, Tensor]:
    """Return every tensor of an answer by a name of its own, in the order of forward.

    Args:
        answer: What forward returned.
        only: Name of a tensor that has none, where it is the only one.
        taken: Names of inputs; an output of such a name gets `_output` behind it.
    """
    tensors = list(_flat(answer, ()))
    if len(tensors) == 1 and all(part.isdecimal() for part in tensors[0][0]):
        return {only: tensors[0][1]}
    names = (_name(path) for path, _ in tensors)
    unique = (f"{name}_output" if name in taken else name for name in names)
    return dict(zip(unique, (tensor for _, tensor in tensors), strict=True))


def _flat(answer: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield every tensor within an answer, with the keys that lead to it."""
    if isinstance(answer, Tensor):
        yield path, answer
    for key, value in _parts(answer):
        yield from _flat(value, (*path, str(key)))


def _parts(answer: Any) -> Sequence[tuple[Any, Any]]:
    """Return the members of a container with their keys; none for anything else."""
    if isinstance(answer, Mapping):
        return list(answer.items())
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return list(zip(answer._fields, answer, strict=True))
    if isinstance(answer, tuple | list):
        return list(enumerate(answer))
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return [(field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer)]
    return ()


def _name(path: tuple[str, ...]) -> str:
    name = ".".join(path)
    return f"output_{name}" if path[0].isdecimal() else name


def likely_scores(outputs: Mapping[str, Tensor], *, names: Sequence[str] = SCORES, width: int = 0) -> str | None:
    """Return the name of the output that most likely holds what the task is about; None without floating point output.

    Args:
        outputs: Outputs by name.
        names: Usual names of such an output, the most likely first.
        width: Number of classes, or of numbers to predict; 0 where it is not known.
    """
    floats = {name: values for name, values in outputs.items() if values.is_floating_point()}
    by_name = {name.rpartition(".")[2].lower(): name for name in reversed(floats)}
    usual = next((by_name[name] for name in names if name in by_name), None)
    if usual is not None:
        return usual
    rows = {name: values for name, values in floats.items() if values.ndim == 2 or (values.ndim == 1 and width == 1)}
    wide = sorted((_width(values), place) for place, values in enumerate(rows.values()) if _width(values) >= width > 0)
    if wide:
        return list(rows)[wide[0][1]]
    return next(iter(rows or floats), None)


def _width(values: Tensor) -> int:
    return values.shape[1] if values.ndim == 2 else 1


def answering(module: nn.Module, signature: Signature) -> list[RemovableHandle]:
    """Make a network take its inputs by position and answer its outputs as a tuple, in the order of a signature.

    The network keeps its weights and their names. One that answers one tensor goes on doing so.

    Args:
        module: Network as its owner wrote it; changed in place.
        signature: Inputs, named like the parameters of forward where it has such, and outputs as `named` names them.

    Returns:
        What undoes the change.
    """
    outputs = [tensor.name for tensor in signature.outputs]
    inputs = [tensor.name for tensor in signature.inputs]
    parameters, handles = parameters_of(module.forward), []
    if set(inputs) <= set(parameters) and inputs != list(parameters[: len(inputs)]):
        handles.append(module.register_forward_pre_hook(_by_name(inputs), with_kwargs=True))
    return [*handles, module.register_forward_hook(_in_order(outputs, inputs))]


@contextmanager
def in_order(module: nn.Module, signature: Signature) -> Iterator[None]:
    """Apply `answering` until the context closes."""
    handles = answering(module, signature)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def parameters_of(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters that can be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, parameter in inspect.signature(forward).parameters.items() if parameter.kind in kinds)


def _by_name(names: Sequence[str]) -> Callable[..., Any]:
    def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        # the exporter puts defaults of further parameters behind the inputs
        return (), {**dict(zip(names, arguments, strict=False)), **keywords}

    return hook


def _in_order(names: Sequence[str], taken: Sequence[str]) -> Callable[..., Any]:
    def hook(_: nn.Module, __: tuple[Any, ...], answer: Any) -> Tensor | tuple[Tensor, ...]:
        tensors = named(answer, only=names[0], taken=taken)
        return tensors[names[0]] if len(names) == 1 else tuple(tensors[name] for name in names)

    return hook
