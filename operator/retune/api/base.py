"""What every API model shares: camelCase names, frozen values, descriptions from docstrings, CEL rules.

A rule is written beside the field it guards and ends up in the generated CRD, so that the API server refuses
a bad object with a sentence; the same patterns are checked in Python where no API server stands in front.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

Json = dict[str, Any]


class ApiModel(BaseModel):
    """Base of all API models: unknown fields are ignored on reading, so that an older operator reads newer objects."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_dict(self) -> Json:
        """Return the JSON form with API names, leaving out what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*pairs: tuple[str, str]) -> Json:
    """Return the schema fragment for CEL rules, each a pair of expression and the sentence a user reads."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def map_list(*keys: str) -> Json:
    """Return the schema fragment for a list merged by key under server-side apply."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: Json = {"x-kubernetes-list-type": "atomic"}
SET: Json = {"x-kubernetes-list-type": "set"}


def _matching(pattern: str, message: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(message)
        return text

    return check


def text(*, pattern: str, message: str, max_length: int, min_length: int = 1) -> Any:
    """Return a bounded string type whose pattern is enforced with `message`, by CEL in the cluster and here."""
    extra: Any = rules((_matches("self", pattern), message))
    return Annotated[
        str,
        Field(min_length=min_length, max_length=max_length, json_schema_extra=extra),
        AfterValidator(_matching(pattern, message)),
    ]


def _matches(path: str, pattern: str) -> str:
    quoted = pattern.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}.matches('^({quoted})$')"


def if_decimal(path: str, rule: str) -> str:
    """Return a CEL rule over a decimal that leaves a malformed one to the field's own rule and its better sentence."""
    return f"!{_matches(path, _DECIMAL)} || ({rule})"


def if_duration(path: str, rule: str) -> str:
    """Return a CEL rule over a duration that leaves a malformed one to the field's own rule."""
    return f"!{_matches(path, _DURATION)} || ({rule})"


_DECIMAL = r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?"
_DURATION = r"([0-9]{1,5}(h|m|s|ms)){1,4}"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_REMOTE = r"(s3|gs|https)://[a-z0-9]([-a-z0-9._]{0,251}[a-z0-9])?(:[0-9]{1,5})?"
_SEGMENT = r"/[A-Za-z0-9_][A-Za-z0-9_.=:+-]*"

Decimal = text(pattern=_DECIMAL, max_length=32, message='a decimal is a quoted string such as "0.01" or "20"')
Digest = text(
    pattern=r"sha256:[a-f0-9]{64}",
    max_length=71,
    message="a digest is sha256: followed by 64 lower-case hexadecimal digits",
)
Duration = text(
    pattern=_DURATION,
    max_length=24,
    message="a duration is written with units, such as 90s, 10m or 1h30m",
)
Uri = text(
    pattern=f"{_CLAIM}({_SEGMENT})*/?",
    max_length=1024,
    message="a URI is pvc://CLAIM or pvc://CLAIM/PATH; a path segment has letters, digits and _ . = : + - "
    "and does not start with a dot",
)
FileUri = text(
    pattern=f"({_CLAIM}|{_REMOTE})({_SEGMENT})+",
    max_length=1024,
    message="a file's URI is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or https://HOST/PATH; a path segment "
    "has letters, digits and _ . = : + - and does not start with a dot",
)
ObjectName = text(
    pattern=r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
    max_length=253,
    message="a name has lower-case letters, digits, '-' and '.', and starts and ends with a letter or digit",
)
DnsLabel = text(
    pattern=r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    max_length=63,
    message="a name has lower-case letters, digits and '-', and starts and ends with a letter or digit",
)
Cpu = text(
    pattern=r"[0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,7}m",
    max_length=12,
    message='a CPU quantity is written like "2", "0.5" or "500m"',
)
Memory = text(
    pattern=r"[0-9]{1,15}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?",
    max_length=24,
    message='a memory quantity is written like "512Mi" or "4Gi"',
)

Time = Annotated[
    datetime,
    PlainSerializer(lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), when_used="json"),
]
"""A moment with the resolution of the API: whole seconds, UTC."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(duration: str) -> float:
    """Return a duration such as `1h30m` in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))
