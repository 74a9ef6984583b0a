"""Hypergradients: the unrolled training is the real one, its gradient is right, and what it finds is better."""

import dataclasses
import math
import time
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import autograd, nn  # noqa: E402

from optimizer_jobs.nets.catalogue import mlp  # noqa: E402
from optimizer_jobs.nets.learning import hypergradient  # noqa: E402
from optimizer_jobs.nets.learning.lesson import Lesson  # noqa: E402
from optimizer_jobs.nets.learning.loop import train  # noqa: E402
from optimizer_jobs.nets.learning.rows import samples  # noqa: E402
from optimizer_jobs.nets.learning.settings import Settings  # noqa: E402
from retune.api.model import Task  # noqa: E402
from tests.unit.jobs import networks_for_tests as tasks  # noqa: E402

pytestmark = pytest.mark.torch
SMALL = tasks.digits(rows=150)


def _net() -> Any:
    torch.manual_seed(0)
    return mlp(inputs=64, outputs=10, width=16, depth=1, activation="tanh")


def _lesson(module: Any, settings: Settings, *, double: bool = False) -> Lesson:
    learned, held = (samples(rows, task=Task.CLASSIFICATION) for rows in (SMALL.training, SMALL.validation))
    if double:
        module = module.double()
        learned, held = (dataclasses.replace(one, inputs=(one.inputs[0].double(),)) for one in (learned, held))
    return Lesson(module=module, training=learned, validation=held, task=Task.CLASSIFICATION, settings=settings, seed=0)


def _hyper(at: dict[str, float]) -> dict[str, Any]:
    return {name: torch.tensor(math.log(value), dtype=torch.float64, requires_grad=True) for name, value in at.items()}


def _loss_at(lesson: Lesson, at: dict[str, float]) -> float:
    return float(hypergradient.validation_loss(lesson, _hyper(at), steps=lesson.steps).detach())


def test_the_unrolled_training_is_the_one_of_the_loop() -> None:
    """Same batches, same steps, same schedule: the same weights, but for rounding."""
    settings = Settings(epochs=5, learning_rate=1e-2, weight_decay=0.3, label_smoothing=0.1, input_noise=0.2)
    lesson = _lesson(_net(), settings)
    hyper = _hyper({"learning_rate": 1e-2, "weight_decay": 0.3, "label_smoothing": 0.1, "input_noise.0": 0.2})
    weights, _ = hypergradient.unroll(lesson, hyper, steps=lesson.steps)
    module = _net()
    last: dict[str, Any] = {}
    train(
        module,
        SMALL.training,
        SMALL.validation,
        task=Task.CLASSIFICATION,
        settings=settings,
        seed=0,
        threads=1,
        report=lambda *_: last.update({name: weight.detach().clone() for name, weight in module.named_parameters()}),
    )
    for name, weight in weights.items():
        torch.testing.assert_close(weight.detach(), last[name], atol=2e-4, rtol=1e-3)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """In double precision, for every hyperparameter at once."""
    lesson = _lesson(_net(), Settings(epochs=3, warmup=0.2), double=True)
    at = {
        "learning_rate": 1e-2,
        "weight_decay": 0.5,
        "head_rate": 1.5,
        "head_decay": 2.0,
        "label_smoothing": 0.1,
        "input_noise.0": 0.2,
    }
    hyper = _hyper(at)
    hypergradient.validation_loss(lesson, hyper, steps=lesson.steps).backward()
    assert set(hyper) == set(hypergradient.start(lesson))
    for name, value in hyper.items():
        wide = 1e-4
        up, down = (_loss_at(lesson, at | {name: at[name] * math.exp(by)}) for by in (wide, -wide))
        assert value.grad.item() == pytest.approx((up - down) / (2 * wide), rel=2e-3, abs=1e-7), name


def test_what_is_learned_trains_better_than_the_usual_settings() -> None:
    """On a small sample of digits the usual settings are too timid; the gradient finds that."""
    results = {}
    for learned in (False, True):
        results[learned] = train(
            _net(),
            SMALL.training,
            SMALL.validation,
            task=Task.CLASSIFICATION,
            settings=Settings(epochs=10, learned=learned),
            seed=0,
            threads=1,
        )
    assert results[True].quality > results[False].quality + 0.1
    assert not results[True].settings.learned
    assert results[True].settings.learning_rate > Settings().learning_rate


