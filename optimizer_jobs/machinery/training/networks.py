"""Train a network as all training techniques of one plan together say, and write it as ONNX again.

The network is built by the factory, or read from the ONNX file, or it is a student of either. A delivered network that
is no better on validation after training is not taken.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.native import Native
from optimizer_jobs.nets import native, outputs
from optimizer_jobs.nets.conversion.exporter import export
from optimizer_jobs.nets.conversion.importer import import_module
from optimizer_jobs.nets.conversion.labels import add_label, add_label_sets
from optimizer_jobs.nets.learning.determinism import deterministic
from optimizer_jobs.nets.learning.features import Features, features_of, last_layer, without_features
from optimizer_jobs.nets.learning.lesson import BatchTransform, Teacher
from optimizer_jobs.nets.learning.loop import Trained, train
from optimizer_jobs.nets.learning.losses import is_probabilities, label_logits, scores_of
from optimizer_jobs.nets.learning.settings import SCRATCH, Settings
from optimizer_jobs.nets.learning.students import Activation, answering, student, teacher_from
from optimizer_jobs.nets.learning.transforms import transforms_of
from optimizer_jobs.nets.learning.words import augmented, hardened, reshaped
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Scale, Signature
from optimizer_jobs.technique import Applied, Context, Params, Skipped, TrainingPlan
from retune.api.model import ModelFormat, Task
from retune.api.own_code import Factory, FactoryArgument
from retune.api.techniques import TechniqueType
from retune.contract.results import Reason

_EXAMPLES = 8
_CHANGES = {TechniqueType.AUGMENTATION: augmented, TechniqueType.ADVERSARIAL_TRAINING: hardened}
"""Words for what is done to batches, by technique."""
_OWN_SHAPE = "of a shape of its own: that of the model is not changed"


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A network before training."""

    module: nn.Module
    words: tuple[str, ...]
    """What the summary says of it."""
    continued: bool = False
    """Whether it is the model as delivered, with its weights, so that training must make it better."""
    factory: Factory | None = None
    """Its factory, when its weights are written as a file of their own."""
    teacher: Teacher | None = None
    features: Features | None = None
    """The teacher's hidden features, when the student learns them, too."""
    activation: Activation | None = None
    """What makes probabilities of the student's logits, where the teacher answers such."""


