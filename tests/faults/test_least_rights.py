"""The rights that the chart gives are enough: a whole pass with nothing more than the operator's own account."""

from pathlib import Path

from tests.cluster.accounts import operator_account
from tests.faults.stage import (
    MONITORING,
    PROMOTED_AT,
    REFRESH,
    WATCHED_AT,
    judged,
    prepare,
    promoted,
    run_until,
    snapshot,
    watched,
)
from tests.faults.stagehand import Stagehand
from tools.localcluster.api import Api

NAMESPACE, WATCHED = "least-rights", "least-rights-watched"


def test_the_charts_rights_carry_a_whole_pass(kubeconfig: Path, api: Api, stagehand: Stagehand, tmp_path: Path) -> None:
    """From a new resource to a promoted champion: Lease, status, Jobs, run, the target's field, finalizer, events."""
    prepare(api, NAMESPACE)
    with operator_account(api, kubeconfig, tmp_path, release="least", home=NAMESPACE, watched=NAMESPACE) as own:
        run_until(promoted, api, own, [NAMESPACE])
    found = snapshot(api, NAMESPACE)
    assert found["runs"]["digits-r1"]["outcome"] == "Promoted"
    assert [variable["name"] for variable in found["env"]] == ["MODEL_URI"]
    assert len(stagehand.values_seen[NAMESPACE]) == 2
    events = api.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
    assert "Promoted" in {event["reason"] for event in events}


def test_the_charts_rights_carry_the_watch_over_a_champion(
    kubeconfig: Path, api: Api, stagehand: Stagehand, tmp_path: Path
) -> None:
    """From a promoted champion to a run that a signal started: check, the pods' own numbers, gathering, events."""
    prepare(api, WATCHED, monitoring=MONITORING | {"performance": {}}, refresh=REFRESH)
    with operator_account(api, kubeconfig, tmp_path, release="watch", home=WATCHED, watched=WATCHED) as own:
        run_until(watched, api, own, [WATCHED], moment=PROMOTED_AT)
        run_until(judged, api, own, [WATCHED], moment=WATCHED_AT)
    found = snapshot(api, WATCHED)
    assert (WATCHED, "digits-r2-gather") in stagehand.jobs_seen
    assert {"digits-r2-gather", "digits-r2-search", "digits-r2-judge"} <= set(found["jobs"])
    assert found["runs"]["digits-r2"]["outcome"] == "NoGain"
    conditions = {each["type"]: each for each in found["status"]["conditions"]}
    assert conditions["MonitoringReliable"]["status"] == "True"
    assert conditions["QualityDegraded"]["status"] == "True"
    assert conditions["PerformanceDegraded"]["reason"] in {"Unreachable", "NoData", "Restarted"}
    events = api.get(f"/api/v1/namespaces/{WATCHED}/events")["items"]
    assert {"SaidBreach", "DataGathered"} <= {event["reason"] for event in events}
