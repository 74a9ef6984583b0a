"""What a model can be measured by, and what each measure says: its task, its direction, its range.

Quality metrics have the names and the meaning that they have in scikit-learn.
"""

from collections.abc import Iterable
from enum import StrEnum

from retune.api.model import Task


class MetricKind(StrEnum):
    """What a metric says something about."""

    QUALITY = "Quality"
    LATENCY = "Latency"
    RESOURCE = "Resource"


class Metric(StrEnum):
    """What a model is measured by."""

    ACCURACY = "accuracy"
    """Share of rows classified right; of several labels a row, all of them."""
    BALANCED_ACCURACY = "balanced_accuracy"
    """Mean over the classes of the share of their rows that is classified right."""
    PRECISION = "precision"
    """Share of the rows called positive that are; of two classes only, see model.positiveLabel."""
    PRECISION_MACRO = "precision_macro"
    PRECISION_MICRO = "precision_micro"
    PRECISION_WEIGHTED = "precision_weighted"
    RECALL = "recall"
    """Share of the positive rows that are called positive; of two classes only."""
    RECALL_MACRO = "recall_macro"
    RECALL_MICRO = "recall_micro"
    RECALL_WEIGHTED = "recall_weighted"
    F1 = "f1"
    """Harmonic mean of precision and recall; of two classes only."""
    F1_MACRO = "f1_macro"
    F1_MICRO = "f1_micro"
    F1_WEIGHTED = "f1_weighted"
    MATTHEWS = "matthews_corrcoef"
    """Correlation of answers and labels, from -1 to 1."""
    TOP_3_ACCURACY = "top_3_accuracy"
    """Share of rows whose class is among the three with the largest scores."""
    TOP_5_ACCURACY = "top_5_accuracy"
    ROC_AUC = "roc_auc"
    """Chance that a positive row is scored above another one; of more than two classes, the mean of one against the
    rest."""
    AVERAGE_PRECISION = "average_precision"
    """Precision averaged over recall, of the positive class; of more than two classes, the mean of one against the
    rest."""
    LOG_LOSS = "log_loss"
    """Cross-entropy of the probabilities, in nats."""
    BRIER_SCORE = "brier_score"
    """Mean squared distance of the probabilities from the labels."""
    D2_LOG_LOSS = "d2_log_loss_score"
    """Share of the log loss of always answering the classes' shares that the model's probabilities take away."""
    D2_BRIER = "d2_brier_score"
    """Share of the Brier score of always answering the classes' shares that the model's probabilities take away."""
    EXPECTED_COST = "expected_cost"
    """Mean cost of a row's answer by model.costs; without them, the share of rows classified wrong."""
    ROBUST_ACCURACY = "robust_accuracy"
    """Share of rows classified right under the attack of technique AdversarialTraining's settings."""
    MAE = "mae"
    """Mean absolute error of a regression."""
    MSE = "mse"
    """Mean squared error of a regression."""
    RMSE = "rmse"
    """Root of the mean squared error of a regression."""
    MAPE = "mape"
    """Mean absolute error as a share of the value."""
    R2 = "r2"
    """Share of the values' variance that the answers explain."""
    PINBALL_10 = "pinball@0.1"
    """Loss of a forecast of the quantile that a tenth of the values stays below."""
    PINBALL_50 = "pinball@0.5"
    PINBALL_90 = "pinball@0.9"
    COSINE = "cosine"
    """Mean cosine between an embedding and that of the model as delivered."""
    NEIGHBOR_AGREEMENT = "neighbor_agreement"
    """Share of rows whose nearest neighbour is the one that the model as delivered finds."""
    NDCG_5 = "ndcg@5"
    """Discounted gain of the five first rows of each group, as a share of the best possible one."""
    NDCG_10 = "ndcg@10"
    RECALL_5 = "recall@5"
    """Share of each group's relevant rows that are among its first five."""
    RECALL_10 = "recall@10"
    HIT_RATE_5 = "hit_rate@5"
    """Share of the groups with a relevant row among the first five."""
    HIT_RATE_10 = "hit_rate@10"
    MRR = "mrr"
    """Mean over the groups of one divided by the place of the first relevant row."""
    HAMMING_LOSS = "hamming_loss"
    """Share of all labels of all rows that are wrong."""
    FIDELITY = "fidelity"
    """How alike the answers are to those of the model as delivered, from 0 to 1; needs no labels."""
    CUSTOM = "custom"
    """What model.customMetric returns, where more is better."""
    CUSTOM_LOSS = "custom_loss"
    """What model.customMetric returns, where less is better."""
    LATENCY_P50_MS = "latency_p50_ms"
    LATENCY_P95_MS = "latency_p95_ms"
    THROUGHPUT_RPS = "throughput_rps"
    """Rows a second that one process answers with its threads busy."""
    SIZE_BYTES = "size_bytes"
    PEAK_MEMORY_BYTES = "peak_memory_bytes"
    """Most memory of a process that opens the model and answers requests, above an empty process with the engine."""
    CPU_SECONDS_PER_1000 = "cpu_seconds_per_1000"
    ENERGY_JOULES_PER_1000 = "energy_joules_per_1000"
    """Estimated: CPU seconds times serving.wattsPerCpu."""
    COST_PER_1000 = "cost_per_1000"
    """CPU seconds times serving.pricePerCpuHour."""

    @property
    def kind(self) -> MetricKind:
        """What it says something about."""
        if self in _TASKS:
            return MetricKind.QUALITY
        return MetricKind.LATENCY if self in _LATENCIES else MetricKind.RESOURCE

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self in _HIGHER

    @property
    def is_share(self) -> bool:
        """Whether its differences are told in points: it is at most 1, and 1 is the best."""
        return self in SHARES

    def fits(self, task: Task) -> bool:
        """Return whether a model of this task has the metric."""
        return task in _TASKS.get(self, tuple(Task))


