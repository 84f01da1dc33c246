"""Changing what production answers: one of many writers wins, a bad change leaves everything as it was, a good one hurts nobody."""

import json
import statistics
import threading
import time

import httpx
import pytest

from tests.kit.gateway import Gateway, RestCaller, RpcCaller, Served, infer_body, route, row
from tests.kit.plain import PLAIN
from tests.kit.registry import NAME

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(400)]

SWAPS = 50
STORED = [infer_body(row(caller, number)) for caller in range(10) for number in range(20)]
"""200 requests, asked before, during and after a change that fails."""


def document(version, **more):
    return route(NAME, ("champion", f"models:/{NAME}/{version}", 1), unit={"header": "x-runoff-unit"}, **more)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, registry):
    with Gateway(tmp_path_factory.mktemp("transactions"), workers=2, registry_uri=registry.uri) as running:
        running.apply(document(1))
        yield running


def answers(gateway):
    """What applications get for the stored requests, but for the ids that are new each time."""
    with httpx.Client(base_url=gateway.rest, timeout=20, verify=PLAIN) as client:
        replies = [client.post(f"/v2/models/{NAME}/infer", json=body) for body in STORED]
    assert {reply.status_code for reply in replies} == {200}
    return [
        json.dumps({**(found := reply.json()), "parameters": {**found["parameters"], "prediction_id": ""}})
        for reply in replies
    ]


def test_of_ten_writers_at_once_exactly_one_wins(gateway):
    with httpx.Client(base_url=gateway.admin, timeout=60, verify=PLAIN) as admin:
        tag = admin.get(f"/admin/v1/routes/{NAME}").headers["etag"]
    start, statuses = threading.Barrier(10), []

    def write(number):
        with httpx.Client(base_url=gateway.admin, timeout=60, verify=PLAIN) as admin:
            admin.get("/admin/v1/routes")  # connected before the start
            start.wait()
            reply = admin.put(
                f"/admin/v1/routes/{NAME}",
                params={"reason": f"writer {number}", "wait": 60},
                json=document(1, explain=bool(number % 2), salt=f"writer-{number}"),
                headers={"If-Match": tag},
            )
            statuses.append((reply.status_code, number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in statuses) == [200] + [412] * 9
    (winner,) = [number for status, number in statuses if status == 200]
    assert gateway.client.route(NAME)["salt"] == f"writer-{winner}"
    assert gateway.client.history(NAME)[0]["reason"] == f"writer {winner}"
    assert gateway.client.audit()  # the chain holds
    with httpx.Client(base_url=gateway.admin, timeout=30, verify=PLAIN) as admin:
        assert admin.get("/admin/v1/audit").json()["intact"]


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ({"colour": "red"}, 422),
        ({"variants": [{"name": "champion", "model": f"models:/{NAME}/1", "weight": -1}]}, 422),
        ({"variants": []}, 422),
        ({"features": {"service": "x"}}, 409),  # no feature store is set
        ({"variants": [{"name": "champion", "model": f"models:/{NAME}/99", "weight": 1}]}, 409),  # no such version
        ({"variants": [{"name": "champion", "model": f"models:/{NAME}/5", "weight": 1}]}, 409),  # other inputs
        ({"variants": [{"name": "champion", "model": "models:/nobody@champion", "weight": 1}]}, 409),
        ({"rules": [{"name": "r", "when": {"input": {"age": 3}}, "variant": "champion"}]}, 409),  # no such input
    ],
)
def test_a_bad_change_leaves_route_and_answers_byte_for_byte_as_they_were(gateway, bad, status):
    with httpx.Client(base_url=gateway.admin, timeout=100, verify=PLAIN) as admin:
        path = f"/admin/v1/routes/{NAME}"
        seen = admin.get(path)
        before, live = answers(gateway), seen.json()["status"]["live"]
        during: list[list[str]] = []
        asking = threading.Thread(target=lambda: during.append(answers(gateway)))
        asking.start()
        changed = {key: value for key, value in seen.json().items() if key != "status"} | bad
        reply = admin.put(
            path, params={"reason": "bad", "wait": 60}, json=changed, headers={"If-Match": seen.headers["etag"]}
        )
        asking.join()
        assert reply.status_code == status, reply.text
        assert all(problem["path"] and problem["code"] for problem in reply.json()["problems"])
        after = admin.get(path)
    assert during == [before]
    assert answers(gateway) == before
    assert after.headers["etag"] == seen.headers["etag"]
    assert after.json()["status"]["live"] == live
    documents = [{key: value for key, value in one.json().items() if key != "status"} for one in (seen, after)]
    assert json.dumps(documents[0]) == json.dumps(documents[1])


def test_fifty_swaps_under_load_fail_nobody_and_no_version_answers_out_of_turn(gateway):
    """Three versions in turn: each swap loads what it brings, since only one version before the live one is kept warm."""
    admin = httpx.Client(base_url=gateway.admin, timeout=100, verify=PLAIN)
    path = f"/admin/v1/routes/{NAME}"
    live: list[tuple[float, int, str]] = []
    took_s = []
    with Served(RestCaller(gateway, NAME), 2) as rest, Served(RpcCaller(gateway, NAME), 1) as rpc:
        for swap in range(SWAPS):
            version = 1 + swap % 3
            tag = admin.get(path).headers["etag"]
            began = time.monotonic()
            reply = admin.put(
                path,
                params={"reason": f"swap {swap}", "wait": 60},
                json=document(version, salt="swaps"),
                headers={"If-Match": tag},
            )
            assert reply.status_code == 200, reply.text
            live.append((time.monotonic(), reply.json()["revision"], str(version)))
            took_s.append(time.monotonic() - began)
            rest.wait_for(2)
        rest.wait_for(20)
        rpc.wait_for(20)
    admin.close()
    assert not rest.failed + rpc.failed
    versions = {revision: version for _, revision, version in live}
    answered = [entry for entry in rest.answered if entry["revision"] in versions]
    assert all(entry["version"] == versions[entry["revision"]] for entry in answered)
    assert {entry["version"] for entry in answered} == {"1", "2", "3"}
    late = [
        entry
        for entry in rest.answered + rpc.answered
        for at, revision, _ in live
        if entry["sent_at"] > at and entry["revision"] < revision
    ]
    assert not late, late[:3]  # once a change was confirmed, nobody is answered by what was before it
    print(
        f"\n{SWAPS} swaps of version under load: median {statistics.median(took_s) * 1000:.0f} ms,"
        f" longest {max(took_s) * 1000:.0f} ms from write to every worker;"
        f" {len(rest.log) + len(rpc.log)} requests, none failed"
    )
