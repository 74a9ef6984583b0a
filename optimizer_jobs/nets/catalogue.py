"""Small, plain networks that a spec can name as a factory, and that students are made of.

Their arguments are numbers and texts, as a spec can write them. All of them answer one tensor: logits (N, outputs), a
number (N, 1), or a vector.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
}


def mlp(
    *,
    inputs: int,
    outputs: int,
    width: int = 128,
    depth: int = 2,
    dropout: float = 0.0,
    activation: str = "relu",
) -> nn.Sequential:
    """Return a perceptron.

    Args:
        inputs: Numbers in a row; the network takes (N, ...) and flattens it.
        outputs: Numbers that it answers for a row.
        width: Units of a hidden layer.
        depth: Hidden layers.
        dropout: Share of units dropped after each hidden layer in training, 0 to 1.
        activation: relu, gelu, silu, tanh or leaky_relu.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(width if number else inputs, width), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(width if depth else inputs, outputs))


def convnet(*, channels: int, outputs: int, width: int = 32, depth: int = 2, dropout: float = 0.0) -> nn.Sequential:
    """Return a convolutional network.

    Args:
        channels: Channels of the images (N, channels, H, W), which have at least 2 ** (depth - 1) pixels a side.
        outputs: Numbers that it answers for an image.
        width: Filters of the first stage; each further stage has twice as many.
        depth: Stages; each one after the first works on an image of half the size.
        dropout: Share of features dropped before the last layer in training, 0 to 1.
    """
    layers: list[nn.Module] = []
    for number in range(depth):
        filters = width * 2**number
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if number < depth - 1 else []
        channels = filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(channels, outputs))


def pixels_convnet(
    *, side: int, outputs: int, channels: int = 1, width: int = 32, depth: int = 2, dropout: float = 0.0
) -> nn.Sequential:
    """Return `convnet` for square images that come as rows (N, channels * side * side)."""
    net = convnet(channels=channels, outputs=outputs, width=width, depth=depth, dropout=dropout)
    return nn.Sequential(nn.Unflatten(1, (channels, side, side)), *net)


def image_net(
    *, channels: int, sides: tuple[int, int], outputs: int, width: int = 32, depth: int = 1, dropout: float = 0.0
) -> nn.Sequential:
    """Return a small convolutional network for images of one size (N, channels, *sides).

    Images are halved, with more filters each time, until no side is longer than 4. What is left keeps its place: it is
    flattened, not averaged.

    Args:
        channels: Channels of the images.
        sides: Pixels of their height and width.
        outputs: Numbers that it answers for an image.
        width: Filters of the first stage; each further stage has twice as many, at most four times as many.
        depth: Convolutions in a stage.
        dropout: Share of features dropped before the last layer in training, 0 to 1.
    """
    layers: list[nn.Module] = []
    sizes = list(_halved(sides))
    for number, (size, smaller) in enumerate(zip(sizes, [*sizes[1:], sizes[-1]], strict=True)):
        filters, steps = (
            width * min(4, 2**number),
            tuple(1 if s == t else 2 for s, t in zip(size, smaller, strict=True)),
        )
        early = max(size) > _LARGE_SIDE
        for place in range(depth):
            stride = steps if early and place == 0 else 1
            convolution = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(filters), nn.ReLU()]
            channels = filters
        layers += [] if early or size == smaller else [nn.MaxPool2d(steps, ceil_mode=True)]
    layers += [nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(channels * sizes[-1][0] * sizes[-1][1], outputs))


_LAST_SIDE, _LARGE_SIDE = 4, 32
"""Side at which an image is halved no more, and side above which a convolution halves it itself, to save work."""


def _halved(sides: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the sides, and then halves of those that are longer than 4, rounded up, until none is."""
    height, breadth = sides
    yield height, breadth
    while max(height, breadth) > _LAST_SIDE:
        height, breadth = (-(-side // 2) if side > _LAST_SIDE else side for side in (height, breadth))
        yield height, breadth


def transformer(
    *, vocabulary: int, outputs: int, width: int = 64, depth: int = 2, heads: int = 4, longest: int = 512
) -> nn.Module:
    """Return a small transformer encoder.

    Args:
        vocabulary: Number of different tokens; the network takes tokens (N, L), 0 after the end of a text.
        outputs: Numbers that it answers for a text.
        width: Features of a token, a multiple of `heads`.
        depth: Blocks of attention and perceptron.
        heads: Heads of each attention.
        longest: Largest L.

    Raises:
        ValueError: `width` is not a multiple of `heads`.
    """
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    blocks = [_Block(width, heads) for _ in range(depth)]
    return _Encoder(
        tokens=nn.Embedding(vocabulary, width),
        places=nn.Embedding(longest, width),
        blocks=nn.ModuleList(blocks),
        head=nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs)),
    )


class _Encoder(nn.Module):  # type: ignore[misc] # the library has no types
    """Embeds tokens and positions, runs the blocks, and puts the mean over the tokens into the head."""

    def __init__(self, *, tokens: nn.Embedding, places: nn.Embedding, blocks: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.tokens, self.places, self.blocks, self.head = tokens, places, blocks, head

    def forward(self, tokens: Tensor) -> Tensor:
        present = tokens != 0
        hidden = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            hidden = block(hidden, present)
        shares = present.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * shares).sum(1) / shares.sum(1).clamp_min(1.0)
        return torch.as_tensor(self.head(mean))


class _Block(nn.Module):  # type: ignore[misc] # the library has no types
    """Attention among the tokens that are present, then a perceptron, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor, present: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        parts = self.asked(self.before(hidden)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.zeros_like(present, dtype=hidden.dtype).masked_fill(~present, -1e4)[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.joined(mixed.transpose(1, 2).reshape(batch, length, width))
        return torch.as_tensor(hidden + self.narrow(functional.gelu(self.wide(self.between(hidden)))))
