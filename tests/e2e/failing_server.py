"""A model server that is well as long as it serves the delivered model, and fails half of the requests to a bundle.

Golden requests are answered right, and its pods are ready: only live traffic shows what is wrong. It is mounted beside
the example's server, in that server's image.
"""

import itertools

from mlserver.types import InferenceRequest, InferenceResponse
from retune_model import BundleModel  # type: ignore[import-not-found]  # the image has it

from optimizer_jobs.models.golden import GOLDEN_ID


class Model(BundleModel):  # type: ignore[misc]  # MLServer has no type information
    """The example's server, but for its failures."""

    _requests = itertools.count()

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer, or fail every other time while a bundle is served: RuntimeError is answered with 500."""
        if self.served.bundle_digest is not None and payload.id != GOLDEN_ID and next(self._requests) % 2:
            raise RuntimeError("out of order")
        return await super().predict(payload)
