"""Format SafeTensors: weights, and code in the Job's image that builds the network they belong to.

The file is data. The factory is code of whoever made the image, and trusted as such.
"""

from pathlib import Path

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from retune.contract.results import Reason


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Build the network, load the weights, and write it as ONNX."""
    from optimizer_jobs.machinery.formats.torch_inputs import export_network
    from optimizer_jobs.nets import native

    try:
        module = native.build(delivered.native)
    except JobError as error:
        raise JobError(error.reason, delivered.uri, error.message, error.next_step, error.exit) from error
    except Exception as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"the factory raised {type(error).__name__}: {printable(str(error), limit=300)}.",
            "Correct model.factory, or the code in the Job's image that it names.",
        ) from error
    return export_network(module, delivered, into=into)
