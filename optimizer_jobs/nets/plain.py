"""Operations that torch computes in one piece, written out in plain ones while a network is exported or differentiated.

ONNX has no counterpart of attention's fast path, and of bags of embeddings only one made of loops; a bag has no second
derivative either. Their plain forms compute the same.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def plain() -> Iterator[None]:
    """Compute attention and bags of embeddings in plain operations until the context closes."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _PlainBags():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _PlainBags(TorchFunctionMode):  # type: ignore[misc] # the library has no types
    """Computes bags of embeddings as rows of the table that are then summed, averaged or compared."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or the plain form of a bag."""
        del types
        if function is functional.embedding_bag:
            call = _BAG.bind(*args, **(kwargs or {}))
            call.apply_defaults()
            if _is_plain(call.arguments):
                return _bag(call.arguments)
        return function(*args, **(kwargs or {}))


_BAG = inspect.signature(functional.embedding_bag)


def _is_plain(call: Mapping[str, Any]) -> bool:
    """Return whether every row is one bag. Bags in one long row would need loops, and a norm would change the table."""
    return call["input"].ndim == 2 and call["offsets"] is None and call["max_norm"] is None


def _bag(call: Mapping[str, Any]) -> Tensor:
    """Return one vector for each row of indices (N, L): the sum, mean or largest numbers of the table's rows."""
    indices, table, weights, padding = call["input"], call["weight"], call["per_sample_weights"], call["padding_idx"]
    rows = functional.embedding(indices, table)
    if weights is not None:
        rows = rows * weights.unsqueeze(-1)
    if padding is None:
        return _WHOLE[call["mode"]](rows)
    present = (indices != padding % len(table)).unsqueeze(-1)
    if call["mode"] == "max":
        return rows.masked_fill(~present, -torch.inf).amax(1).masked_fill(~present.any(1), 0.0)
    total = (rows * present.to(rows.dtype)).sum(1)
    return total if call["mode"] == "sum" else total / present.sum(1).clamp_min(1).to(rows.dtype)


_WHOLE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda rows: rows.sum(1),
    "mean": lambda rows: rows.mean(1),
    "max": lambda rows: rows.amax(1),
}
"""What becomes of the rows of a bag without padding."""
