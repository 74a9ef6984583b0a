"""A registry in memory that answers as MLflow does, for `tracking_for_tests`, and refuses what a test wants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.unit.jobs.tracking_for_tests import Tracking

Answer = tuple[int, Any]
_ABSENT: Answer = (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"})
_NO_ALIAS: Answer = (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias not found."})
_EXISTS: Answer = (400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "already exists"})


@dataclass
class MemoryRegistry:
    """The models, versions, aliases, experiments and runs of a server."""

    tracking: Tracking
    has_aliases: bool = True
    root: str = "mlflow-artifacts:/1"
    """Below which the files of runs lie."""
    page: int = 1000
    """Versions in one answer."""
    refused: dict[str, Answer] = field(default_factory=dict)
    """Answers to requests by name, such as model-versions/create, in place of the right ones."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    logged: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Answer for the server."""
        self.tracking.writes = self.answer

    def answer(self, method: str, name: str, fields: Mapping[str, Any]) -> Answer | None:
        """Return status and document for a request."""
        if name in self.refused:
            return self.refused[name]
        if name == "registered-models/alias" and not self.has_aliases:
            return 404, b"<html>no such page</html>"
        act = getattr(self, f"_{method.lower()}_{name}".replace("-", "_").replace("/", "_"), None)
        found: Answer | None = act(fields) if act else None
        return found

    def tags(self, number: str) -> dict[str, str]:
        """Return the tags of a version."""
        return {tag["key"]: tag["value"] for tag in self._version(number)["tags"]}

    def tagged(self, alias: str) -> list[str]:
        """Return the versions with a tag that stands for an alias."""
        return [each["version"] for each in self.versions if self.tags(each["version"]).get("retune.alias") == alias]

    def _version(self, number: str) -> dict[str, Any]:
        return next(each for each in self.versions if each["version"] == number)

    def _get_registered_models_get(self, fields: Mapping[str, Any]) -> Answer:
        found = self.models.get(fields["name"])
        return (200, {"registered_model": found}) if found else _ABSENT

    def _post_registered_models_create(self, fields: Mapping[str, Any]) -> Answer:
        if fields["name"] in self.models:
            return _EXISTS
        self.models[fields["name"]] = dict(fields)
        return 200, {"registered_model": dict(fields)}

    def _get_registered_models_alias(self, fields: Mapping[str, Any]) -> Answer:
        number = self.aliases.get(fields["alias"])
        return (200, {"model_version": self._version(number)}) if number else _NO_ALIAS

    def _post_registered_models_alias(self, fields: Mapping[str, Any]) -> Answer:
        self.aliases[fields["alias"]] = fields["version"]
        return 200, {}

    def _delete_registered_models_alias(self, fields: Mapping[str, Any]) -> Answer:
        self.aliases.pop(fields["alias"], None)
        return 200, {}

    def _get_model_versions_search(self, fields: Mapping[str, Any]) -> Answer:
        start = int(fields.get("page_token", "0"))
        more = {"next_page_token": str(start + self.page)} if start + self.page < len(self.versions) else {}
        return 200, {"model_versions": self.versions[start : start + self.page], **more}

    def _post_model_versions_create(self, fields: Mapping[str, Any]) -> Answer:
        made = {**fields, "version": str(len(self.versions) + 1), "status": "READY"}
        self.versions.append(made)
        return 200, {"model_version": made}

    def _post_model_versions_set_tag(self, fields: Mapping[str, Any]) -> Answer:
        self._delete_model_versions_delete_tag(fields)
        self._version(fields["version"])["tags"].append({"key": fields["key"], "value": fields["value"]})
        return 200, {}

    def _delete_model_versions_delete_tag(self, fields: Mapping[str, Any]) -> Answer:
        version = self._version(fields["version"])
        version["tags"] = [tag for tag in version["tags"] if tag["key"] != fields["key"]]
        return 200, {}

    def _get_experiments_get_by_name(self, fields: Mapping[str, Any]) -> Answer:
        found = self.experiments.get(fields["experiment_name"])
        return (200, {"experiment": found}) if found else _ABSENT

    def _post_experiments_create(self, fields: Mapping[str, Any]) -> Answer:
        self.experiments[fields["name"]] = {"experiment_id": "1", "lifecycle_stage": "active"}
        return 200, {"experiment_id": "1"}

    def _post_runs_search(self, fields: Mapping[str, Any]) -> Answer:
        wanted = str(fields["filter"]).split("'")[1]
        found = [run for run in self.runs if any(tag["value"] == wanted for tag in run["tags"])]
        return 200, {"runs": found[:1]}

    def _post_runs_create(self, fields: Mapping[str, Any]) -> Answer:
        number = f"run{len(self.runs) + 1}"
        made = {**fields, "info": {"run_id": number, "artifact_uri": f"{self.root}/{number}/artifacts"}}
        self.runs.append(made)
        return 200, {"run": made}

    def _post_runs_log_batch(self, fields: Mapping[str, Any]) -> Answer:
        self.logged.append(fields)
        return 200, {}

    def _post_runs_update(self, fields: Mapping[str, Any]) -> Answer:
        self.logged.append(fields)
        return 200, {}
