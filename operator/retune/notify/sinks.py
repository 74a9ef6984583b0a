"""Where notices go: a file of the administrator, mounted from a Secret, because addresses of webhooks are secrets.

No message names an address, because errors are logged.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from retune.notify.notice import Notice

_LARGEST = 64 * 1024
_SHOWN = 3


class SinksError(ValueError):
    """The file cannot be used; the message says where it is wrong, and shows no values of it."""


def _is_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("give https://HOST/PATH, with credentials in headers")
    return url


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Sink(_Strict):
    """One receiver."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    """What logs and metrics call it."""
    url: Annotated[str, Field(max_length=2048), AfterValidator(_is_address)]
    form: Literal["CloudEvents", "Slack"] = "CloudEvents"
    headers: dict[str, str] = Field(default={}, max_length=16)
    """Such as Authorization."""
    reasons: tuple[str, ...] = ()
    """Reasons that it is told of; without any, all."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose resources it is told of; without any, all."""
    warnings: bool = Field(default=False, alias="warningsOnly")
    """Whether it is told of warnings alone."""

    def wants(self, notice: Notice) -> bool:
        """Return whether it is told of this."""
        return (
            (not self.reasons or notice.reason in self.reasons)
            and (not self.namespaces or notice.namespace in self.namespaces)
            and (notice.warning or not self.warnings)
        )


class Sinks(_Strict):
    """Every receiver."""

    cluster: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?$")] = None
    """What this cluster is called in notices."""
    sinks: tuple[Sink, ...] = Field(default=(), max_length=32)

    def named(self, name: str) -> Sink | None:
        """Return the receiver of this name, or None."""
        return next((sink for sink in self.sinks if sink.name == name), None)


def read_sinks(path: Path) -> Sinks:
    """Return the receivers that a YAML file names; an empty file names none.

    Raises:
        SinksError: It is no such file.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise SinksError(f"it has more than {_LARGEST} bytes")
        sinks = Sinks.model_validate(yaml.safe_load(text) or {})
    except OSError as error:
        raise SinksError(f"it cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise SinksError(f"it is no YAML{f': see line {mark.line + 1}' if mark else ''}") from error
    except ValidationError as error:
        raise SinksError(_in_words(error)) from error
    names = [sink.name for sink in sinks.sinks]
    if len(set(names)) < len(names):
        raise SinksError("two sinks have the same name")
    return sinks


def _in_words(error: ValidationError) -> str:
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()]
    return "; ".join(faults[:_SHOWN])
