"""`spec.registry`: where accepted versions are registered, and what the registry calls the one that serves."""

from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, Text, rules
from retune.api.execution import Credentials

RegistryUri = Annotated[
    str,
    Text(
        pattern=r"mlflow://([A-Za-z0-9_.+=-]|%20){1,256}",
        max_length=1024,
        message="a registered model in MLflow is mlflow://NAME, without an alias or a version; a name has letters, "
        "digits and _ . + = -, and %20 for a space",
    ),
]
"""URI of a registered model, whichever version."""
Alias = Annotated[
    str,
    Text(pattern=r"[A-Za-z0-9_-]+", max_length=64, message="an alias has letters, digits, _ and -, at most 64 of them"),
]
_RESERVED = "matches('(?i)^(latest|v[0-9]+)$')"


class Aliases(ApiModel):
    """What the registry calls versions by what they are to the target."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.challenger != self.champion",
                "registry.aliases: challenger and champion are two versions, which one alias cannot name",
            ),
            (
                f"!self.challenger.{_RESERVED} && !self.champion.{_RESERVED}",
                "registry.aliases: MLflow keeps latest, v1, v2 and so on for itself, take other words",
            ),
        )
    )

    challenger: Alias = "challenger"
    """Alias of the version that the judge has accepted and that is not champion yet."""
    champion: Alias = "champion"
    """Alias of the version that is champion: after its bake, or after a rollback to it."""


class Registry(ApiModel):
    """A registry that gets every version that the judge accepts, with its origin, numbers and report."""

    uri: RegistryUri
    """Registered model in MLflow, as mlflow://NAME; it is made where there is none. The server's address is
    MLFLOW_TRACKING_URI of the Secret."""
    aliases: Aliases = Aliases()
    """What the registry calls versions. A server without aliases gets tags retune.alias in their place."""
    experiment: str | None = Field(default=None, min_length=1, max_length=255)
    """Experiment of MLflow that the runs with files and numbers belong to; NAME where it is left out."""
    credentials: Credentials | None = None
    """Secret of the registry alone, with the keys of mlflow://. Left out: that of execution.credentials."""
