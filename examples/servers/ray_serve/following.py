"""The same application, given versions while it runs: `serve run serve.yaml`, with the agent beside it.

What `user_config` names is opened and proved before it answers; where it cannot be, the version before answers on.
"""

import asyncio
import logging
import os
from typing import Any

import retune_runtime
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray import serve

NAME = os.environ.get("MODEL_NAME", "model")
DELIVERED = "model.onnx"
api = FastAPI()
_log = logging.getLogger("ray.serve")


@api.exception_handler(RequestValidationError)
@api.exception_handler(retune_runtime.InputError)
def refuse(_: Any, error: Exception) -> JSONResponse:
    """Tell the client that the request does not fit the model."""
    return JSONResponse({"error": str(error)}, status_code=400)


@api.exception_handler(retune_runtime.EngineError)
def fail(_: Any, error: Exception) -> JSONResponse:
    """Tell the client that the model fails at what fits; Retune counts this against the version."""
    return JSONResponse({"error": str(error)}, status_code=500)


def proved(uri: str) -> retune_runtime.Served:
    """Return an open model that answers its golden requests as recorded; raises ServeError.

    Ray takes the class below as it stands when it is declared, so that all it calls has to be there before.
    """
    served = retune_runtime.open(uri)
    served.check_golden()
    return served


@serve.deployment
@serve.ingress(api)
class Served:
    """Serves what `user_config` names; without it, the file that was delivered."""

    def __init__(self) -> None:
        self.served: retune_runtime.Served | None = None

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Open what is named, in a thread, so that requests are answered meanwhile; the first model has to open."""
        try:
            self.served = await asyncio.to_thread(proved, config.get("model_uri") or DELIVERED)
        except retune_runtime.ServeError as error:
            if self.served is None:
                raise
            _log.error("the version before serves on: %s", error)

    @api.get("/v2/health/ready")
    @api.get(f"/v2/models/{NAME}/ready")
    def ready(self) -> dict[str, bool]:
        """Say that the model answers, which it does whenever anything answers."""
        return {"ready": True}

    @api.get(f"/v2/models/{NAME}")
    def metadata(self) -> dict[str, Any]:
        """Say which bundle answers, so that the agent can tell."""
        return self.model.metadata(NAME) | {"parameters": self.model.parameters}

    @api.post(f"/v2/models/{NAME}/infer")
    def infer(self, body: dict[str, Any]) -> JSONResponse:
        """Answer one request; the answer names the bundle in `parameters.bundle_digest`."""
        return JSONResponse(self.model.answer(body, name=NAME))

    @property
    def model(self) -> retune_runtime.Served:
        """The open model, which there is as soon as anything is asked."""
        assert self.served is not None
        return self.served


app = Served.bind()  # type: ignore[attr-defined]  # of the decorator
