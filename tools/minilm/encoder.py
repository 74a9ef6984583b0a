"""MiniLM in plain torch, for its export: a BERT encoder of 6 layers, mean pooling and length 1.

Attention is written out, because the graph must be one that any ONNX tool understands.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1536
WORDS, POSITIONS = 30522, 512
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "sentence_vector"
EPSILON = 1e-12


class Attention(nn.Module):  # type: ignore[misc] # the library has no types
    """Self-attention with one head a 32 channels, and the sum with its input."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return (N, L, WIDTH) for `hidden` (N, L, WIDTH) and `bias` (N, 1, 1, L), far below 0 on padding."""
        query, key, value = (self._heads(layer(hidden)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + bias
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2)
        joined = mixed.reshape(mixed.shape[0], mixed.shape[1], WIDTH)
        return self.norm(self.out(joined) + hidden)

    @staticmethod
    def _heads(values: Tensor) -> Tensor:
        return values.view(values.shape[0], values.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)


class Layer(nn.Module):  # type: ignore[misc] # the library has no types
    """Attention and two linear layers with GELU between."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return (N, L, WIDTH) for `hidden` (N, L, WIDTH)."""
        attended = self.attention(hidden, bias)
        return self.norm(self.down(functional.gelu(self.up(attended))) + attended)


class Encoder(nn.Module):  # type: ignore[misc] # the library has no types
    """Token numbers, mask and token types (N, L) int64 to sentence vectors (N, WIDTH) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(WORDS, WIDTH), nn.Embedding(2, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the sentence vectors."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        hidden = self.norm(self.words(input_ids) + self.types(token_type_ids) + self.positions(places))
        mask = attention_mask.to(hidden.dtype)
        bias = (1.0 - mask[:, None, None, :]) * -10000.0
        for layer in self.layers:
            hidden = layer(hidden, bias)
        weights = mask.unsqueeze(-1)
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)


def load(weights: Path) -> Encoder:
    """Return the encoder with the delivered weights, in evaluation mode."""
    from safetensors.torch import load_file

    encoder = Encoder()
    delivered = load_file(weights)
    encoder.load_state_dict({name: delivered[_delivered_name(name)] for name in encoder.state_dict()})
    encoder.eval()
    return encoder


def export(weights: Path, target: Path) -> None:
    """Write the encoder as ONNX with free batch and length, checked against torch."""
    import onnxruntime as ort

    encoder = load(weights)
    example = (torch.arange(1000, 1036).view(2, 18), torch.ones(2, 18, dtype=torch.int64), torch.zeros(2, 18).long())
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS} | {OUTPUT: {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that ONNX Runtime's fusions know is called legacy
        torch.onnx.export(
            encoder,
            example,
            str(target),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        wanted = encoder(*example).numpy()
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, example, strict=True)})
    if abs(got - wanted).max() > 1e-5:
        raise AssertionError("the exported graph answers otherwise than torch")


def _delivered_name(name: str) -> str:
    """Return the name that a parameter has in the delivered file."""
    table = {
        "words": "embeddings.word_embeddings",
        "types": "embeddings.token_type_embeddings",
        "positions": "embeddings.position_embeddings",
        "norm": "embeddings.LayerNorm",
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        "attention.out": "attention.output.dense",
        "attention.norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
    }
    module, _, kind = name.rpartition(".")
    if not module.startswith("layers."):
        return f"{table[module]}.{kind}"
    _, number, inner = module.split(".", maxsplit=2)
    return f"encoder.layer.{number}.{'output.LayerNorm' if inner == 'norm' else table[inner]}.{kind}"
