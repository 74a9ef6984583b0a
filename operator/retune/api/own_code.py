"""Code of the owner's own that `spec` names: what builds a network, and what measures how good answers are.

It runs in Jobs only, in the owner's image, and never in the operator.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ATOMIC, ApiModel, Text, map_list, rules
from retune.api.resources import Command, Resources


def _entry_point(what: str) -> Text:
    """Return the marker of a text that names a callable; `what` is what it is called in a refusal."""
    return Text(
        pattern=r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*",
        max_length=256,
        message=f"a {what} is named package.module:callable",
    )


class FactoryArgument(ApiModel):
    """One keyword argument."""

    name: Annotated[
        str,
        Text(
            pattern=r"[A-Za-z_][A-Za-z0-9_]*",
            max_length=64,
            message="an argument's name has letters, digits and _, and does not start with a digit",
        ),
    ]
    """Name of the argument."""
    value: str = Field(max_length=256)
    """Its value as JSON, such as 64, 0.5, true or "relu"; anything else is taken as text."""


class Factory(ApiModel):
    """Code in the Job's image that builds the network whose weights the file holds."""

    entry_point: Annotated[str, _entry_point("factory")]
    """`package.module:callable`; called with the arguments, it returns a torch.nn.Module."""
    arguments: tuple[FactoryArgument, ...] = Field(default=(), max_length=32, json_schema_extra=map_list("name"))
    """Keyword arguments that it is called with."""


class MetricContainer(ApiModel):
    """A container of your own that measures, beside every Job that asks for the metric."""

    image: str = Field(min_length=1, max_length=512)
    """Image of the container. It needs /bin/sh with mv, rm, sleep and cat. It runs as another user than root, without
    credentials, on a read-only root file system with /tmp to write to."""
    command: Command = Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)
    """Command that measures once, within 300 s. It reads the NPZ files that RETUNE_OUTPUTS (every output of the model
    by its name) and RETUNE_LABELS (labels, and groups where the data has them) name, each argument from
    RETUNE_PARAM_<NAME>, and writes numbers to the NPY file RETUNE_RESULT: one a row, one a group, or one for all."""
    resources: Resources = Resources()
    """Resources of the container. RETUNE_THREADS and OMP_NUM_THREADS tell it its CPU limit."""


class CustomMetric(ApiModel):
    """Code of your own that says how good answers are, for metrics custom and custom_loss."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.entryPoint) != has(self.container)",
                "customMetric has either entryPoint, code in the Job's image, or container, an image of your own",
            ),
        )
    )

    entry_point: Annotated[str, _entry_point("metric")] | None = None
    """`package.module:callable` in the Job's image, a function with parameters `outputs` (every output of the model by
    its name, a NumPy array with one row a row), `labels` (an array with one row a row), and the arguments. It returns
    an array with one number a row, whose mean is the metric, or one number for all rows, which is then computed on rows
    drawn again. A metric is at least 0."""
    container: MetricContainer | None = None
    """A container of your own in place of that function: no code of yours has to be in the Job's image."""
    arguments: tuple[FactoryArgument, ...] = Field(default=(), max_length=32, json_schema_extra=map_list("name"))
    """Keyword arguments that the function is called with; variables of the container's command."""

    @property
    def words(self) -> str:
        """What people know it by, such as `metric shop:iou` or `metric container registry.example/iou:1`."""
        return f"metric container {self.container.image}" if self.container else f"metric {self.entry_point}"
