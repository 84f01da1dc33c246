import msgspec
import pytest

from gateway.admin import views
from gateway.state.audit import AuditRow
from routing.split import BUCKETS
from tests.kit.control import ANN, ControlPlane, route

PAIR = {"champion": ("models:/phishing@champion", 3), "challenger": ("models:/phishing@challenger", 1)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


def shown(plane):
    return views.route(plane.store, plane.fleet, plane.store.current("phishing"))


async def test_shares_are_those_of_the_table_and_weights_those_of_the_document(plane):
    revision = await plane.put(route(**PAIR))
    status = shown(plane)["status"]
    assert status["weights"] == {"champion": 3, "challenger": 1}
    assert status["shares"] == plane.store.compiled(revision.number).shares
    assert sum(status["shares"].values()) == 1
    assert all((share * BUCKETS).is_integer() for share in status["shares"].values())
    assert status["shares"]["champion"] == pytest.approx(0.75, abs=0.01)


async def test_while_a_revision_is_on_its_way_the_view_has_its_document_and_what_is_served_still(plane):
    first = await plane.put(route())
    plane.fleet.hear({"event": "workers", "live": ["w"]})
    second = await plane.reconciler.finished(
        plane.changes.put("phishing", route(**PAIR), expected=first.number, author=ANN).number, 0.02
    )
    document = shown(plane)
    assert [variant["name"] for variant in document["variants"]] == ["champion", "challenger"]
    status = document["status"]
    assert (status["revision"], status["live"], status["state"]) == (second.number, first.number, second.state)
    assert status["versions"] == {"champion": "phishing/1"}


async def test_only_workers_that_live_count_as_active_or_as_a_problem(plane):
    plane.fleet.hear({"event": "workers", "live": []})
    revision = await plane.put(route())
    said = {"revision": revision.number, "endpoint": "phishing"}
    for worker, event in (("a", "active"), ("gone", "active"), ("late", "failed")):
        plane.fleet.hear({"event": event, "worker": worker, "problem": "no memory", **said})
    plane.fleet.hear({"event": "workers", "live": ["a", "b"]})
    status = shown(plane)["status"]
    assert (status["workers"], status["problem"]) == ({"live": 2, "active": 1}, None)
    plane.fleet.hear({"event": "failed", "worker": "b", "problem": "no memory", **said})
    assert shown(plane)["status"]["problem"] == "no memory"


async def test_an_alias_is_shown_beside_the_version_that_is_served(plane):
    document = route(champion=("models:/phishing@champion", 1), challenger=("models:/phishing/2", 1))
    await plane.put(document)
    plane.shelf.publish("phishing", "3", alias="champion")
    await plane.follower.step()
    following = shown(plane)["status"]["following"]
    assert following["aliases"] == {
        "champion": {"reference": "models:/phishing@champion", "serves": "1", "names": "3"}
    }, "an arm that names a version follows nothing"
    assert following["summary"]


async def test_history_tells_of_versions_that_moved_though_the_document_did_not(plane):
    first = await plane.put(route())
    plane.shelf.publish("phishing", "3", alias="champion")
    second = await plane.put(route(), expected=first.number)
    assert views.history(plane.store, first)["changes"][0] == "new endpoint"
    assert views.history(plane.store, second)["changes"] == ["champion: phishing/1 → phishing/3"]


async def test_history_says_who_and_why_as_the_audit_has_it(plane):
    first = await plane.put(route())
    plane.store._connection.execute("UPDATE revisions SET author = 'local:eve', reason = 'nothing to see'")
    forged = plane.store.revision(first.number)
    assert forged.author == "local:eve"
    entry = views.history(plane.store, forged)
    assert (entry["author"], entry["reason"]) == (ANN.principal, ANN.reason)


async def test_a_failed_revision_keeps_its_problems_as_a_list_and_as_a_line(plane):
    failed = await plane.put(route(champion=("models:/phishing/8", 1)))
    entry = views.revision(plane.store, failed)
    assert [problem.path for problem in entry["problems"]] == ["variants[0].model"]
    assert entry["problem"] == str(failed.problems[0])
    assert (entry["split_sha256"], entry["shares"]) == (None, None)


def test_an_audit_row_keeps_what_its_hash_is_made_of_and_has_a_time_for_people():
    row = AuditRow(
        sequence=1,
        at_unix_us=1_790_000_000_123_456,
        author="key:ann/1",
        action="put",
        endpoint=None,
        revision=None,
        reason="x",
        detail={},
        previous_hash="0" * 64,
        hash="ab",
    )
    seen = views.audit(row)
    assert seen.pop("at") == "2026-09-21T14:13:20.123Z"
    assert seen == msgspec.structs.asdict(row)
