"""Changed training rows: real digits stay digits, and gradients find their way through every change."""

import pytest
from sklearn.datasets import load_digits

torch = pytest.importorskip("torch")

from optimizer_jobs.nets.learning.augment import augment  # noqa: E402
from retune.api.techniques import AugmentationKind  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("kind", list(AugmentationKind))
def test_gradients_pass_through_every_change(kind: AugmentationKind) -> None:
    """Hyperparameters that are learned by gradient add noise to the inputs, which every other change then follows."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels[:32] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8).requires_grad_()
    change = augment({kind: 0.5}, (images.detach(),), classes=10)
    generator = torch.Generator().manual_seed(0)
    (changed,), _ = change(torch.nn.Identity(), (images * 1.0,), torch.tensor(labels[:32]), generator)
    changed.sum().backward()
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    assert torch.isfinite(images.grad).all()
    assert float(images.grad.abs().sum()) > 0
