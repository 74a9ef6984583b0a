"""How a network is trained: one set of hyperparameters, as the search chooses them.

Only numbers, no torch: techniques name and check hyperparameters by this before anything heavy is imported.
"""

from dataclasses import dataclass
from typing import Any

from optimizer_jobs.technique import Params, ParamValue

DELIVERED, SCRATCH = "Delivered", "Scratch"
"""Where training starts: from the weights as delivered, or from new ones."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hyperparameters of one training; the defaults suit small networks and rows that fit into memory."""

    learning_rate: float = 1e-3
    """Largest step of AdamW; it falls to 0 along a cosine."""
    weight_decay: float = 1e-4
    """Decoupled decay of matrices and filters; biases and norms have none."""
    head_rate: float = 1.0
    """Learning rate of the last layer, as a multiple of the others'."""
    head_decay: float = 1.0
    """Weight decay of the last layer, as a multiple of the others'."""
    label_smoothing: float = 0.0
    """Share of a label spread over all classes."""
    input_noise: float = 0.0
    """Standard deviation of noise added to floating point inputs, as a multiple of each input's own."""
    epochs: int = 30
    """Passes over the training rows, at most."""
    batch_size: int = 32
    patience: int = 8
    """Epochs without a better quality on validation after which training ends."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    clip_norm: float = 5.0
    """Longest gradient."""
    teacher_weight: float = 0.5
    """Share of the loss that compares with a teacher, where there is one; the rest compares with labels."""
    temperature: float = 2.0
    """How much a teacher's scores are flattened."""
    feature_weight: float = 0.0
    """Weight of the loss that compares hidden features with a teacher's, beside the rest, where there is a teacher."""
    learned: bool = False
    """Whether the continuous ones above follow the gradient of the validation loss before training begins."""

    @classmethod
    def of(cls, params: Params) -> "Settings":
        """Return the settings that `params` name, the defaults for all others; names of other things are left alone."""
        chosen: dict[str, Any] = {name: typed(name, params[name]) for name in LIMITS if name in params}
        return cls(**chosen, learned=bool(params.get("learned", False)))

    def words(self) -> str:
        """Return what differs from the defaults but for the epochs, such as `learning rate 0.004, batch size 64`."""
        usual = Settings()
        changed = [name for name in LIMITS if name != "epochs" and getattr(self, name) != getattr(usual, name)]
        return ", ".join(f"{name.replace('_', ' ')} {getattr(self, name):.3g}" for name in changed)


LIMITS: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (1e-8, 10.0, False),
    "weight_decay": (0.0, 100.0, False),
    "head_rate": (0.0, 100.0, False),
    "head_decay": (0.0, 1000.0, False),
    "label_smoothing": (0.0, 0.9, False),
    "input_noise": (0.0, 10.0, False),
    "epochs": (1, 10_000, True),
    "batch_size": (1, 65_536, True),
    "patience": (1, 10_000, True),
    "warmup": (0.0, 0.9, False),
    "clip_norm": (1e-6, 1e6, False),
    "teacher_weight": (0.0, 1.0, False),
    "temperature": (0.1, 100.0, False),
    "feature_weight": (0.0, 1000.0, False),
}
"""Smallest and largest value of each hyperparameter, and whether it is a whole number."""


def wrong(name: str, value: ParamValue) -> str | None:
    """Return why a hyperparameter cannot have this value, as words after its name, or None."""
    if name not in LIMITS:
        return f"is not known; known are {', '.join(LIMITS)}"
    low, high, whole = LIMITS[name]
    if isinstance(value, bool | str) or (whole and value != int(value)):
        return f"must be {'a whole number' if whole else 'a number'}, not {value!r}"
    return None if low <= value <= high else f"must be between {low:g} and {high:g}, not {value}"


def typed(name: str, value: ParamValue) -> int | float:
    """Return a hyperparameter's value as its own kind of number."""
    return int(value) if LIMITS[name][2] else float(value)