def test_every_number_of_the_inputs_gets_a_noise_of_its_own() -> None:
    """Corner pixels, which are always white, have no say; those that matter differ from each other."""
    lesson = hypergradient.learned(_lesson(_net(), Settings(epochs=10)))
    assert lesson.noise is not None
    assert lesson.noise[0].shape == (64,)
    assert lesson.noise[0].max() > 2 * lesson.noise[0].min()
    assert lesson.settings.input_noise == pytest.approx(float(lesson.noise[0].mean()))


def test_the_network_is_as_before_while_hyperparameters_are_learned() -> None:
    """Nothing of the unrolled training but its hyperparameters is kept."""
    module = _net()
    before = [weight.clone() for weight in module.parameters()]
    hypergradient.learned(_lesson(module, Settings(epochs=5)))
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


class _OnceOnly(autograd.Function):  # type: ignore[misc] # the library has no types
    """An operation with a gradient that has no gradient itself, as some of torch's own are."""

    @staticmethod
    def forward(context: Any, values: Any) -> Any:
        """Return the values doubled."""
        del context
        return values * 2

    @staticmethod
    @autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(context: Any, slopes: Any) -> Any:
        """Return the gradient."""
        del context
        return slopes * 2


class _Once(nn.Module):  # type: ignore[misc] # the library has no types
    """A network with such an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net()

    def forward(self, x: Any) -> Any:
        """Return class scores."""
        return self.net(_OnceOnly.apply(self.net[:2](x)) @ self.net[1].weight)


def test_a_network_without_a_second_derivative_keeps_its_settings() -> None:
    """Training goes on with them, and the result says why they were not learned."""
    trained = train(
        _Once(),
        SMALL.training,
        SMALL.validation,
        task=Task.CLASSIFICATION,
        settings=Settings(epochs=5, learned=True),
        seed=0,
        threads=1,
    )
    assert trained.epochs
    assert "cannot differentiate its training" in str(trained.unlearned)


class _Bag(nn.Module):  # type: ignore[misc] # the library has no types
    """A bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(8, 6), nn.Linear(6, 10)

    def forward(self, x: Any) -> Any:
        """Return class scores."""
        return self.head(self.bag((x * 7).long().clamp(0, 7)))


def test_hyperparameters_of_a_bag_of_embeddings_are_learned() -> None:
    """The form of torch itself has no second derivative; its plain form has one."""
    torch.manual_seed(0)
    lesson = hypergradient.learned(_lesson(_Bag(), Settings(epochs=5)))
    assert lesson.unlearned is None
    assert lesson.settings != Settings(epochs=5)


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_learning_hyperparameters_keeps_to_its_share_of_the_time(left: float) -> None:
    """It ends with the best so far, or without any, but never takes the time of the training itself."""
    began = time.monotonic()
    lesson = dataclasses.replace(
        _lesson(_net(), Settings(epochs=200, batch_size=4)), alive=lambda: began + left - time.monotonic()
    )
    hypergradient.learned(lesson)
    assert time.monotonic() - began < left + 3.0


def test_memory_counts_what_a_step_keeps_not_weights_alone() -> None:
    """Twice the rows in a batch are about twice the activations: fewer steps are unrolled."""
    kept = []
    for size in (8, 64):
        lesson = _lesson(_net(), Settings(epochs=400, batch_size=size))
        kept.append(
            hypergradient._kept_bytes(partial(hypergradient.unroll, lesson, hypergradient.start(lesson), steps=1))
        )
    assert kept[1] > 1.5 * kept[0]


def test_a_network_too_large_to_unroll_keeps_its_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line says so; training goes on."""
    monkeypatch.setattr(hypergradient, "MEMORY_BYTES", 1000)
    lesson = hypergradient.learned(_lesson(_net(), Settings(learned=True)))
    assert lesson.settings == Settings()
    assert lesson.noise is None
    assert "too large to differentiate" in capsys.readouterr().out
