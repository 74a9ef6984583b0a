"""The rights that the chart gives are enough: a whole pass with nothing more than the operator's own account."""

from pathlib import Path

from tests.cluster.accounts import operator_account
from tests.faults.stage import prepare, run_until_over, snapshot
from tests.faults.stagehand import Stagehand
from tests.localcluster.api import Api

NAMESPACE = "least-rights"


def test_the_charts_rights_carry_a_whole_pass(kubeconfig: Path, api: Api, stagehand: Stagehand, tmp_path: Path) -> None:
    """From a new resource to a promoted champion: Lease, status, Jobs, run, the target's field, finalizer, events."""
    prepare(api, NAMESPACE)
    with operator_account(api, kubeconfig, tmp_path, release="least", home=NAMESPACE, watched=NAMESPACE) as own:
        run_until_over(api, own, NAMESPACE, kill_after=None)
    found = snapshot(api, NAMESPACE)
    assert found["runs"]["digits-r1"]["outcome"] == "Promoted"
    assert [variable["name"] for variable in found["env"]] == ["MODEL_URI"]
    assert len(stagehand.values_seen[NAMESPACE]) == 2
    events = api.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
    assert "Promoted" in {event["reason"] for event in events}
