"""Model servers of others, real and pinned, that read what `retune render` writes."""

from tests.unit.jobs.conftest import delivered, make, splits

__all__ = ["delivered", "make", "splits"]
