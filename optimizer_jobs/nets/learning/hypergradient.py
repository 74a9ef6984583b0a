"""Continuous hyperparameters found by following the gradient of the validation loss through the whole training.

The training is unrolled: the same batches, AdamW and schedule as in the loop, written so that its end can be
differentiated by its hyperparameters. Among them is the noise of every single number of the inputs, which no search by
trials could find. Only what is found goes into the normal training, no weights; the validation rows are used as any
search uses them: to compare hyperparameters, never to learn weights.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from optimizer_jobs.nets.learning.lesson import Lesson
from optimizer_jobs.nets.learning.losses import scores_of
from optimizer_jobs.nets.learning.parts import Number, Part, parts
from optimizer_jobs.nets.learning.rows import Ask, Samples, filled, shuffled
from optimizer_jobs.nets.learning.settings import Settings
from optimizer_jobs.progress import say
from retune.api.model import Task

Weights = dict[str, Tensor]
Hyper = dict[str, Tensor]
"""Logarithms of hyperparameters by name. `input_noise.0` is that of the first input, one number for each of a row's."""

OUTER_STEPS = 10
MOST_STEPS = 160
"""Steps that are unrolled, at most; a longer training is unrolled as a shorter one with the same schedule."""
FEWEST_STEPS = 20
"""With room for fewer, the end of training says too little about its hyperparameters."""
MEMORY_BYTES = 1 << 30
_COPIES = 16
"""Tensors of a weight's size that one unrolled step holds, about."""
_NOISE = "input_noise"
_OUTER_RATE, _OUTER_BETAS = 1.0, (0.5, 0.8)
_BETAS, _TINY = (0.9, 0.999), 1e-8

RANGES = {
    "learning_rate": (1e-5, 0.3),
    "weight_decay": (1e-4, 30.0),
    "head_rate": (0.05, 20.0),
    "head_decay": (0.05, 20.0),
    "label_smoothing": (5e-3, 0.5),
    "input_noise": (2e-2, 2.0),
}
"""Smallest and largest value of what is learned. None is 0: there, nothing moves it on a logarithmic scale."""
NOISE_START = 0.2
MOST_NOISES = 4096
"""Numbers in a row, at most, for each of which a noise of its own is learned; a larger input has one for all."""


def learned(lesson: Lesson) -> Lesson:
    """Return the lesson with the hyperparameters for which the validation loss after training was smallest.

    It comes back as it was, with a line that says so, when the network is too large to unroll its training.
    """
    plain = dataclasses.replace(lesson, settings=dataclasses.replace(lesson.settings, learned=False))
    steps = unrolled_steps(plain)
    if steps < FEWEST_STEPS:
        say("hyperparameters are not learned: the network is too large to differentiate through its training")
        return plain
    say(f"learning hyperparameters through {steps} steps of training, {OUTER_STEPS} times")
    found = descend(plain, steps=steps, outer=OUTER_STEPS)
    return plain if found is None else _with(plain, found)


