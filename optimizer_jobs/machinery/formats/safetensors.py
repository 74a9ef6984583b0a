"""Format SafeTensors: weights, and a factory in the Job's image that builds the network they belong to.

The file is data. The factory is code that whoever made the image put there, and it is trusted like the rest of it.
"""

import dataclasses
from pathlib import Path

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from retune.contract.results import Reason


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Build the network, load the weights, and write it as ONNX."""
    from optimizer_jobs.machinery.formats.torch_export import export_network
    from optimizer_jobs.nets import native

    try:
        module = native.build(delivered.native)
    except JobError as error:
        raise dataclasses.replace(error, object=delivered.uri) from error
    except Exception as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"the factory raised {type(error).__name__}: {printable(str(error), limit=300)}.",
            "Correct model.factory, or the code in the Job's image that it names.",
        ) from error
    return export_network(module, delivered, into=into)
