"""Continuous hyperparameters, found by following the gradient of the validation loss through the whole training.

The training is unrolled: it has the same batches, AdamW and schedule as the loop, and is written so that its end can be
differentiated by its hyperparameters. Among them is the noise for every single number of the inputs, which no search by
trials could find. Only the hyperparameters go into the normal training, no weights. Validation rows are used as in any
search: to compare hyperparameters, never to learn weights.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from optimizer_jobs.errors import printable
from optimizer_jobs.nets.learning.lesson import Lesson
from optimizer_jobs.nets.learning.parts import Number, Part, parts
from optimizer_jobs.nets.learning.rows import Predict, Samples, filled, shuffled
from optimizer_jobs.nets.learning.settings import Settings
from optimizer_jobs.nets.plain import plain as plain_operations
from optimizer_jobs.progress import say
from retune.api.model import Task

Weights = dict[str, Tensor]
Hyper = dict[str, Tensor]
"""Logarithms of hyperparameters by name. `input_noise.0` is the noise of the first input, one for each number."""

OUTER_STEPS = 10
"""Steps that hyperparameters take; each one unrolls a training."""
MOST_STEPS = 160
"""Steps of training that are unrolled, at most. A longer one is unrolled as a shorter one with the same schedule."""
FEWEST_STEPS = 20
"""Steps below which the end of training says too little about its hyperparameters."""
MEMORY_BYTES = 1 << 30
"""Bytes that an unrolled training may take."""
_COPIES = 2
"""Tensors that one unrolled step takes for each that it keeps, about: gradients are as large as what they are of."""
_JUDGING_SHARE = 0.25
"""Share of the memory that the validation rows may take."""
TIME_SHARE = 0.5
"""Share of the training's time that may go into its hyperparameters."""
_SHOWN = 160
"""Characters of torch's message that are passed on."""
_NOISE = "input_noise"
_OUTER_RATE, _OUTER_BETAS = 1.0, (0.5, 0.8)
"""Learning rate and betas of Adam on the hyperparameters."""
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
"""Betas and epsilon of AdamW on the weights."""

RANGES = {
    "learning_rate": (1e-5, 0.3),
    "weight_decay": (1e-4, 30.0),
    "head_rate": (0.05, 20.0),
    "head_decay": (0.05, 20.0),
    "label_smoothing": (5e-3, 0.5),
    "input_noise": (2e-2, 2.0),
}
"""Smallest and largest value of each hyperparameter. None of them is 0, which has no logarithm."""
NOISE_START = 0.2
"""Noise to start from, where the settings have none."""
MOST_NOISES = 4096
"""Numbers of an input up to which each has a noise of its own; a larger input has one noise for all its numbers."""


def learned(lesson: Lesson) -> Lesson:
    """Return the lesson with the hyperparameters for which the validation loss after training was smallest.

    Where they cannot be learned, because of memory, time or a second derivative that torch lacks, the lesson keeps its
    hyperparameters, and says why.
    """
    plain = dataclasses.replace(lesson, settings=dataclasses.replace(lesson.settings, learned=False))
    try:
        with plain_operations():
            return _learned(plain)
    except _NotLearnedError as error:
        reason = str(error)
    except (RuntimeError, NotImplementedError) as error:
        reason = f"torch cannot differentiate its training ({printable(str(error), limit=_SHOWN)})"
    say(f"hyperparameters are not learned: {reason}")
    return dataclasses.replace(plain, unlearned=reason)


class _NotLearnedError(Exception):
    """There are no better hyperparameters; the message says why, without a full stop."""


class _LateError(Exception):
    """The time for learning hyperparameters is up."""


def _learned(lesson: Lesson) -> Lesson:
    until = time.monotonic() + TIME_SHARE * lesson.time_left()
    steps = unrolled_steps(lesson)
    if steps < FEWEST_STEPS:
        raise _NotLearnedError("the network is too large to differentiate through its training")
    say(f"learning hyperparameters through {steps} steps of training, {OUTER_STEPS} times")
    best = descend(_judging(lesson), steps=steps, outer=OUTER_STEPS, until=until)
    if best is None:
        late = time.monotonic() >= until
        raise _NotLearnedError("there is too little time" if late else "every training diverged")
    return _with(lesson, best)


