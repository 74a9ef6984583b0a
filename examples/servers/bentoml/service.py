"""A BentoML service of one model, which speaks the Open Inference Protocol v2: `bentoml serve service:Served`."""

import os
from typing import Any

import bentoml
import retune_runtime
from bentoml.exceptions import BentoMLException, InvalidArgument

NAME = os.environ.get("MODEL_NAME", "model")


@bentoml.service
class Served:
    """Serves what MODEL_URI names; without it, the file that was delivered."""

    def __init__(self) -> None:
        # Asked its golden requests here: a worker that cannot prove its bundle ends, and `/readyz` stays 503.
        self.served = retune_runtime.from_environment(delivered="model.onnx")

    @bentoml.api(route=f"/v2/models/{NAME}/infer")
    def infer(self, inputs: list[dict[str, Any]], id: str | None = None) -> dict[str, Any]:  # noqa: A002 - the protocol's
        """Answer one request; the answer names the bundle in `parameters.bundle_digest`."""
        try:
            return self.served.answer({"id": id, "inputs": inputs}, name=NAME)
        except retune_runtime.InputError as error:
            raise InvalidArgument(str(error)) from error
        except retune_runtime.EngineError as error:
            raise BentoMLException(str(error)) from error

    @bentoml.on_shutdown
    def close(self) -> None:
        """Write what was captured when the server ends."""
        self.served.close()
