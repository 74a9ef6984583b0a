"""Hidden features of a network, the input of its last layer, and how far those of a student are from its teacher's.

Similarity-preserving knowledge distillation (Tung and Mori, ICCV 2019): rows that are similar for the teacher should be
similar for the student, too. Only similarities within a batch are compared, so student and teacher may have different
numbers of features, and nothing has to be learned to map one to the other.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from optimizer_jobs.nets.conversion.importer import GraphModule, import_module, not_importable

Features = Callable[[tuple[Tensor, ...]], Tensor]
"""Returns the teacher's features, (N, F), for a batch of inputs."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Watch:
    """Keeps the input of the last layer of a network from its last run; gradients go through it."""

    def __init__(self, module: nn.Module) -> None:
        layer = last_layer(module)
        if layer is None:
            raise ValueError("a network without layers has no features")
        self._seen: Tensor | None = None
        self._handle = layer.register_forward_pre_hook(self._keep)

    @property
    def seen(self) -> Tensor:
        """Features of each row of the last run, (N, F)."""
        if self._seen is None:
            raise ValueError("the network has not run")
        return self._seen.flatten(1)

    def remove(self) -> None:
        """Stop watching; the network is as before."""
        self._handle.remove()

    def _keep(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0]


def last_layer(module: nn.Module) -> nn.Module | None:
    """Return the layer that computes the scores: the last linear layer, or else the last convolution."""
    layers = (
        [module.layer_of(step) for step in module.steps] if isinstance(module, GraphModule) else list(module.modules())
    )
    weighted = [layer for layer in layers if isinstance(layer, _LAYERS)]
    linear = [layer for layer in weighted if isinstance(layer, nn.Linear)]
    return next(reversed(linear or weighted), None)


def without_features(model: Path) -> str | None:
    """Return why the features of an ONNX file cannot be seen, or None."""
    return not_importable(onnx.load(model, load_external_data=False))


def features_of(model: Path) -> Features:
    """Return what computes the features of an ONNX file for a batch.

    Raises:
        NotImportableError: `without_features` says why.
        ValueError: The file has no layers.
    """
    module = import_module(model).requires_grad_(requires_grad=False)
    watch = Watch(module)

    def features(inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            module(*inputs)
        return watch.seen

    return features


def unlike(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how much the similarities of rows differ, 0 when they are the same; features are (N, F) and (N, G)."""
    return (_similarities(student) - _similarities(teacher)).square().sum() / len(student)


def _similarities(features: Tensor) -> Tensor:
    """Return the products of all pairs of rows, (N, N), with each line scaled to length 1."""
    return functional.normalize(features @ features.T, dim=1)
