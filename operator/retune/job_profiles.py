"""Profiles of nodes that the administrator offers to Jobs, such as nodes with a GPU, and that a resource may name.

A resource chooses among names and says no device itself, so nobody gets one that was not offered. No profile can take a
pod out of Pod Security `restricted`.
"""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from retune.api.base import ATOMIC, ObjectName
from retune.api.nodes import Toleration
from retune.job_template import Part, TemplateError, checked_labels, mapping_in, sentence_of

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DEVICE = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_OF_KUBERNETES = re.compile(r"([-a-z0-9.]+\.)?kubernetes\.io/.*")
"""Resources that are no devices of a plugin."""
_LIMIT = 16
Command = Literal["baseline", "gather", "search", "judge", "check"]


class Profile(Part):
    """Where Jobs run that name this profile, and which devices they get."""

    commands: tuple[Command, ...] = Field(default=("search",), min_length=1)
    """Jobs that it is for. Those that measure belong on it only where the model serves on such nodes."""
    devices: dict[str, int] = Field(default={}, max_length=8)
    """Extended resources by name, such as nvidia.com/gpu, and how many: for the container that trains, where a Job has
    one beside it, else for the Job's own."""
    node_selector: dict[str, str] = Field(default={}, max_length=_LIMIT)
    """Labels of its nodes, besides those that a resource names."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=_LIMIT, json_schema_extra=ATOMIC)
    """Taints of its nodes."""
    runtime_class_name: ObjectName | None = None
    """How its nodes run pods, in place of the template's."""
    priority_class_name: ObjectName | None = None
    """Priority of the pods, in place of the template's."""

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: dict[str, int]) -> dict[str, int]:
        for name, number in devices.items():
            if not _DEVICE.fullmatch(name) or _OF_KUBERNETES.fullmatch(name):
                raise ValueError(f"{name} is no device of a plugin: give a name such as nvidia.com/gpu")
            if number < 1:
                raise ValueError(f"{name} is {number}: give 1 or more")
        return devices

    @field_validator("node_selector")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        return checked_labels(labels)


def parse_profiles(text: str) -> Mapping[str, Profile]:
    """Return the profiles that a JSON document describes, by name; raises TemplateError."""
    profiles: dict[str, Profile] = {}
    for name, document in mapping_in(text).items():
        if not _NAME.fullmatch(name):
            raise TemplateError(f"{name!r} is no name of a profile: lower-case letters, digits and - in at most 63")
        try:
            profiles[name] = Profile.model_validate(document)
        except ValidationError as error:
            raise TemplateError(f"{name}: {sentence_of(error)}") from error
    return profiles