def unrolled_steps(lesson: Lesson) -> int:
    """Return how many steps of the training are unrolled: all of them where they fit."""
    size: int = sum(weight.numel() * weight.element_size() for weight in lesson.module.parameters())
    return min(lesson.steps, MOST_STEPS, MEMORY_BYTES // max(1, _COPIES * size))


def descend(lesson: Lesson, *, steps: int, outer: int) -> Hyper | None:
    """Follow the gradient `outer` times and return the best point seen, the start included; None: all diverged."""
    hyper = start(lesson)
    optimizer = torch.optim.Adam(hyper.values(), lr=_OUTER_RATE, betas=_OUTER_BETAS)
    best, found = math.inf, None
    for _ in range(outer):
        loss = validation_loss(lesson, hyper, steps=steps)
        if not bool(torch.isfinite(loss)):
            hyper["learning_rate"].data -= 1.0
            continue
        if loss.item() < best:
            best, found = loss.item(), {name: value.detach().clone() for name, value in hyper.items()}
        optimizer.zero_grad()
        loss.backward()
        _follow(hyper, optimizer)
    return found


def start(lesson: Lesson) -> Hyper:
    """Return the hyperparameters that this training has, where they start."""
    values = {name: torch.tensor(float(getattr(lesson.settings, name))) for name in _names(lesson)}
    for number, values_of_one in enumerate(lesson.learned.inputs):
        if values_of_one.is_floating_point():
            shape = values_of_one.shape[1:] if values_of_one[0].numel() <= MOST_NOISES else ()
            values[f"{_NOISE}.{number}"] = torch.full(shape, lesson.settings.input_noise or NOISE_START)
    return {name: value.double().clamp(*_range(name)).log().requires_grad_() for name, value in values.items()}


def _with(lesson: Lesson, hyper: Hyper) -> Lesson:
    """Return the lesson with the values of hyperparameters."""
    values = {name: value.exp() for name, value in hyper.items()}
    numbers: dict[str, Any] = {name: float(value) for name, value in values.items() if not name.startswith(_NOISE)}
    noise = _noise(lesson, values)
    if noise is not None:
        numbers[_NOISE] = float(torch.cat([level.flatten() for level in noise]).mean())
    settings = dataclasses.replace(lesson.settings, **numbers)
    return dataclasses.replace(lesson, settings=settings, noise=noise)


def _noise(lesson: Lesson, values: Hyper) -> tuple[Tensor, ...] | None:
    """Return the noise of each input, 0 for those that are no floating point numbers."""
    inputs = enumerate(lesson.learned.inputs)
    levels = [
        values[f"{_NOISE}.{number}"].to(one.dtype) if f"{_NOISE}.{number}" in values else torch.zeros(())
        for number, one in inputs
    ]
    return tuple(levels) if any(name.startswith(_NOISE) for name in values) else None


def validation_loss(lesson: Lesson, hyper: Hyper, *, steps: int) -> Tensor:
    """Return the loss on validation at the end of training; it can be differentiated by the hyperparameters."""
    with sdpa_kernel(SDPBackend.MATH):
        weights, buffers = unroll(lesson, hyper, steps=steps)
        lesson.module.eval()
        scores = [
            _ask(lesson, weights, buffers)(batch.inputs) for batch in filled(lesson.held, lesson.settings.batch_size)
        ]
        return lesson.held_loss(lesson.held, torch.cat(scores)[: len(lesson.held)])


def unroll(lesson: Lesson, hyper: Hyper, *, steps: int) -> tuple[Weights, Weights]:
    """Return weights and buffers after so many steps of AdamW from the module's own, which stay as they are."""
    trained = parts(lesson.module, unit=lesson.unit)
    own = dict(lesson.module.named_parameters())
    weights = {name: own[name].detach().clone().requires_grad_() for name in trained}
    values = {name: value.exp().to(next(iter(weights.values())).dtype) for name, value in hyper.items()}
    softened = tuple(one for one in lesson.transforms if not one.judged)
    plain = dataclasses.replace(lesson, transforms=softened, noise=_noise(lesson, values))
    buffers = {name: buffer.clone() for name, buffer in lesson.module.named_buffers()}
    state = _State.of(weights)
    generator = torch.Generator().manual_seed(lesson.seed)
    torch.manual_seed(lesson.seed)
    lesson.module.train()
    for step, batch in zip(range(steps), _endless(lesson, generator), strict=False):
        prepared = plain.prepared(batch, generator)
        loss = plain.batch_loss(prepared, ask=_ask(lesson, weights, buffers), smoothing=values.get("label_smoothing"))
        gradients = torch.autograd.grad(
            loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        named = _clipped(dict(zip(weights, gradients, strict=True)), lesson.settings.clip_norm)
        share = lesson.share(step * lesson.steps // steps)
        rates = {name: _rate(part, values, lesson.settings) * share for name, part in trained.items()}
        decays = {name: _decay(part, values, lesson.settings) for name, part in trained.items()}
        weights, state = _adamw(weights, named, state, rates=rates, decays=decays)
    return weights, buffers


@dataclass(frozen=True)
class _State:
    """Running means of gradients and of their squares after a number of steps."""

    means: Weights
    squares: Weights
    steps: int

    @classmethod
    def of(cls, weights: Weights) -> "_State":
        zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        return cls(zeros, zeros, 0)


def _adamw(
    weights: Weights, gradients: Weights, state: _State, *, rates: dict[str, Number], decays: dict[str, Number]
) -> tuple[Weights, _State]:
    """Return weights and state after one step of AdamW, without writing into the old ones."""
    first, second = _BETAS
    steps = state.steps + 1
    means = {name: first * state.means[name] + (1 - first) * one for name, one in gradients.items()}
    squares = {name: second * state.squares[name] + (1 - second) * one.square() for name, one in gradients.items()}
    new = {}
    for name, weight in weights.items():
        root = (squares[name] / (1 - second**steps) + _TINY**2).sqrt()
        moved = means[name] / (1 - first**steps) / (root + _TINY)
        new[name] = weight * (1 - rates[name] * decays[name]) - rates[name] * moved
    return new, _State(means, squares, steps)


def _clipped(gradients: Weights, longest: float) -> Weights:
    norm = torch.sqrt(sum((one.square().sum() for one in gradients.values()), torch.tensor(_TINY**2)))
    factor = (longest / (norm + 1e-6)).clamp_max(1.0)
    return {name: one * factor for name, one in gradients.items()}


def _names(lesson: Lesson) -> list[str]:
    """Return the hyperparameters of one number that this training can be differentiated by."""
    trained = parts(lesson.module)
    names = ["learning_rate", "weight_decay"]
    if len({part.head for part in trained.values()}) == 2:
        names += ["head_rate", "head_decay"]
    if lesson.task is Task.CLASSIFICATION and lesson.loss is None and lesson.learned.targets is not None:
        names.append("label_smoothing")
    return names


def _follow(hyper: Hyper, optimizer: torch.optim.Optimizer) -> None:
    """Take one step against the gradient and stay within the ranges."""
    for value in hyper.values():
        if value.grad is not None:
            value.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    optimizer.step()
    with torch.no_grad():
        for name, value in hyper.items():
            value.clamp_(*(math.log(bound) for bound in _range(name)))


def _range(name: str) -> tuple[float, float]:
    return RANGES[name.partition(".")[0]]


def _ask(lesson: Lesson, weights: Weights, buffers: Weights) -> Ask:
    return lambda inputs: scores_of(functional_call(lesson.module, (weights, buffers), inputs))


def _endless(lesson: Lesson, generator: torch.Generator) -> Iterator[Samples]:
    while True:
        yield from shuffled(lesson.learned, lesson.settings.batch_size, generator)


def _rate(part: Part, values: Hyper, settings: Settings) -> Number:
    return part.rate(values["learning_rate"], values.get("head_rate", settings.head_rate))


def _decay(part: Part, values: Hyper, settings: Settings) -> Number:
    return part.decay(values["weight_decay"], values.get("head_decay", settings.head_decay))
