"""Training: the same again under a seed, better than before, the best epoch kept, and ended when it is time."""

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from optimizer_jobs.errors import JobError  # noqa: E402
from optimizer_jobs.nets.catalogue import convnet, mlp, pixels_convnet, transformer  # noqa: E402
from optimizer_jobs.nets.learning.loop import Trained, train  # noqa: E402
from optimizer_jobs.nets.learning.losses import is_probabilities, loss_for, scores_of  # noqa: E402
from optimizer_jobs.nets.learning.settings import Settings  # noqa: E402
from optimizer_jobs.technique import StoppedEarlyError  # noqa: E402
from retune.api.model import Task  # noqa: E402
from tests.unit.jobs import networks_for_tests as tasks  # noqa: E402

pytestmark = pytest.mark.torch
QUICK = Settings(epochs=8, learning_rate=5e-3)


def _net(*last: Any, outputs: int = 10, inputs: int = 64) -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(mlp(inputs=inputs, outputs=outputs, width=32, depth=1), *last)


def _trained(module: Any, split: tasks.Split, **changes: Any) -> Trained:
    given: dict[str, Any] = {"task": Task.CLASSIFICATION, "settings": QUICK, "seed": 1, "threads": 1}
    return train(module, split.training, split.validation, **given | changes)


def _weights(module: Any) -> Any:
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def test_the_same_arguments_give_the_same_weights() -> None:
    """Whatever torch drew before; another seed gives other ones."""
    split = tasks.digits()
    first = _trained(_net(), split).module
    torch.rand(7)
    assert torch.equal(_weights(first), _weights(_trained(_net(), split).module))
    assert not torch.equal(_weights(first), _weights(_trained(_net(), split, seed=2).module))


def test_the_state_of_torch_is_as_before() -> None:
    """A step must not change what the process does afterwards."""
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    module = mlp(inputs=64, outputs=10, width=8, depth=1)
    torch.set_rng_state(before)
    _trained(module, tasks.digits())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("last", [(), (torch.nn.Softmax(-1),)], ids=["logits", "probabilities"])
def test_a_classifier_learns_whether_it_answers_logits_or_probabilities(last: tuple[Any, ...]) -> None:
    """Both are trained with the same loss: the gradient of one is that of the other."""
    trained = _trained(_net(*last), tasks.digits())
    assert trained.before < 0.3
    assert trained.quality > 0.9


