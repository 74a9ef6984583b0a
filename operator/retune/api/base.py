"""What every API model shares: camelCase names, frozen values, descriptions from docstrings, CEL rules.

A CEL rule is written beside the field it guards and ends up in the generated CRD, so that the API server refuses a bad
object with a sentence. Patterns are checked in Python too, because a Job's request reaches no API server.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

Json = dict[str, Any]
_RULES = "x-kubernetes-validations"


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


def _closed(schema: Json) -> None:
    """Let a schema name its fields alone: the API server drops what no release that it knows has defined."""
    schema.pop("additionalProperties", None)


class StatusPart(ApiModel):
    """A part of a status that an operator moves, replaces or removes whole.

    Fields that only a newer release knows stay with it, wherever it is moved to, and go with it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_closed)


def rules(*pairs: tuple[str, str]) -> Json:
    """Return the part of a schema that holds CEL rules.

    Args:
        pairs: A CEL expression, and the sentence without a full stop that a user reads when it is false.
    """
    return {_RULES: [{"rule": rule, "message": message} for rule, message in pairs]}


@dataclass(frozen=True)
class Rule:
    """Marker for `Annotated[str, Rule(...)]`: a CEL rule on the value itself, which the rule calls `self`.

    What is wrong with one field alone is said at that field: the API server then looks at nothing else, and only where
    the field is given. A rule on the object around it costs as much as that object has fields, at every write.
    """

    rule: str
    """The CEL expression."""
    message: str
    """What a person reads when it is false; without a full stop at its end."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        """Return the JSON schema of the value with this rule after those that it has."""
        found = handler(schema)
        return found | {_RULES: found.get(_RULES, []) + rules((self.rule, self.message))[_RULES]}


def map_list(*keys: str) -> Json:
    """Return the part of a schema that makes server-side apply merge a list by these keys of its items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: Json = {"x-kubernetes-list-type": "atomic"}
"""Makes server-side apply replace a list as a whole."""
SET: Json = {"x-kubernetes-list-type": "set"}
"""Makes server-side apply merge a list as a set of distinct values."""

NOT_WRITTEN_OUT: Json = {"default": None}
"""Lets the operator alone know a field's default: objects that leave the field out stay smaller by it."""


def cel_list(words: Iterable[str]) -> str:
    """Return a CEL list of strings, such as `['mae', 'rmse']`."""
    quoted = ", ".join(f"'{word}'" for word in words)
    return f"[{quoted}]"


def one_of(words: Iterable[str]) -> str:
    """Return words as a sentence names alternatives, such as `Gather, Search or Judge`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True, kw_only=True)
class Text:
    """Marker for `Annotated[str, Text(...)]`: a bounded string whose whole text matches a pattern.

    The API server checks the pattern by a CEL rule, and this code checks it where no API server stands in front.
    """

    pattern: str
    """Regular expression that Python's `re` and CEL's RE2 read alike."""
    message: str
    """What a person reads when the text does not match; without a full stop at its end."""
    max_length: int
    """Most characters."""
    min_length: int = 1
    """Fewest characters."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic validates the string."""
        bounded = core_schema.str_schema(min_length=self.min_length, max_length=self.max_length)
        return core_schema.no_info_after_validator_function(self.checked, bounded)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        """Return the JSON schema with the CEL rule."""
        return handler(schema) | rules((_matches("self", self.pattern), self.message))

    def checked(self, text: str) -> str:
        """Return the text; raises ValueError with the message when it does not match."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.message)
        return text


class VersionName:
    """Marker for `Annotated[str, VersionName()]`: a version by its number or by its bundle's digest.

    People write a number without quotes, so the API takes an integer as well as a string; here it is always a string.
    """

    pattern = r"[1-9][0-9]{0,8}|sha256:[a-f0-9]{64}"
    message = "a version is named by its number, such as 2, or by its digest"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic validates the name."""
        return core_schema.no_info_plain_validator_function(self.checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        """Return the JSON schema with the CEL rule."""
        return {"x-kubernetes-int-or-string": True} | rules((_matches("string(self)", self.pattern), self.message))

    def checked(self, name: object) -> str:
        """Return the name as a string; raises ValueError with the message when it is none."""
        if isinstance(name, bool) or not re.fullmatch(self.pattern, str(name)):
            raise ValueError(self.message)
        return str(name)


def _matches(path: str, pattern: str) -> str:
    """Return the CEL expression that the whole text at `path` matches the pattern."""
    quoted = pattern.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}.matches('^({quoted})$')"


def if_decimal(path: str, rule: str) -> str:
    """Return a CEL rule over the decimal at `path` that holds for a malformed one: its own rule says it better."""
    return f"!{_matches(path, _DECIMAL)} || ({rule})"


