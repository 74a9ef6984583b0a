"""Open a file that holds a fitted scikit-learn estimator, without running anything from the file.

A skops file is data: its size is bounded before it is read, its types are compared with a list, and arrays that
compiled code follows unchecked are checked. Joblib and Pickle files run what their author put in, so they are opened
only when the caller says that they are trusted.
"""

import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.boosters.estimators import SKOPS_TYPES, needs_file
from optimizer_jobs.machinery.estimators.converters.functions import KNOWN
from optimizer_jobs.machinery.estimators.soundness import UnsoundError, make_sound
from optimizer_jobs.models.native import Native
from retune.api.model import ModelFormat
from retune.contract.results import Reason

FILE_LIMIT_BYTES = 1 << 30
EXPANDED_LIMIT_BYTES = 4 << 30
SCHEMA_LIMIT_BYTES = 128 << 20
ENTRIES_LIMIT = 200_000
"""Bounds of a skops file: bytes of the archive, of all that it expands to and of its description, and its arrays."""

_BITS = ("", "32", "64")
_SPLITS = ("GroupKFold", "KFold", "ShuffleSplit", "StratifiedKFold", "StratifiedShuffleSplit")
_DISTANCES = ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
_KERNELS = (
    "ConstantKernel",
    "DotProduct",
    "ExpSineSquared",
    "Exponentiation",
    "Matern",
    "Product",
    "RBF",
    "RationalQuadratic",
    "Sum",
    "WhiteKernel",
)
_SCORES = ("chi2", "f_classif", "f_regression")

HARMLESS = SKOPS_TYPES | frozenset(
    {
        "builtins.object",
        "functools.partial",
        "numpy.dtype",
        "scipy.interpolate._bsplines.BSpline",
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        *(f"numpy.{name}" for name in ("floating", "integer", "number", *sorted(KNOWN))),
        *(f"sklearn.gaussian_process.kernels.{name}" for name in _KERNELS),
        "sklearn.utils.validation.check_array",
        *(f"sklearn.feature_selection._mutual_info.mutual_info_{name}" for name in ("classif", "regression")),
        *(f"sklearn.feature_selection._univariate_selection.{name}" for name in _SCORES),
        *(f"sklearn.metrics._dist_metrics.{name}Distance{bits}" for name in _DISTANCES for bits in _BITS),
        *(f"sklearn.model_selection._split.{name}" for name in _SPLITS),
        *(f"sklearn.neighbors._ball_tree.BallTree{bits}" for bits in _BITS),
        *(f"sklearn.neighbors._kd_tree.KDTree{bits}" for bits in _BITS),
    }
)
"""Types of numbers and plain functions that estimators are made of, and that skops does not trust by itself. A partial
binds arguments to a function that must itself be trusted, which estimators do with `kw_args` too. Trees,
which compiled code follows unchecked, are checked or dropped after loading (`soundness`)."""

_SAVE = "Save the fitted estimator again with skops.io.dump, with classes of scikit-learn, XGBoost and LightGBM only."


@dataclass(frozen=True)
class Loaded:
    """An estimator from a file."""

    estimator: Any
    saved_with: str | None = None
    """Version of scikit-learn that it was saved with, when that is not the version here."""


