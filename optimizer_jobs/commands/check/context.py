"""One check under way: what it was asked, and the rows of a window that it may look at."""

from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.windows import Captured, Selection, answering, read_window
from retune.api.monitoring import Production
from retune.contract.requests import CheckRequest, Window


@dataclass(frozen=True)
class Check:
    """One check under way."""

    request: CheckRequest
    production: Production
    manifest: Manifest
    scratch: Path
    now: int

    def rows(self, window: Window) -> Captured:
        """Return the champion's captured rows of a window."""
        models = answering(self.manifest, self.request.champion.digest)
        return read_window(
            self.production,
            self.manifest.signature,
            Selection(start=window.start, end=window.end, now=self.now, models=models),
            max_rows=self.request.max_samples,
            into=self.scratch / f"w{window.index}",
            seed=self.request.seed,
        )
