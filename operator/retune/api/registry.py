"""`spec.registry`: where accepted versions are registered, and what the registry calls the one that serves."""

from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, Text, rules
from retune.api.execution import Credentials

_HOST = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,4})?"
_PART = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
RegistryUri = Annotated[
    str,
    Text(
        pattern=rf"mlflow://([A-Za-z0-9_.+=-]|%20){{1,256}}|oci://{_HOST}(/{_PART}){{1,8}}",
        max_length=512,
        message="a registry is mlflow://NAME without alias or version (a space is %20), or oci://HOST/REPOSITORY in "
        "lower case without tag or digest",
    ),
]
"""URI of a registered model or a repository of images, whichever version."""
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
    """A registry that gets every version that the judge accepts."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.experiment) || self.uri.startsWith('mlflow://')",
                "registry.experiment belongs to a registry in MLflow",
            ),
        )
    )

    uri: RegistryUri
    """Registered model in MLflow, as mlflow://NAME, which gets origin, numbers and report too; it is made where there
    is none, and the server's address is MLFLOW_TRACKING_URI of the Secret. Or a repository of images, as
    oci://HOST/REPOSITORY, for KServe and image volumes."""
    aliases: Aliases = Aliases()
    """What the registry calls versions: aliases in MLflow, or tags retune.alias on a server without; tags of images."""
    experiment: str | None = Field(default=None, min_length=1, max_length=255)
    """Experiment of MLflow that the runs with files and numbers belong to; NAME where it is left out."""
    credentials: Credentials | None = None
    """Secret of the registry alone, with the keys of mlflow:// or oci://. Left out: that of execution.credentials."""
