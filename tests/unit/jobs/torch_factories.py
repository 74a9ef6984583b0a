"""Networks and factories as users write them, good and bad."""

import torch
from torch import Tensor, nn


class Pair(nn.Module):  # type: ignore[misc] # the library has no types
    """Takes two inputs by name and answers class scores."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(32, width), nn.Linear(32, width)
        self.head = nn.Linear(width, 10)

    def forward(self, right: Tensor, left: Tensor) -> Tensor:
        """Return class scores (N, 10)."""
        return torch.as_tensor(self.head(torch.relu(self.left(left) + self.right(right))))


class FeaturesFirst(nn.Module):  # type: ignore[misc] # the library has no types
    """Answers features and scores by name, the features first."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        """Return features (N, 12), no loss, and class scores (N, 10)."""
        features = torch.relu(self.body(x))
        return {"features": features, "loss": None, "logits": self.head(features)}


class Typed(nn.Module):  # type: ignore[misc] # the library has no types
    """Takes pixels, truth values and one code a row, and says which class each score is of."""

    classes = tuple(f"digit {number}" for number in range(10))

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.head = nn.Embedding(4, 64), nn.Linear(64, 10)

    def forward(self, pixels: Tensor, lit: Tensor, code: Tensor) -> Tensor:
        """Return class scores (N, 10)."""
        return torch.as_tensor(self.head((pixels / 255) * ~lit + self.codes(code)))


def raising(*, inputs: int) -> nn.Module:
    """Raise what a user's code raises."""
    raise KeyError(f"no network with {inputs} inputs")


def exiting() -> nn.Module:
    """End the process."""
    raise SystemExit(3)


def number() -> int:
    """Return no network, and say so."""
    return 3
