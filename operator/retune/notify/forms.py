"""The two forms of a notice: a CloudEvent for programs, and a text for chat rooms.

The CloudEvent is in structured JSON, as version 1.0 of the specification has it (github.com/cloudevents/spec,
json-format.md). The text is what incoming webhooks of Slack take, and Mattermost, Rocket.Chat and others after it: in
their text `&`, `<` and `>` are escaped, so that a message can neither mention people nor hide where a link leads.
"""

import json
from datetime import UTC

from retune.api import GROUP, VERSION
from retune.notify.notice import Notice

_TYPE = "dev.retune.modeloptimization"
CLOUD_EVENTS, SLACK = "CloudEvents", "Slack"
CONTENT_TYPES = {CLOUD_EVENTS: "application/cloudevents+json; charset=utf-8", SLACK: "application/json; charset=utf-8"}
"""Content type of a body, by the name of its form."""


def body(notice: Notice, *, form: str, cluster: str | None) -> bytes:
    """Return what is posted.

    Args:
        notice: What has happened.
        form: A key of CONTENT_TYPES.
        cluster: What the administrator calls this cluster, or None.
    """
    document = _cloud_event(notice, cluster) if form == CLOUD_EVENTS else {"text": _text(notice, cluster)}
    return json.dumps(document, ensure_ascii=False).encode()


def _cloud_event(notice: Notice, cluster: str | None) -> dict[str, object]:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{notice.namespace}/modeloptimizations/{notice.name}"
    return {
        "specversion": "1.0",
        "id": notice.id,
        "source": f"//{cluster}{path}" if cluster else path,
        "type": f"{_TYPE}.{notice.reason}",
        "subject": f"{notice.namespace}/{notice.name}",
        "time": notice.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datacontenttype": "application/json",
        "data": {
            "cluster": cluster,
            "namespace": notice.namespace,
            "name": notice.name,
            "reason": notice.reason,
            "message": notice.message,
            "severity": "Warning" if notice.warning else "Normal",
        },
    }


def _text(notice: Notice, cluster: str | None) -> str:
    where = f"{notice.namespace}/{notice.name}" + (f" in {cluster}" if cluster else "")
    sign = ":warning: " if notice.warning else ""
    return f"{sign}*{_escaped(where)}* {_escaped(notice.reason)}: {_escaped(notice.message)}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
