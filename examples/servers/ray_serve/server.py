"""A Ray Serve application of one model, which speaks the Open Inference Protocol v2: `python server.py`."""

import os
import signal
from typing import Any

import retune_runtime
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray import serve

NAME = os.environ.get("MODEL_NAME", "model")
api = FastAPI()


@api.exception_handler(RequestValidationError)
@api.exception_handler(retune_runtime.InputError)
def refuse(_: Request, error: Exception) -> JSONResponse:
    """Tell the client that the request does not fit the model."""
    return JSONResponse({"error": str(error)}, status_code=400)


@api.exception_handler(retune_runtime.EngineError)
def fail(_: Request, error: Exception) -> JSONResponse:
    """Tell the client that the model fails at what fits; Retune counts this against the version."""
    return JSONResponse({"error": str(error)}, status_code=500)


@serve.deployment
@serve.ingress(api)
class Served:
    """Serves what MODEL_URI names; without it, the file that was delivered."""

    def __init__(self) -> None:
        # Asked its golden requests here: a replica that cannot prove its bundle is never healthy.
        self.served = retune_runtime.from_environment(delivered="model.onnx")

    @api.get("/v2/health/ready")
    @api.get(f"/v2/models/{NAME}/ready")
    def ready(self) -> dict[str, bool]:
        """Say that the model answers, which it does whenever anything answers."""
        return {"ready": True}

    @api.post(f"/v2/models/{NAME}/infer")
    def infer(self, body: dict[str, Any]) -> JSONResponse:
        """Answer one request; the answer names the bundle in `parameters.bundle_digest`."""
        return JSONResponse(self.served.answer(body, name=NAME))

    def __del__(self) -> None:
        """Write what was captured when the replica ends."""
        if hasattr(self, "served"):
            self.served.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a kubelet sends ends it as Ctrl-C does
    port = int(os.environ.get("PORT", "8080"))
    serve.start(http_options={"host": "0.0.0.0", "port": port})  # noqa: S104 - of a pod
    try:
        serve.run(Served.bind(), blocking=True)  # type: ignore[attr-defined]  # of the decorator
    finally:
        serve.shutdown()