def unrolled_steps(lesson: Lesson) -> int:
    """Return how many steps of the training are unrolled: all of them, or as many as fit into memory."""
    values = start(lesson)
    step = _kept_bytes(lambda: unroll(lesson, values, steps=1))
    return min(lesson.steps, MOST_STEPS, MEMORY_BYTES // max(1, _COPIES * step))


def _judging(lesson: Lesson) -> Lesson:
    """Return the lesson with as many validation rows as fit into memory beside the training."""
    size, rows = lesson.settings.batch_size, lesson.validation
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in lesson.module.named_parameters()}
    predict = _predict(lesson, weights, dict(lesson.module.named_buffers()))
    lesson.module.eval()
    batch = _kept_bytes(lambda: predict(next(iter(filled(rows, size))).inputs))
    most = size * max(1, int(_JUDGING_SHARE * MEMORY_BYTES) // max(1, batch))
    return lesson if len(rows) <= most else dataclasses.replace(lesson, validation=rows.take(torch.arange(most)))


def _kept_bytes(run: Callable[[], object]) -> int:
    """Return the bytes that autograd keeps of a computation, for the gradients of its result."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def descend(lesson: Lesson, *, steps: int, outer: int, until: float = math.inf) -> Hyper | None:
    """Follow the gradient from the lesson's hyperparameters, and return the best ones that were seen.

    Args:
        lesson: The training to unroll.
        steps: Steps of the training that are unrolled.
        outer: Steps of the hyperparameters.
        until: Time, as of `time.monotonic`, when to end with the best so far.

    Returns:
        The hyperparameters with the smallest validation loss, or None when every training diverged or none was done.
    """
    hyper = start(lesson)
    optimizer = torch.optim.Adam(hyper.values(), lr=_OUTER_RATE, betas=_OUTER_BETAS)
    smallest, best = math.inf, None
    began, longest = time.monotonic(), 0.0
    for _ in range(outer):
        if began + longest > until:
            break
        try:
            loss = validation_loss(lesson, hyper, steps=steps, until=until)
        except _LateError:
            break
        if not bool(torch.isfinite(loss)):
            hyper["learning_rate"].data -= 1.0
            continue
        if loss.item() < smallest:
            smallest, best = loss.item(), {name: value.detach().clone() for name, value in hyper.items()}
        optimizer.zero_grad()
        loss.backward()
        _follow(hyper, optimizer)
        longest, began = max(longest, time.monotonic() - began), time.monotonic()
    return best


def start(lesson: Lesson) -> Hyper:
    """Return the hyperparameters of this training with the values to start from."""
    values = {name: torch.tensor(float(getattr(lesson.settings, name))) for name in _names(lesson)}
    for number, rows in enumerate(lesson.training.inputs):
        if rows.is_floating_point():
            shape = rows.shape[1:] if rows[0].numel() <= MOST_NOISES else ()
            values[f"{_NOISE}.{number}"] = torch.full(shape, lesson.settings.input_noise or NOISE_START)
    return {name: value.double().clamp(*_range(name)).log().requires_grad_() for name, value in values.items()}


def _with(lesson: Lesson, hyper: Hyper) -> Lesson:
    """Return the lesson with these hyperparameters."""
    values = {name: value.exp() for name, value in hyper.items()}
    numbers: dict[str, Any] = {name: float(value) for name, value in values.items() if not name.startswith(_NOISE)}
    noise = _noise(lesson, values)
    if noise is not None:
        numbers[_NOISE] = float(torch.cat([level.flatten() for level in noise]).mean())
    settings = dataclasses.replace(lesson.settings, **numbers)
    return dataclasses.replace(lesson, settings=settings, noise=noise)


def _noise(lesson: Lesson, values: Hyper) -> tuple[Tensor, ...] | None:
    """Return the noise of each input, 0 for inputs that are not floating point; None when no noise is learned."""
    if not any(name.startswith(_NOISE) for name in values):
        return None
    names = {f"{_NOISE}.{number}": rows.dtype for number, rows in enumerate(lesson.training.inputs)}
    return tuple(values[name].to(dtype) if name in values else torch.zeros(()) for name, dtype in names.items())


def validation_loss(lesson: Lesson, hyper: Hyper, *, steps: int, until: float = math.inf) -> Tensor:
    """Return the loss on validation at the end of training; it can be differentiated by the hyperparameters."""
    rows = lesson.validation
    with sdpa_kernel(SDPBackend.MATH):
        weights, buffers = unroll(lesson, hyper, steps=steps, until=until)
        lesson.module.eval()
        predict = _predict(lesson, weights, buffers)
        scores = [predict(batch.inputs) for batch in filled(rows, lesson.settings.batch_size)]
        return lesson.validation_loss(rows, torch.cat(scores)[: len(rows)])


def unroll(lesson: Lesson, hyper: Hyper, *, steps: int, until: float = math.inf) -> tuple[Weights, Weights]:
    """Train for `steps` steps of AdamW, without changing the module.

    Returns:
        Weights and buffers after training; the weights can be differentiated by the hyperparameters.
    """
    trained = parts(lesson.module, unit=lesson.unit)
    own = dict(lesson.module.named_parameters())
    weights = {name: own[name].detach().clone().requires_grad_() for name in trained}
    values = {name: value.exp().to(next(iter(weights.values())).dtype) for name, value in hyper.items()}
    kept = tuple(transform for transform in lesson.transforms if not transform.judged)
    plain = dataclasses.replace(lesson, transforms=kept, noise=_noise(lesson, values))
    buffers = {name: buffer.clone() for name, buffer in lesson.module.named_buffers()}
    state = _State.of(weights)
    generator = torch.Generator().manual_seed(lesson.seed)
    torch.manual_seed(lesson.seed)
    lesson.module.train()
    for step, batch in zip(range(steps), _endless(lesson, generator), strict=False):
        lesson.time_left()  # raises when a budget is spent
        if time.monotonic() >= until:
            raise _LateError
        prepared, predict = plain.prepared(batch, generator), _predict(lesson, weights, buffers)
        loss = plain.batch_loss(prepared, predict=predict, smoothing=values.get("label_smoothing"))
        gradients = _clipped(_gradients(loss, weights), lesson.settings.clip_norm)
        share = lesson.share(step * lesson.steps // steps)
        rates = {name: _rate(part, values, lesson.settings) * share for name, part in trained.items()}
        decays = {name: _decay(part, values, lesson.settings) for name, part in trained.items()}
        weights, state = _adamw(weights, gradients, state, rates=rates, decays=decays)
    return weights, buffers


def _gradients(loss: Tensor, weights: Weights) -> Weights:
    """Return the gradient of each weight, which can be differentiated again; 0 for weights that the loss ignores."""
    gradients = torch.autograd.grad(
        loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(weights, gradients, strict=True))


@dataclass(frozen=True)
class _State:
    """Running means of gradients and of their squares, after a number of steps."""

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
    means = {name: first * state.means[name] + (1 - first) * slope for name, slope in gradients.items()}
    squares = {name: second * state.squares[name] + (1 - second) * slope.square() for name, slope in gradients.items()}
    moved = {}
    for name, weight in weights.items():
        root = (squares[name] / (1 - second**steps) + _EPSILON**2).sqrt()
        direction = means[name] / (1 - first**steps) / (root + _EPSILON)
        moved[name] = weight * (1 - rates[name] * decays[name]) - rates[name] * direction
    return moved, _State(means, squares, steps)


def _clipped(gradients: Weights, longest: float) -> Weights:
    """Return the gradients scaled down to a norm of at most `longest`."""
    squares = (slope.square().sum() for slope in gradients.values())
    norm = torch.sqrt(sum(squares, torch.tensor(_EPSILON**2)))
    factor = (longest / (norm + 1e-6)).clamp_max(1.0)
    return {name: slope * factor for name, slope in gradients.items()}


def _names(lesson: Lesson) -> list[str]:
    """Return the hyperparameters, noise aside, by which this training can be differentiated."""
    trained = parts(lesson.module)
    names = ["learning_rate", "weight_decay"]
    if len({part.head for part in trained.values()}) == 2:
        names += ["head_rate", "head_decay"]
    if lesson.task in {Task.CLASSIFICATION, Task.MULTI_LABEL} and lesson.training.targets is not None:
        names.append("label_smoothing")
    return names


def _follow(hyper: Hyper, optimizer: torch.optim.Optimizer) -> None:
    """Take one step against the gradient, and stay within the ranges."""
    for value in hyper.values():
        if value.grad is not None:
            value.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    optimizer.step()
    with torch.no_grad():
        for name, value in hyper.items():
            value.clamp_(*(math.log(bound) for bound in _range(name)))


def _range(name: str) -> tuple[float, float]:
    return RANGES[name.partition(".")[0]]


def _predict(lesson: Lesson, weights: Weights, buffers: Weights) -> Predict:
    """Return what computes scores with these weights in the place of the module's own."""
    return lambda inputs: lesson.scores(functional_call(lesson.module, (weights, buffers), inputs))


def _endless(lesson: Lesson, generator: torch.Generator) -> Iterator[Samples]:
    while True:
        yield from shuffled(lesson.training, lesson.settings.batch_size, generator)


def _rate(part: Part, values: Hyper, settings: Settings) -> Number:
    return part.rate(values["learning_rate"], values.get("head_rate", settings.head_rate))


def _decay(part: Part, values: Hyper, settings: Settings) -> Number:
    return part.decay(values["weight_decay"], values.get("head_decay", settings.head_decay))
