"""A zoo of scikit-learn's estimators on odd data: rare classes, missing values, many classes, several targets.

Each is saved by joblib, as people do, and answers for itself.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingRegressor,
)
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tests.foreign.corpus import data
from tests.foreign.corpus.fitted import deliver
from tests.foreign.delivered import Array, Delivered, Foreign

Data = Callable[[], tuple[Array, Array]]


def _make(estimator: Callable[[], Any], rows: Data, folder: Path) -> Delivered:
    X, y = rows()
    return deliver(folder, estimator(), {"x": X}, y)


def _foreign(name: str, estimator: Callable[[], Any], rows: Data, **about: Any) -> Foreign:
    return Foreign(name=name, make=partial(_make, estimator, rows), **about)


def _stack() -> Any:
    parts = [
        ("forest", RandomForestClassifier(40, random_state=0)),
        ("boosting", GradientBoostingClassifier(n_estimators=40, random_state=0)),
        ("linear", make_pipeline(StandardScaler(), LogisticRegression())),
    ]
    return StackingClassifier(parts, final_estimator=LogisticRegression(), cv=3)


def _vote() -> Any:
    return VotingRegressor([("ridge", Ridge()), ("forest", RandomForestRegressor(30, random_state=0))])


def _perceptron_of_numbers() -> Any:
    return _scaled(MLPRegressor(hidden_layer_sizes=(256, 128), max_iter=40, random_state=0))


def _scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


MODELS = (
    _foreign("forest-text-labels", lambda: RandomForestClassifier(120, random_state=0), data.words, slice=True),
    _foreign("forest-rare", lambda: RandomForestClassifier(80, random_state=0), partial(data.classes, rare=0.034)),
    _foreign(
        "logistic-rare", lambda: _scaled(LogisticRegression()), partial(data.classes, rows=8000, rare=0.015), slice=True
    ),
    _foreign("extra-trees", lambda: ExtraTreesRegressor(60, min_samples_leaf=2, random_state=0), data.friedman),
    _foreign(
        "forest-three-targets", lambda: RandomForestRegressor(40, random_state=0), partial(data.numbers, targets=3)
    ),
    _foreign("gradient-boosting", lambda: GradientBoostingClassifier(n_estimators=80, random_state=0), data.classes),
    _foreign("hist-boosting-holes", lambda: HistGradientBoostingClassifier(max_iter=80, random_state=0), data.holes),
    _foreign("ada-boost", lambda: AdaBoostClassifier(n_estimators=40, random_state=0), data.classes),
    _foreign("tree", lambda: DecisionTreeClassifier(max_depth=9, random_state=0), data.classes),
    _foreign("bagging", lambda: BaggingRegressor(n_estimators=20, random_state=0), data.friedman),
    _foreign("stacking", _stack, partial(data.classes, 2)),
    _foreign("calibrated-svc", lambda: CalibratedClassifierCV(LinearSVC(), cv=3), partial(data.classes, 2)),
    _foreign("svc", lambda: _scaled(SVC(C=3.0)), partial(data.classes, rows=2500)),
    _foreign("svr", lambda: _scaled(SVR(C=10.0)), data.friedman),
    _foreign("linear-svc", LinearSVC, data.classes),
    _foreign("sgd", lambda: _scaled(SGDClassifier(loss="log_loss", random_state=0)), data.classes),
    _foreign(
        "sgd-ties",
        lambda: _scaled(SGDClassifier(loss="modified_huber", random_state=0)),
        data.classes,
        refused="SGDClassifier answers",
    ),
    _foreign("neighbours", lambda: KNeighborsClassifier(9), partial(data.classes, rows=2500)),
    _foreign("naive-bayes", GaussianNB, data.classes),
    _foreign("lda", LinearDiscriminantAnalysis, data.classes),
    _foreign("qda", lambda: QuadraticDiscriminantAnalysis(reg_param=0.1), data.classes),
    _foreign("perceptron", lambda: MLPClassifier((512, 256), max_iter=20, random_state=0), data.digits, float_net=True),
    _foreign(
        "perceptron-numbers",
        _perceptron_of_numbers,
        data.friedman,
        float_net=True,
    ),
    _foreign("polynomial", lambda: make_pipeline(PolynomialFeatures(2), Ridge()), data.friedman),
    _foreign("isotonic", lambda: IsotonicRegression(out_of_bounds="clip"), data.curve),
    _foreign("vote", _vote, data.friedman),
    _foreign("learned-noise", LogisticRegression, data.noise, refused="BaselineNotBetterThanChance"),
    _foreign("constant", DummyClassifier, data.noise, refused="DummyClassifier cannot be written as ONNX"),
)
