"""A runtime of MLServer for one model, which speaks the Open Inference Protocol v2: `mlserver start .`."""

import asyncio

import retune_runtime
from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse


class BundleModel(MLModel):
    """Serves what MODEL_URI names; without it, the file that model-settings.json or MLSERVER_MODEL_URI names."""

    async def load(self) -> bool:
        """Open the bundle and ask it its golden requests: what cannot be proved is never loaded."""
        parameters = self.settings.parameters
        self.served = retune_runtime.from_environment(delivered=parameters.uri if parameters else None)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request; the answer names the bundle in `parameters.bundle_digest`."""
        body = payload.model_dump(mode="json")
        try:
            answer = await asyncio.to_thread(self.served.answer, body, name=self.name)
        except retune_runtime.InputError as error:
            raise InferenceError(str(error)) from error  # status 400; an EngineError becomes 500
        return InferenceResponse.model_validate(answer)

    async def metadata(self) -> MetadataModelResponse:
        """Say what the model takes and gives, and which version it is."""
        return MetadataModelResponse.model_validate(self.served.metadata(self.name))

    async def unload(self) -> bool:
        """Write what was captured when the server ends."""
        if hasattr(self, "served"):  # else loading has failed, and MLServer tells of that after this
            self.served.close()
        return True