def fit(model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
    """Write the trained network as ONNX into the context's workdir, and its weights when it was delivered as such.

    Args:
        model: The ONNX file to start from, or to learn from.
        plan: Parameters of every training technique.
        context: Rows, signature, seed, and the delivered file.
    """
    if context.training is None:
        return Skipped(reason="there are no rows to train on")
    with deterministic(seed=context.seed, threads=context.threads):
        start = _start(model, plan, context)
    if isinstance(start, Skipped):
        return start
    transforms = transforms_of(plan, context)
    trained = _train(start, transforms, plan=plan, context=context)
    reason = _useless(trained, start, transforms=transforms)
    return Skipped(reason=reason) if reason else _written(trained, start, plan=plan, context=context)


def _start(model: Path, plan: TrainingPlan, context: Context) -> _Start | Skipped:
    if TechniqueType.DISTILLATION in plan:
        start = _student(model, plan[TechniqueType.DISTILLATION], context)
        words = (_OWN_SHAPE,) if TechniqueType.ARCHITECTURE in plan else ()
        return dataclasses.replace(start, words=(*start.words, *words))
    scratch = plan.get(TechniqueType.HYPERPARAMETER_TUNING, {}).get("start") == SCRATCH
    if context.native is not None and context.native.format is ModelFormat.SAFETENSORS:
        built = _built(context.native, plan.get(TechniqueType.ARCHITECTURE, {}), scratch=scratch)
        return built if isinstance(built, Skipped) else _answering(built, context.signature)
    module = import_module(model)
    return _Start(
        module=_with_new_weights(module) if scratch else module,
        words=_words({}, scratch=scratch),
        continued=not scratch,
    )


def _answering(start: _Start, signature: Signature) -> _Start:
    """Let the network of a factory answer its outputs in the order of the signature."""
    outputs.answering(start.module, signature)
    return start


def _built(delivered: Native, overrides: Params, *, scratch: bool) -> _Start | Skipped:
    """Return the network of the factory, with the delivered weights unless they do not fit or are not to be used."""
    try:
        module = native.build(delivered, overrides=overrides)
    except JobError as error:
        if not overrides:
            raise
        return Skipped(reason=f"the factory does not build it with {reshaped(overrides)}: {error.message}")
    fits = not overrides or native.weights_fit(module, delivered)
    return _Start(
        module=_with_new_weights(module) if scratch else module,
        words=_words(overrides, scratch=scratch or not fits),
        continued=not scratch and not overrides,
        factory=_with_arguments(native.factory_of(delivered), overrides),
    )


def _student(model: Path, params: Params, context: Context) -> _Start:
    teacher = teacher_from(model, context.signature, threads=context.threads)
    module = student(params, context.signature)
    inputs = _examples(context)
    answers, scores = teacher(inputs), scores_of(module(*inputs))
    if scores.numel() != answers.numel():
        raise JobError(
            Reason.MODEL_INVALID,
            "the student",
            f"it answers {list(scores.shape)} where the model answers {list(answers.shape)}.",
            "Correct the arguments in distillation.student.",
        )
    scale = context.signature.score_scale if context.task is Task.MULTI_LABEL else None
    weights = sum(weight.numel() for weight in module.parameters())
    features, words = _features(model, module, params)
    return _Start(
        module=module,
        words=(f"student with {weights} weights", *words),
        teacher=lambda rows: label_logits(teacher(rows), scale),
        features=features,
        activation=_activation(answers, scale, context.task),
    )


def _activation(answers: Tensor, scale: Scale | None, task: Task) -> Activation | None:
    """Return what makes probabilities of logits, where a teacher's answers are such."""
    if task is Task.MULTI_LABEL:
        return torch.sigmoid if scale is Scale.PROBABILITIES else None
    return partial(torch.softmax, dim=-1) if answers.ndim == 2 and is_probabilities(answers) else None


def _features(model: Path, student: nn.Module, params: Params) -> tuple[Features | None, tuple[str, ...]]:
    """Return the hidden features that the student is to learn, and what the summary says of them."""
    if not params.get("feature_weight"):
        return None, ()
    reason = without_features(model)
    if reason is None and last_layer(student) is None:
        reason = "the student has no layers"
    if reason is not None:
        return None, (f"answers without hidden features: {reason}",)
    return features_of(model), ("answers and hidden features",)


def _train(start: _Start, transforms: tuple[BatchTransform, ...], *, plan: TrainingPlan, context: Context) -> Trained:
    settings = Settings.of(plan.get(TechniqueType.DISTILLATION, {}) | plan.get(TechniqueType.HYPERPARAMETER_TUNING, {}))
    rows = context.training
    if rows is None:
        raise ValueError("training needs rows")
    say(f"training on {len(rows)} rows, at most {settings.epochs} epochs")
    return train(
        start.module,
        rows,
        context.validation,
        task=context.task,
        classes=context.classes,
        settings=settings,
        transforms=transforms,
        teacher=start.teacher,
        features=start.features,
        score=context.signature.score_place if start.teacher is None else None,
        scale=context.signature.score_scale if start.teacher is None else None,
        seed=context.seed,
        threads=context.threads,
        report=context.report,
        alive=context.alive,
    )


def _useless(trained: Trained, start: _Start, *, transforms: tuple[BatchTransform, ...]) -> str | None:
    """Return why the trained network is not taken, or None."""
    if trained.epochs == 0:
        return f"training diverged at once with {trained.settings.words() or 'the usual settings'}"
    if start.continued and not transforms and trained.quality <= trained.before:
        return f"training on gave {trained.quality:.4g} on validation, no better than {trained.before:.4g} before"
    return None


def _written(trained: Trained, start: _Start, *, plan: TrainingPlan, context: Context) -> Applied:
    """Export the network, and write its weights when it was delivered as weights and a factory."""
    target = context.workdir / "model.onnx"
    signature, examples = context.signature, context.examples(_EXAMPLES)
    if start.teacher is None:
        export(trained.module, signature=signature, examples=examples, target=target)
    else:
        _export_student(trained.module, start, signature=signature, context=context, target=target)
    changed = [words(plan[kind]) for kind, words in _CHANGES.items() if kind in plan]
    words = [*start.words, *changed, f"{trained.epochs} epochs", *filter(None, [trained.settings.words()])]
    if trained.unlearned is not None:
        words.append(f"hyperparameters were not learned: {trained.unlearned}")
    if start.factory is None:
        return Applied(model=target, summary=", ".join(words))
    weights = context.workdir / native.FILE
    native.save(trained.module, weights)
    return Applied(model=target, summary=", ".join(words), native=weights, factory=start.factory)


def _export_student(module: nn.Module, start: _Start, *, signature: Signature, context: Context, target: Path) -> None:
    """Export the student's scores, and add the label when the model has one."""
    score = signature.score_output
    if score is None:
        raise ValueError("a student needs scores")
    alike = answering(module, activation=start.activation, column=len(score.shape) == 1)
    scores_only = signature.model_copy(update={"outputs": (score,)})
    export(alike, signature=scores_only, examples=context.examples(_EXAMPLES), target=target)
    if context.task is Task.MULTI_LABEL:
        add_label_sets(target, signature=signature)
    else:
        add_label(target, signature=signature, classes=context.classes)


def _with_new_weights(module: nn.Module) -> nn.Module:
    """Give new weights, in place, to every layer that can reset them."""
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
    return module


def _words(overrides: Mapping[str, object], *, scratch: bool) -> tuple[str, ...]:
    changed = [f"{name.replace('_', ' ')} {value}" for name, value in overrides.items()]
    return ("trained from scratch" if scratch else "trained on", *changed)


def _with_arguments(factory: Factory, overrides: Params) -> Factory:
    """Return the factory with these arguments instead of its own."""
    kept = {argument.name: argument for argument in factory.arguments}
    kept |= {name: FactoryArgument(name=name, value=json.dumps(value)) for name, value in overrides.items()}
    return factory.model_copy(update={"arguments": tuple(kept.values())})


def _examples(context: Context) -> tuple[Tensor, ...]:
    """Return a few rows as the network takes them, each input (N, ...)."""
    return tuple(torch.from_numpy(values) for values in context.examples(_EXAMPLES).values())