RANKING = (
    Metric.NDCG_5,
    Metric.NDCG_10,
    Metric.RECALL_5,
    Metric.RECALL_10,
    Metric.HIT_RATE_5,
    Metric.HIT_RATE_10,
    Metric.MRR,
)
"""Metrics of how rows are ordered within their group."""
CUSTOM = (Metric.CUSTOM, Metric.CUSTOM_LOSS)
"""Metrics that the owner's own code computes."""
_OF_CLASSES = tuple(Metric)[: tuple(Metric).index(Metric.MAE)]
_OF_NUMBERS = (
    Metric.RMSE,
    Metric.MAE,
    Metric.MSE,
    Metric.MAPE,
    Metric.R2,
    Metric.PINBALL_10,
    Metric.PINBALL_50,
    Metric.PINBALL_90,
)
_OF_SETS = (
    Metric.ACCURACY,
    Metric.PRECISION_MACRO,
    Metric.PRECISION_MICRO,
    Metric.PRECISION_WEIGHTED,
    Metric.RECALL_MACRO,
    Metric.RECALL_MICRO,
    Metric.RECALL_WEIGHTED,
    Metric.F1_MACRO,
    Metric.F1_MICRO,
    Metric.F1_WEIGHTED,
    Metric.ROC_AUC,
    Metric.AVERAGE_PRECISION,
    Metric.LOG_LOSS,
    Metric.BRIER_SCORE,
    Metric.D2_BRIER,
)
"""Metrics of classifiers that several labels a row have too."""
_OF_VECTORS = (Metric.COSINE, Metric.NEIGHBOR_AGREEMENT)
_TASKS: dict[Metric, tuple[Task, ...]] = {
    **dict.fromkeys(_OF_CLASSES, (Task.CLASSIFICATION,)),
    **dict.fromkeys(_OF_SETS, (Task.CLASSIFICATION, Task.MULTI_LABEL)),
    Metric.HAMMING_LOSS: (Task.MULTI_LABEL,),
    **dict.fromkeys(_OF_NUMBERS, (Task.REGRESSION,)),
    **dict.fromkeys(_OF_VECTORS, (Task.EMBEDDING,)),
    **dict.fromkeys(RANKING, (Task.CLASSIFICATION, Task.REGRESSION)),
    Metric.FIDELITY: tuple(Task),
    **dict.fromkeys(CUSTOM, tuple(Task)),
}
_LOSSES = frozenset({Metric.LOG_LOSS, Metric.BRIER_SCORE, Metric.EXPECTED_COST})
SHARES = (
    *(metric for metric in _OF_CLASSES if metric not in _LOSSES),
    Metric.R2,
    *_OF_VECTORS,
    *RANKING,
    Metric.FIDELITY,
)
"""Metrics that are at most 1."""
WATCHED = (
    *(metric for metric in _OF_CLASSES if metric is not Metric.ROBUST_ACCURACY),
    Metric.HAMMING_LOSS,
    *_OF_NUMBERS,
    *RANKING,
    *CUSTOM,
)
"""Quality metrics that captured answers and their labels tell, without the model or that which was delivered."""
_LATENCIES = frozenset({Metric.LATENCY_P50_MS, Metric.LATENCY_P95_MS})
_HIGHER = frozenset({*SHARES, Metric.CUSTOM, Metric.THROUGHPUT_RPS})


def quality_metrics(task: Task) -> tuple[Metric, ...]:
    """Return the quality metrics of a task."""
    return tuple(metric for metric, tasks in _TASKS.items() if task in tasks)


def unfit_metrics(task: Task) -> Iterable[Metric]:
    """Return the quality metrics that a model of this task does not have."""
    return (metric for metric, tasks in _TASKS.items() if task not in tasks)