def load(native: Native, *, trusted: bool = False) -> Loaded:
    """Return the estimator in the file.

    Args:
        native: The file and its format.
        trusted: Whether the format may be one that runs code from the file.

    Raises:
        JobError: ModelTooLarge, or ModelInvalid with what is wrong, such as types or versions.
    """
    if native.format.runs_code and not trusted:
        raise _invalid(
            native.path,
            f"loading {native.format} runs code from the file.",
            "Save it with skops.io.dump and deliver format Skops, or set model.trust: RunsCodeFromFile.",
        )
    _check_size(native.path)
    with _faults(native.path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = _READERS[native.format](native.path)
    saved_with = _other_version(caught)
    return Loaded(_usable(estimator, native.path, saved_with=saved_with), saved_with)


def _usable(estimator: Any, path: Path, *, saved_with: str | None) -> Any:
    """Return the fitted estimator after checks; of a finished search, its best estimator."""
    from sklearn.base import BaseEstimator, is_classifier, is_regressor
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    estimator = getattr(estimator, "best_estimator_", estimator)
    if needs_file(estimator):
        return estimator
    if not isinstance(estimator, BaseEstimator):
        raise _invalid(path, f"the file holds {type(estimator).__name__}, not a scikit-learn estimator.", _SAVE)
    try:
        check_is_fitted(estimator)
        make_sound(estimator)
    except NotFittedError as error:
        raise _invalid(path, f"{type(estimator).__name__} is not fitted.", "Fit it, then save it.") from error
    except (UnsoundError, AttributeError, TypeError, ValueError) as error:
        raise _invalid(path, f"the estimator is damaged{_version_words(saved_with)}: {error}.", _SAVE) from error
    _check_threshold(estimator, path)
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise _invalid(
            path,
            f"{type(estimator).__name__} neither classifies nor predicts a number.",
            "Deliver a classifier or a regressor, alone or as the last step of a Pipeline.",
        )
    return estimator


def _check_threshold(estimator: Any, path: Path) -> None:
    """Refuse a classifier that is another one with a threshold, and say how both are delivered."""
    from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

    if isinstance(estimator, FixedThresholdClassifier | TunedThresholdClassifierCV):
        threshold = _share_of_the_second(estimator)
        told = "" if threshold is None else f', and set model.threshold: "{threshold}"'
        message = f"{type(estimator).__name__} is another classifier with a threshold."
        raise _invalid(path, message, f"Deliver its estimator_{told}.")


def _share_of_the_second(estimator: Any) -> float | None:
    """Return the threshold on the probability of the second class; None where it is on something else."""
    threshold = getattr(estimator, "best_threshold_", getattr(estimator, "threshold", None))
    by_probability = hasattr(estimator.estimator_, "predict_proba") and estimator.response_method != "decision_function"
    if not by_probability or getattr(estimator, "pos_label", None) not in {None, estimator.classes_[1]}:
        return None
    return 0.5 if threshold == "auto" else threshold


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > FILE_LIMIT_BYTES:
        raise JobError(
            Reason.MODEL_TOO_LARGE,
            path.name,
            f"the file has {size} bytes; at most {FILE_LIMIT_BYTES} are read.",
            "Deliver a smaller estimator, such as a forest with fewer trees.",
        )


def _read_skops(path: Path) -> Any:
    from skops import io

    _check_archive(path)
    untrusted = io.get_untrusted_types(file=path)
    foreign = [name for name in untrusted if name not in HARMLESS]
    if foreign:
        raise _invalid(path, f"the file holds types that are not loaded: {', '.join(foreign)}.", _SAVE)
    return io.load(path, trusted=untrusted)


def _check_archive(path: Path) -> None:
    """Refuse an archive that would expand beyond the bounds, before any of it is expanded."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    expanded = sum(entry.file_size for entry in entries)
    schema = next((entry.file_size for entry in entries if entry.filename == "schema.json"), None)
    if schema is None:
        raise _invalid(path, "this is a zip archive, but no skops file: schema.json is missing.", _SAVE)
    if expanded > EXPANDED_LIMIT_BYTES or schema > SCHEMA_LIMIT_BYTES or len(entries) > ENTRIES_LIMIT:
        raise JobError(
            Reason.MODEL_TOO_LARGE,
            path.name,
            f"the file expands to {expanded} bytes in {len(entries)} arrays, described in {schema} bytes; the limits "
            f"are {EXPANDED_LIMIT_BYTES}, {ENTRIES_LIMIT} and {SCHEMA_LIMIT_BYTES}.",
            "Deliver a smaller estimator, such as a forest with fewer trees.",
        )


def _read_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _read_pickle(path: Path) -> Any:
    import pickle

    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the user trusts it, and the process has no network and no token


_READERS: Mapping[ModelFormat, Callable[[Path], Any]] = {
    ModelFormat.SKOPS: _read_skops,
    ModelFormat.JOBLIB: _read_joblib,
    ModelFormat.PICKLE: _read_pickle,
}


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn every exception that a damaged or hostile file causes into a `JobError`."""
    try:
        yield
    except JobError:
        raise
    except zipfile.BadZipFile as error:
        raise _invalid(path, f"this is not a skops file ({error}).", _SAVE) from error
    except ModuleNotFoundError as error:
        raise _invalid(
            path,
            f"it needs module {error.name}, which is not in this image.",
            "Add the module to the optimizer image, use classes of scikit-learn only, or deliver what the module "
            "itself saves, such as model.ubj.",
        ) from error
    except Exception as error:
        reason = printable(str(error), limit=300) or "no reason given"
        raise _invalid(path, f"it cannot be opened ({type(error).__name__}: {reason}).", _SAVE) from error


def _other_version(caught: list[warnings.WarningMessage]) -> str | None:
    """Return the version of scikit-learn that a warning says the estimator was saved with, or None."""
    from sklearn.exceptions import InconsistentVersionWarning

    messages = (warning.message for warning in caught)
    versions = (m.original_sklearn_version for m in messages if isinstance(m, InconsistentVersionWarning))
    return next(versions, None)


def _version_words(saved_with: str | None) -> str:
    from sklearn import __version__

    return f" (it was saved with scikit-learn {saved_with}, here is {__version__})" if saved_with else ""


def _invalid(path: Path, message: str, next_step: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, path.name, message, next_step)
