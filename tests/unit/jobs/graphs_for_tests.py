"""Networks as people write them in torch, and their ONNX files from both exporters of torch.

All take digits: 64 pixels between 0 and 1 a row, or the same pixels as 64 tokens from 0 to 16. Weights are as torch
starts them, with normalizations that have seen data: what is tested is the graph, not what was learned.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.jobs import models_for_tests as models

Module: Any = nn.Module


class Perceptron(Module):  # type: ignore[misc] # the library has no types
    """Two hidden layers with normalizations, a residual sum, and pixels standardized inside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 96), nn.Linear(96, 96), nn.Linear(96, 10)
        self.layer_norm, self.batch_norm, self.slopes = nn.LayerNorm(96), nn.BatchNorm1d(96), nn.PReLU()
        self.register_buffer("mean", pixels().mean(0))
        self.register_buffer("spread", pixels().std(0) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        hidden = functional.gelu(self.first((x - self.mean) / self.spread))
        hidden = self.slopes(self.batch_norm(self.second(self.layer_norm(hidden)))) + hidden
        return self.head(functional.hardtanh(functional.dropout(functional.selu(hidden), 0.1, self.training)))


class Convolutions(Module):  # type: ignore[misc] # the library has no types
    """Convolution, depthwise convolution, batch norms, pool and a dense head: answers probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.norm, self.point = nn.BatchNorm2d(32), nn.Conv2d(32, 48, 1)
        self.dense, self.head = nn.Linear(48 * 16, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        image = functional.relu(self.norm(self.first(x.view(-1, 1, 8, 8))))
        image = functional.max_pool2d(functional.relu6(self.point(functional.hardswish(self.deep(image)))), 2)
        return self.head(functional.relu(self.dense(image.view(-1, 48 * 16)))).softmax(-1)


class Residual(Module):  # type: ignore[misc] # the library has no types
    """Branches that meet in sums and concatenations, and channels weighed by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.down, self.grouped = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.Conv2d(64, 24, 3, padding=1, groups=2)
        self.squeeze, self.excite, self.head = nn.Linear(24, 8), nn.Linear(8, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        image = functional.silu(self.first(x.reshape(x.shape[0], 1, 8, 8)))
        image = self.down(functional.relu(self.second(image) + image))
        image = functional.gelu(self.grouped(torch.cat([image, functional.leaky_relu(image)], dim=1)))
        weights = self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(image, 1).flatten(1))))
        image = functional.avg_pool2d(image * weights.sigmoid()[:, :, None, None], 3, stride=2, padding=1)
        return self.head(image.mean((2, 3)))


class Sequence(Module):  # type: ignore[misc] # the library has no types
    """Convolutions along a sequence, group norm, and log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(8, 32, 3, padding=1), nn.Conv1d(32, 32, 3, padding=2, dilation=2)
        self.norm, self.head = nn.GroupNorm(4, 32), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        steps = self.norm(self.second(functional.mish(self.first(x.view(-1, 8, 8)))))
        return self.head(torch.cat([steps.amax(-1), steps.mean(-1)], dim=1)).log_softmax(-1)


class Encoder(Module):  # type: ignore[misc] # the library has no types
    """A transformer over tokens: four heads, two layers, learned places, the mean of all tokens."""

    def __init__(self, *, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.words, self.places, self.size = nn.Embedding(17, width), nn.Embedding(64, width), width // heads
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    **{name: nn.Linear(width, width) for name in ("query", "key", "value", "out")},
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                    "norm": nn.LayerNorm(width),
                    "last_norm": nn.LayerNorm(width),
                }
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, 10) for tokens (N, L)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.words(tokens) + self.places(places)[None]
        for layer in self.layers:
            query, key, value = (self._split(layer[name](hidden)) for name in ("query", "key", "value"))
            mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
            hidden = layer["norm"](hidden + layer["out"](mixed.reshape(mixed.shape[0], mixed.shape[1], -1)))
            hidden = layer["last_norm"](hidden + layer["down"](functional.gelu(layer["up"](hidden))))
        return self.head(hidden.mean(1))

    def _split(self, values: Tensor) -> Tensor:
        return values.view(values.shape[0], values.shape[1], -1, self.size).transpose(1, 2)


class Patches(Module):  # type: ignore[misc] # the library has no types
    """A vision transformer with a class token, and query, key and value from one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(1, 48, 2, 2), nn.Parameter(torch.randn(1, 1, 48))
        self.places, self.norm = nn.Parameter(torch.randn(1, 17, 48)), nn.LayerNorm(48)
        self.mixing, self.out, self.head = nn.Linear(48, 144), nn.Linear(48, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        image = self.patches(x.view(-1, 1, 8, 8)).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.token.expand(image.shape[0], -1, -1), image], dim=1) + self.places
        rows, steps, width = hidden.shape
        query, key, value = (
            self.mixing(self.norm(hidden)).reshape(rows, steps, 3, 4, 12).permute(2, 0, 3, 1, 4).unbind(0)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(rows, steps, width)
        return self.head((hidden + self.out(mixed))[:, 0])


class Products(Module):  # type: ignore[misc] # the library has no types
    """Vectors of several layers that meet in dot products, as recommenders have them (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 48), nn.Linear(48, 16)
        self.vectors = nn.ModuleList(nn.Linear(64, 16) for _ in range(5))
        self.top, self.head = nn.Linear(6 * 6 + 16, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        bottom = self.last(functional.relu(self.first(x)))
        stacked = torch.stack([bottom, *(vector(x) for vector in self.vectors)], dim=1)
        products = torch.matmul(stacked, stacked.transpose(1, 2)).flatten(1)
        return self.head(functional.relu(self.top(torch.cat([bottom, products], dim=1))))


class Recurrent(Module):  # type: ignore[misc] # the library has no types
    """A recurrent network, which cannot be imported."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 10) for pixels (N, 64)."""
        return self.head(self.recurrent(x.view(-1, 8, 8))[0][:, -1])


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "perceptron": Perceptron,
    "convolutions": Convolutions,
    "residual": Residual,
    "sequence": Sequence,
    "encoder": Encoder,
    "patches": Patches,
    "products": Products,
}
"""Those that can be imported, by name."""


def pixels(rows: int = 6) -> Tensor:
    """Return (rows, 64) pixels of digits, between 0 and 1."""
    return torch.from_numpy(models.digits("training")[0][:rows])


def inputs(name: str, rows: int = 6) -> Tensor:
    """Return rows as the network of this name takes them: pixels, or tokens for the encoder."""
    return (16 * pixels(rows)).long() if name == "encoder" else pixels(rows)


def network(name: str) -> nn.Module:
    """Return the network of this name, always with the same weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = Recurrent() if name == "recurrent" else NETWORKS[name]()
        module.train()(inputs(name))
    return module.eval()


def save(name: str, path: Path, *, dynamo: bool) -> Path:
    """Export a network with torch's new exporter or the one before; rows, and the encoder's tokens, are free."""
    axes = {0: "N", 1: "L"} if name == "encoder" else {0: "N"}
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    free = (
        {"dynamic_shapes": shapes} if dynamo else {"dynamic_axes": {"x": axes, "scores": {0: "N"}}, "opset_version": 17}
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # both exporters warn of themselves
        made = torch.onnx.export(
            network(name),
            (inputs(name),),
            None if dynamo else str(path),
            dynamo=dynamo,
            verbose=False,
            input_names=["x"],
            output_names=["scores"],
            **free,
        )
        if dynamo:
            made.save(str(path), external_data=False)
    return path
