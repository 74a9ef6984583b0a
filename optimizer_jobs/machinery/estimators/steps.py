"""Name the step of a pipeline that cannot be converted, and say what helps."""

import re
from collections.abc import Iterator
from typing import Any

from optimizer_jobs.errors import printable
from optimizer_jobs.machinery.estimators.converters.registry import StepError

_CLASS = re.compile(r"<class '([\w.]+)'>")
_LISTS = ("steps", "transformer_list", "estimators", "transformers_", "transformers")
_SHORT = 160


def named_steps(estimator: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every step with the names that lead to it, such as `prepare__text`, the inner ones after the outer ones."""
    for attribute in _LISTS:
        steps = getattr(estimator, attribute, None)
        if not isinstance(steps, list):
            continue
        for name, step, *_ in (entry for entry in steps if isinstance(entry, tuple)):
            if isinstance(step, str) or step is None:
                continue
            inner = f"{path}__{name}" if path else str(name)
            yield inner, step
            yield from named_steps(step, inner)
        return
    for attribute in ("estimator", "best_estimator_", "regressor", "base_estimator"):
        inner_estimator = getattr(estimator, attribute, None)
        if hasattr(inner_estimator, "get_params"):
            yield from named_steps(inner_estimator, path)
            return


def refusal(error: Exception, estimator: Any, last: Any) -> str:
    """Return in words which step cannot be converted and why, without a full stop.

    Args:
        error: What the converter raised.
        estimator: The estimator.
        last: Its last step, which is named where the error names no class.
    """
    text = str(error)
    classes = [name.rpartition(".")[2] for name in _CLASS.findall(text)]
    kind = next(iter(classes), type(last).__name__)
    kind = next((type(step).__name__ for _, step in named_steps(estimator) if type(step).__name__ in text), kind)
    kind = error.kind if isinstance(error, StepError) else kind
    if "Unable to find" in text or not text:
        reason = "skl2onnx has no converter for it"
    else:
        sentence = text.split(" You may raise an is", maxsplit=1)[0]
        reason = printable(sentence, limit=_SHORT).rstrip(".")
    return f"{step_words(estimator, kind)} cannot be written as ONNX: {reason}"


def step_words(estimator: Any, kind: str) -> str:
    """Return the step of a class in words, such as `step 'tfidf' (TfidfVectorizer)`; without steps, the class alone."""
    path = next((path for path, step in named_steps(estimator) if type(step).__name__ == kind), None)
    return kind if path is None else f"step {path!r} ({kind})"
