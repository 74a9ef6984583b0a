"""Networks that learn the answers of another model: how a student is built, and how any model becomes a teacher.

A student has the same outputs in the same order as the model that it replaces, labels included.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.nets.catalogue import image_net, mlp
from optimizer_jobs.nets.factory import network
from optimizer_jobs.nets.learning.answerable import not_answerable
from optimizer_jobs.nets.learning.lesson import Teacher
from optimizer_jobs.nets.learning.losses import scores_of
from optimizer_jobs.nets.learning.settings import FACTORY, LIMITS
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Params
from retune.api.own_code import Factory

Activation = Callable[[Tensor], Tensor]
"""Makes probabilities of logits (N, C)."""

_IMAGE_AXES = 4
_PIXELS = "uint8"
_SMALLEST_IMAGE = 4
"""Pixels a side from which an input is treated as an image."""


def not_learnable(signature: Signature) -> str | None:
    """Return why no student of the catalogue takes these inputs and gives these outputs, or None."""
    for tensor in signature.inputs:
        if not tensor.is_float and not (tensor.dtype == _PIXELS and _is_image(signature)):
            return f"input {tensor.name} holds {tensor.dtype}: name the student's factory in distillation.student"
        if any(size < 0 for size in tensor.shape[1:]):
            return f"input {tensor.name} has no fixed size: name the student's factory in distillation.student"
    return not_answerable(signature)


def _is_image(signature: Signature) -> bool:
    """Return whether the only input is an image (N, C, H, W)."""
    shape = signature.inputs[0].shape if len(signature.inputs) == 1 else ()
    return len(shape) == _IMAGE_AXES and min(shape[2:]) >= _SMALLEST_IMAGE


def student(params: Params, signature: Signature) -> nn.Module:
    """Return a new network in evaluation mode, as the parameters of technique Distillation describe it.

    Args:
        params: `factory`, the JSON of a Factory, or nothing for a network of the catalogue; arguments of the factory;
            and hyperparameters, which do not matter here.
        signature: Inputs and outputs of the model that the student replaces.
    """
    arguments = {name: value for name, value in params.items() if name != FACTORY and name not in LIMITS}
    if FACTORY in params:
        return network(Factory.model_validate_json(str(params[FACTORY])), overrides=arguments).eval()
    width, depth, dropout = int(arguments["width"]), int(arguments["depth"]), float(arguments.get("dropout", 0.0))
    return student_for(signature, width=width, depth=depth, dropout=dropout).eval()


def student_for(signature: Signature, *, width: int, depth: int, dropout: float = 0.0) -> nn.Module:
    """Return a new network that takes the inputs and gives as many scores as the model.

    It is a convolutional network for one input of images (N, C, H, W), whose whole numbers are read as shares of 255;
    else a perceptron over all inputs side by side.

    Raises:
        ValueError: `not_learnable` says why.
    """
    reason = not_learnable(signature)
    score = signature.score_output
    if reason is not None or score is None:
        raise ValueError(reason)
    if _is_image(signature):
        (image,) = signature.inputs
        _, channels, height, breadth = image.shape
        sides, outputs = (height, breadth), score.row_size
        net = image_net(channels=channels, sides=sides, outputs=outputs, width=width, depth=depth, dropout=dropout)
        return net if image.is_float else nn.Sequential(_Shares(), *net)
    inputs = sum(prod(tensor.shape[1:]) for tensor in signature.inputs)
    return SideBySide(mlp(inputs=inputs, outputs=score.row_size, width=width, depth=depth, dropout=dropout))


def teacher_from(model: Path, signature: Signature, *, threads: int) -> Teacher:
    """Return an ONNX file as a teacher. The engine computes its answers, so any file that it opens will do.

    Raises:
        ValueError: The model has no floating point output.
    """
    session = open_model(model, EngineOptions(threads=threads))
    score = signature.score_output
    if score is None:
        raise ValueError("a model without floating point output cannot teach")
    names = [tensor.name for tensor in signature.inputs]

    def answer(inputs: tuple[Tensor, ...]) -> Tensor:
        feeds = {name: values.detach().numpy() for name, values in zip(names, inputs, strict=True)}
        return torch.from_numpy(np.asarray(session.run(feeds)[score.name], dtype=np.float32))

    return answer


def answering(student: nn.Module, *, activation: Activation | None, column: bool) -> nn.Module:
    """Return the student with answers in the form of the model that it replaces.

    Args:
        student: Answers logits (N, C), or one number (N, 1).
        activation: What makes probabilities of logits, where the model answers such.
        column: Whether the model answers one number as (N,).
    """
    return _Answering(student, activation=activation, column=column).eval()


class _Answering(nn.Module):  # type: ignore[misc] # the library has no types
    """A student whose output has the form of another model's."""

    def __init__(self, student: nn.Module, *, activation: Activation | None, column: bool) -> None:
        super().__init__()
        self.student, self.activation, self.column = student, activation, column

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the scores in the form of the model."""
        scores = scores_of(self.student(*inputs))
        if self.column:
            return scores.reshape(-1)
        return scores if self.activation is None else self.activation(scores)


class _Shares(nn.Module):  # type: ignore[misc] # the library has no types
    """Reads pixels of 0 to 255 as shares."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return 0 to 1."""
        return pixels.float() / 255


class SideBySide(nn.Module):  # type: ignore[misc] # the library has no types
    """A network over all inputs of a row, flattened and joined."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the network's answers to the joined inputs."""
        return torch.as_tensor(self.network(torch.cat([values.flatten(1).float() for values in inputs], dim=1)))