def test_logits_and_probabilities_have_the_same_loss() -> None:
    """A softmax is never taken of a softmax."""
    logits, targets = torch.randn(8, 5), torch.arange(8) % 5
    loss = loss_for(Task.CLASSIFICATION, label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert loss(logits, targets) == pytest.approx(float(expected), rel=1e-5)
    assert loss(logits.softmax(-1), targets) == pytest.approx(float(expected), rel=1e-4)
    shares = torch.nn.functional.one_hot(targets, 5).float()
    assert loss(logits, shares) == pytest.approx(float(expected), rel=1e-5)
    assert not is_probabilities(logits)


def test_classes_by_name_are_learned() -> None:
    """The label of each score column is the model's own, here text."""
    trained = _trained(_net(outputs=2, inputs=30), tasks.cancer(), classes=("benign", "malignant"))
    assert trained.quality > 0.93


def test_rows_of_a_class_that_the_model_lacks_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """They cannot be learned; a line says so, and for validation they stay wrong answers."""
    trained = _trained(_net(outputs=9), tasks.digits(), classes=tuple(range(9)))
    assert 0.75 < trained.quality < 0.92
    assert "training rows have a class that the model does not know" in capsys.readouterr().out


@pytest.mark.parametrize("last", [(), (torch.nn.Flatten(0),)], ids=["(N, 1)", "(N,)"])
def test_a_regression_learns_numbers_in_their_own_unit(last: tuple[Any, ...]) -> None:
    """Labels around 150 are reached without scaling them: the last layer steps in their unit."""
    settings = Settings(epochs=40)
    trained = _trained(_net(*last, outputs=1, inputs=10), tasks.diabetes(), task=Task.REGRESSION, settings=settings)
    assert trained.before < 0
    assert trained.quality > 0.35


def test_an_embedding_learns_from_a_teacher_without_labels() -> None:
    """Its quality is the mean cosine to the teacher's vectors."""
    split = tasks.digits()
    torch.manual_seed(9)
    teacher = mlp(inputs=64, outputs=16, width=64, depth=1).requires_grad_(requires_grad=False)
    trained = _trained(_net(outputs=16), split, task=Task.EMBEDDING, teacher=lambda inputs: scores_of(teacher(*inputs)))
    assert trained.quality > max(0.9, trained.before)


def test_without_labels_and_teacher_there_is_nothing_to_learn() -> None:
    """The error names what is missing."""
    with pytest.raises(JobError, match="no labels, and there is no teacher"):
        _trained(_net(outputs=16), tasks.digits(), task=Task.EMBEDDING)


def test_the_best_epoch_is_kept_and_training_ends_by_patience() -> None:
    """With a far too large step, later epochs are worse than the best one that is returned."""
    reported: list[tuple[int, float]] = []
    settings = Settings(epochs=40, learning_rate=0.2, patience=3)
    trained = _trained(_net(), tasks.digits(), settings=settings, report=lambda *seen: reported.append(seen))
    best = max(quality for _, quality in reported)
    assert trained.quality == best
    assert reported[trained.epochs - 1] == (trained.epochs, best)
    assert [epoch for epoch, _ in reported] == list(range(1, len(reported) + 1))
    assert len(reported) == 40 or len(reported) == trained.epochs + 3


def test_a_training_that_has_had_its_time_keeps_what_it_learned() -> None:
    """Told that there is no time for another epoch, it ends in good order with the best so far."""
    reported: list[float] = []

    def report(epoch: int, quality: float) -> bool:
        reported.append(quality)
        return epoch < 3

    trained = _trained(_net(), tasks.digits(), settings=Settings(epochs=40), report=report)
    assert len(reported) == 3
    assert trained.quality == max(reported) > trained.before


def test_a_training_ends_in_the_middle_of_an_epoch() -> None:
    """When its time is up it keeps what it learned since; an epoch of a large data set may be longer than the time."""
    asked: list[int] = []

    def alive() -> float:
        asked.append(1)
        return 60.0 - len(asked)

    reported: list[int] = []
    settings = Settings(epochs=40, batch_size=4)
    trained = _trained(
        _net(),
        tasks.digits(),
        settings=settings,
        alive=alive,
        report=lambda epoch, _: reported.append(epoch),
    )
    assert len(asked) == 60, "600 rows are 150 batches of 4"
    assert not reported, "no epoch was finished"
    assert (trained.epochs, trained.quality > trained.before) == (1, True)


def test_a_spent_budget_ends_the_training_at_once() -> None:
    """Between two batches, not after the epoch."""

    def alive() -> float:
        raise StoppedEarlyError("spent")

    with pytest.raises(StoppedEarlyError, match="spent"):
        _trained(_net(), tasks.digits(), settings=QUICK, alive=alive)


def test_what_the_report_raises_ends_the_training() -> None:
    """Early stopping by the search passes through."""

    def report(epoch: int, quality: float) -> None:
        if epoch == 2:
            raise StoppedEarlyError(str(quality))

    with pytest.raises(StoppedEarlyError):
        _trained(_net(), tasks.digits(), report=report)


def test_a_training_that_diverges_changes_nothing() -> None:
    """No weights of infinity: the module comes back as it was, with 0 epochs."""
    module = _net()
    before = copy.deepcopy(module.state_dict())

    trained = _trained(module, tasks.digits(), transforms=(_Explode(),))
    assert trained.epochs == 0
    assert trained.quality == trained.before
    assert all(torch.equal(before[name], value) for name, value in trained.module.state_dict().items())


class _Explode:
    """Makes all inputs infinite, so that the loss is no number."""

    judged = False

    def __call__(self, module: Any, inputs: Any, targets: Any, generator: Any) -> Any:
        return tuple(values + float("inf") for values in inputs), targets


class _Blacken:
    """Sets all inputs to 0."""

    def __init__(self, *, judged: bool) -> None:
        self.judged = judged

    def __call__(self, module: Any, inputs: Any, targets: Any, generator: Any) -> Any:
        return tuple(torch.zeros_like(values) for values in inputs), targets


@pytest.mark.parametrize("judged", [False, True])
def test_transforms_reach_the_network_and_the_judgement_where_they_ask_for_it(*, judged: bool) -> None:
    """Nothing can be learned from black images; a judged transform halves the weight of plain validation."""
    untrained, split = _net(), tasks.digits()
    trained = _trained(untrained, split, transforms=(_Blacken(judged=judged),))
    assert trained.quality < 0.4
    plain = _trained(_net(), split, settings=Settings(epochs=1, learning_rate=1e-8))
    hard = _trained(_net(), split, settings=Settings(epochs=1, learning_rate=1e-8), transforms=(_Blacken(judged=True),))
    assert plain.before != hard.before


def test_validation_is_held_back_when_there_is_none() -> None:
    """A fifth of the training rows says which epoch is best."""
    split = tasks.digits()
    trained = train(_net(), split.training, task=Task.CLASSIFICATION, settings=QUICK, seed=1, threads=1)
    assert trained.quality * 120 == pytest.approx(round(trained.quality * 120))
    assert trained.quality > 0.8


def test_noise_and_smoothing_change_what_is_learned() -> None:
    """Hyperparameters are honoured, not only accepted."""
    split = tasks.digits()
    plain = _weights(_trained(_net(), split).module)
    for changes in ({"input_noise": 0.3}, {"label_smoothing": 0.2}, {"head_rate": 3.0}, {"weight_decay": 1.0}):
        settings = Settings(epochs=8, learning_rate=5e-3, **changes)  # type: ignore[arg-type]
        assert not torch.equal(plain, _weights(_trained(_net(), split, settings=settings).module))


def test_the_catalogue_learns_digits() -> None:
    """Images that come as rows are seen as images."""
    torch.manual_seed(0)
    trained = _trained(
        pixels_convnet(side=8, outputs=10, width=8), tasks.digits(), settings=Settings(epochs=25, learning_rate=1e-2)
    )
    assert trained.quality > 0.9


def test_every_network_of_the_catalogue_answers_its_inputs() -> None:
    """Shapes: images, and token rows of any length, whose padding changes nothing."""
    assert convnet(channels=3, outputs=5, width=4, depth=3)(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    encoder = transformer(vocabulary=50, outputs=7, width=16, depth=1).eval()
    tokens = torch.randint(1, 50, (3, 9))
    padded = torch.nn.functional.pad(tokens, (0, 4))
    assert torch.allclose(encoder(tokens), encoder(padded), atol=1e-5)