def if_duration(path: str, rule: str) -> str:
    """Return a CEL rule over the duration at `path` that holds for a malformed one: its own rule says it better."""
    return f"!{_matches(path, _DURATION)} || ({rule})"


def between(low: str, high: str) -> str:
    """Return the CEL rule of a duration that it lies within these bounds."""
    return if_duration("self", f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')")


_DECIMAL = r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?"
_DURATION = r"([0-9]{1,5}(h|m|s|ms)){1,4}"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_CONTAINER = r"az://[a-z0-9][-a-z0-9]{1,61}[a-z0-9]"
_REMOTE = rf"((s3|gs|https)://[a-z0-9]([-a-z0-9._]{{0,251}}[a-z0-9])?(:[0-9]{{1,5}})?|{_CONTAINER})"
_SEGMENT = r"/[A-Za-z0-9_][A-Za-z0-9_.=:+-]*"
_BUCKET = (
    rf"((s3|gs)://[a-z0-9]([-a-z0-9._]{{0,220}}[a-z0-9])?|{_CONTAINER})(/[A-Za-z0-9_][A-Za-z0-9_.-]{{0,62}}){{0,6}}"
)
_MLFLOW = r"mlflow://([A-Za-z0-9_.+=-]|%20){1,256}(@[A-Za-z0-9_-]{1,255}|/[1-9][0-9]{0,8})"

Decimal = Annotated[
    str, Text(pattern=_DECIMAL, max_length=32, message='a decimal is a quoted string such as "0.01" or "20"')
]
Digest = Annotated[
    str,
    Text(
        pattern=r"sha256:[a-f0-9]{64}",
        max_length=71,
        message="a digest is sha256: followed by 64 lower-case hexadecimal digits",
    ),
]
Duration = Annotated[
    str,
    Text(
        pattern=_DURATION,
        max_length=24,
        message="a duration is written with units, such as 90s, 10m or 1h30m",
    ),
]
Uri = Annotated[
    str,
    Text(
        pattern=f"{_CLAIM}({_SEGMENT})*/?",
        max_length=1024,
        message="a URI is pvc://CLAIM or pvc://CLAIM/PATH; a path segment has letters, digits and _ . = : + - "
        "and does not start with a dot",
    ),
]
StoreUri = Annotated[
    str,
    Text(
        pattern=f"({_CLAIM}({_SEGMENT})*|{_BUCKET})/?",
        max_length=1024,
        message="an artifact store is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH; "
        "path segments have letters, digits and _ . -, no leading dot; a bucket takes 6 of 63 characters",
    ),
]
"""URI of a store. The path in a bucket is bounded so that the keys of all that lies below it fit their servers."""
_FILE_URI = (
    "a file's URI is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or https://HOST/PATH; "
    "each segment has letters, digits and _ . = : + - and no leading dot"
)
FileUri = Annotated[
    str,
    Text(
        pattern=f"({_CLAIM}|{_REMOTE})({_SEGMENT})+",
        max_length=1024,
        message=_FILE_URI,
    ),
]
MlflowUri = Annotated[
    str,
    Text(
        pattern=_MLFLOW,
        max_length=1024,
        message="a model in MLflow is mlflow://NAME@ALIAS or mlflow://NAME/VERSION; a name has letters, digits and "
        "_ . + = -, and %20 for a space",
    ),
]
"""URI of a model in MLflow: by an alias, or one version."""
ModelUri = Annotated[
    str,
    Text(
        pattern=f"({_CLAIM}|{_REMOTE})({_SEGMENT})+/?|{_MLFLOW}",
        max_length=1024,
        message="a file's URI is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or "
        "https://HOST/PATH, of letters, digits and _ . = : + -; a model in MLflow is mlflow://NAME@ALIAS or "
        "mlflow://NAME/VERSION",
    ),
]
"""URI of a file or folder, or of a model in MLflow."""
ObjectName = Annotated[
    str,
    Text(
        pattern=r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
        max_length=253,
        message="a name has lower-case letters, digits, '-' and '.', and starts and ends with a letter or digit",
    ),
]
DnsLabel = Annotated[
    str,
    Text(
        pattern=r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        max_length=63,
        message="a name has lower-case letters, digits and '-', and starts and ends with a letter or digit",
    ),
]
Cpu = Annotated[
    str,
    Text(
        pattern=r"[0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,7}m",
        max_length=12,
        message='a CPU quantity is written like "2", "0.5" or "500m"',
    ),
]
Memory = Annotated[
    str,
    Text(
        pattern=r"[0-9]{1,15}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?",
        max_length=24,
        message='a memory quantity is written like "512Mi" or "4Gi"',
    ),
]

Time = Annotated[
    datetime,
    PlainSerializer(lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), when_used="json"),
]
"""A moment with the resolution of the API: whole seconds, UTC."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(duration: str) -> float:
    """Return a duration such as `1h30m` in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))
