"""A custom predictor of KServe's SDK for one model: `python server.py --http_port 8080`."""

import asyncio
import os
from typing import Any

import kserve
import retune_runtime
from kserve.errors import InferenceError, InvalidInput

NAME = os.environ.get("MODEL_NAME", "model")


class BundleModel(kserve.Model):
    """Serves what MODEL_URI names; without it, what KServe has mounted for `storageUri`."""

    def __init__(self) -> None:
        super().__init__(NAME)
        # Asked its golden requests here: what cannot be proved ends the process before any port is open.
        self.served = retune_runtime.from_environment(delivered="/mnt/models")
        self.ready = True

    async def predict(self, payload: kserve.InferRequest, *_: object, **__: object) -> dict[str, Any]:
        """Answer one request; the answer names the bundle in `parameters.bundle_digest`."""
        body, binary = payload.to_rest()
        if binary is not None:
            raise InvalidInput("tensors are taken as JSON, not as binary data")
        try:
            return await asyncio.to_thread(self.served.answer, body, name=self.name)
        except retune_runtime.InputError as error:
            raise InvalidInput(str(error)) from error
        except retune_runtime.EngineError as error:
            raise InferenceError(str(error)) from error

    def stop(self) -> None:
        """Write what was captured when the server ends."""
        self.served.close()


if __name__ == "__main__":
    kserve.ModelServer().start([BundleModel()])
