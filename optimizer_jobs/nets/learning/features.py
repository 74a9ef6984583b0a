"""What a network holds just before its last layer, and how far a student's are from its teacher's.

Similarity-preserving knowledge distillation (Tung and Mori, ICCV 2019): rows that a teacher finds alike should be alike
for the student, too. Only likenesses within a batch are compared, so both may have any number of features and nothing
has to be learned to bring them to one size.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from optimizer_jobs.nets.conversion.importer import GraphModule, import_module, not_importable

Features = Callable[[tuple[Tensor, ...]], Tensor]
"""Answers a batch of inputs with the teacher's features, one row each."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Watch:
    """Keeps what the last layer of a network was given when the network ran last; gradients go through it."""

    def __init__(self, module: nn.Module) -> None:
        layer = last_layer(module)
        if layer is None:
            raise ValueError("a network without layers has no features")
        self._seen: Tensor | None = None
        self._handle = layer.register_forward_pre_hook(self._keep)

    @property
    def seen(self) -> Tensor:
        """Features of each row, (N, F)."""
        if self._seen is None:
            raise ValueError("the network has not run")
        return self._seen.flatten(1)

    def remove(self) -> None:
        """Leave the network as it was."""
        self._handle.remove()

    def _keep(self, _layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._seen = given[0]


def last_layer(module: nn.Module) -> nn.Module | None:
    """Return the layer that makes the scores: the last linear layer, or else the last convolution."""
    layers = (
        [module.layer_of(step) for step in module.steps] if isinstance(module, GraphModule) else list(module.modules())
    )
    weighted = [layer for layer in layers if isinstance(layer, _LAYERS)]
    linear = [layer for layer in weighted if isinstance(layer, nn.Linear)]
    return next(reversed(linear or weighted), None)


def without_features(model: Path) -> str | None:
    """Return why an ONNX file does not show its features, or None."""
    return not_importable(onnx.load(model, load_external_data=False))


def features_of(model: Path) -> Features:
    """Return an ONNX file's features for a batch; `without_features` says why there are none."""
    module = import_module(model).requires_grad_(requires_grad=False)
    watch = Watch(module)

    def ask(inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            module(*inputs)
        return watch.seen

    return ask


def unlike(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how far the likenesses of rows differ, from 0 to 2; features are (N, F) and (N, G)."""
    return (_likeness(student) - _likeness(teacher)).square().sum() / len(student)


def _likeness(features: Tensor) -> Tensor:
    """Return the product of each row with each other, (N, N), every row of length 1."""
    return functional.normalize(features @ features.T, dim=1)
