"""A FastAPI server of one model, which speaks the Open Inference Protocol v2: `uvicorn server:app --port 8080`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import retune_runtime
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

NAME = os.environ.get("MODEL_NAME", "model")

# Opened and asked its golden requests before any port is open: what cannot be proved ends the process here.
served = retune_runtime.from_environment(delivered="model.onnx")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Write what was captured when the server ends."""
    yield
    served.close()


app = FastAPI(lifespan=lifespan)


@app.get("/v2/health/live")
@app.get("/v2/health/ready")
@app.get(f"/v2/models/{NAME}/ready")
def ready() -> dict[str, bool]:
    """Say that the model answers, which it does whenever anything answers."""
    return {"ready": True}


@app.get(f"/v2/models/{NAME}")
def metadata() -> dict[str, Any]:
    """Describe inputs and outputs."""
    return served.metadata(NAME)


@app.post(f"/v2/models/{NAME}/infer")
def infer(body: dict[str, Any]) -> JSONResponse:
    """Answer one request; the answer names the bundle in `parameters.bundle_digest`."""
    return JSONResponse(served.answer(body, name=NAME))


@app.exception_handler(RequestValidationError)
@app.exception_handler(retune_runtime.InputError)
def refuse(_: Request, error: Exception) -> JSONResponse:
    """Tell the client that the request does not fit the model."""
    return JSONResponse({"error": str(error)}, status_code=400)


@app.exception_handler(retune_runtime.EngineError)
def fail(_: Request, error: Exception) -> JSONResponse:
    """Tell the client that the model fails at what fits; Retune counts this against the version."""
    return JSONResponse({"error": str(error)}, status_code=500)
