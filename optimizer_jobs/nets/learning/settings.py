"""How a network is trained: one set of hyperparameters, as the search chooses them.

There is no torch in here, so that techniques can name and check hyperparameters before anything heavy is imported.
"""

from dataclasses import dataclass
from typing import Any

from optimizer_jobs.technique import Params, ParamValue

DELIVERED, SCRATCH = "Delivered", "Scratch"
"""Where training starts: from the weights as delivered, or from new ones."""

FACTORY = "factory"
"""Parameter of technique Distillation that holds the student's Factory as JSON."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hyperparameters of one training. The defaults suit small networks and data that fits into memory."""

    learning_rate: float = 1e-3
    """Largest learning rate of AdamW; it falls to 0 along a cosine."""
    weight_decay: float = 1e-4
    """Decoupled decay of matrices and filters; biases and normalizations have none."""
    head_rate: float = 1.0
    """Learning rate of the last layer, as a multiple of that of the other layers."""
    head_decay: float = 1.0
    """Weight decay of the last layer, as a multiple of that of the other layers."""
    label_smoothing: float = 0.0
    """Share of a label that is spread over all classes, 0 to 1."""
    input_noise: float = 0.0
    """Standard deviation of the noise added to floating point inputs, as a multiple of the input's own."""
    epochs: int = 30
    """Passes over the training rows, at most."""
    batch_size: int = 32
    patience: int = 8
    """Epochs without better quality on validation after which training ends."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises from 0, 0 to 1."""
    clip_norm: float = 5.0
    """Largest norm of the gradient; longer ones are scaled down to it."""
    teacher_weight: float = 0.5
    """Share of the loss that compares with the answers of a teacher, 0 to 1; the rest compares with labels."""
    temperature: float = 2.0
    """What logits of teacher and student are divided by when they are compared; more makes small scores count more."""
    feature_weight: float = 0.0
    """Weight of the loss that compares hidden features with those of a teacher; it is added to the rest."""
    learned: bool = False
    """Whether continuous hyperparameters follow the gradient of the validation loss before training begins."""

    @classmethod
    def of(cls, params: Params) -> "Settings":
        """Return the settings that `params` name, with defaults for all others. Other names in `params` are ignored."""
        chosen: dict[str, Any] = {name: typed(name, params[name]) for name in LIMITS if name in params}
        return cls(**chosen, learned=bool(params.get("learned", False)))

    def words(self) -> str:
        """Return what differs from the defaults, epochs aside, such as `learning rate 0.004, batch size 64`."""
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
    """Return why a hyperparameter cannot have this value, as words that follow its name, or None."""
    if name not in LIMITS:
        return f"is not known; known are {', '.join(LIMITS)}"
    low, high, whole = LIMITS[name]
    if isinstance(value, bool | str) or (whole and value != int(value)):
        return f"must be {'a whole number' if whole else 'a number'}, not {value!r}"
    return None if low <= value <= high else f"must be between {low:g} and {high:g}, not {value}"


def typed(name: str, value: ParamValue) -> int | float:
    """Return a hyperparameter's value as a whole number or a float, as `LIMITS` says."""
    return int(value) if LIMITS[name][2] else float(value)
