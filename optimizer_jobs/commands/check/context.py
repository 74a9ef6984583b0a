"""What all parts of a check share: the request, the champion's manifest, and how to read the rows of a window."""

from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.windows import Captured, Selection, answering, read_window
from retune.api.production import Production
from retune.contract.requests import CheckRequest, Window


@dataclass(frozen=True)
class Check:
    """A check of one window."""

    request: CheckRequest
    production: Production
    manifest: Manifest
    """Manifest of the champion."""
    scratch: Path
    """Folder for private copies."""
    now: int
    """Current time in seconds since 1970."""

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
