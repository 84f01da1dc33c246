"""The split moves while requests run: nobody notices but by who answers."""

import statistics
import time

import httpx
import psutil
import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, RestCaller, RpcCaller, Served, infer_body, infer_call, route, rpc_request
from tests.kit.plain import PLAIN

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

CHANGES = 50


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    champion = files.binary(folder / "champion.onnx", 1, 1, 1, 1)
    challenger = files.binary(folder / "challenger.onnx", 1, 2, 1, 1)
    with Gateway(folder, workers=2) as running:
        running.apply(
            route(
                "phishing", ("champion", champion, 1), ("challenger", challenger, 0), unit={"header": "x-runoff-unit"}
            )
        )
        yield running


def one_connection_a_worker(gateway: Gateway) -> list[httpx.Client]:
    """Kept connections, one to each worker; whose they are is seen in the workers' own sockets."""
    owners: dict[int, httpx.Client] = {}
    for _ in range(100):
        client = httpx.Client(base_url=gateway.rest, timeout=20, verify=PLAIN)
        reply = client.get("/v2/health/live")
        port = reply.extensions["network_stream"].get_extra_info("client_addr")[1]
        for process in ("worker-0", "worker-1"):
            pid = gateway.pid(process)
            if any(one.raddr and one.raddr.port == port for one in psutil.Process(pid).net_connections("tcp")):
                owners.setdefault(pid, client)
        if client not in owners.values():
            client.close()
        if len(owners) == 2:
            return list(owners.values())
    raise AssertionError("one worker never got a connection")


def test_fifty_changes_of_weights_under_load_fail_no_request_and_reach_every_worker(gateway):
    probes = one_connection_a_worker(gateway)
    admin = httpx.Client(base_url=gateway.admin, timeout=20, verify=PLAIN)
    revision = int(admin.get("/admin/v1/routes/phishing").headers["etag"].strip('"'))
    took_s = []
    with Served(RestCaller(gateway, "phishing"), 2) as rest, Served(RpcCaller(gateway, "phishing"), 1) as rpc:
        rest.wait_for(20)
        rpc.wait_for(20)
        for change in range(CHANGES):
            wanted, other = ("challenger", "champion") if change % 2 == 0 else ("champion", "challenger")
            began = time.monotonic()
            reply = admin.patch(
                "/admin/v1/routes/phishing/weights",
                json={wanted: 1, other: 0},
                headers={"If-Match": f'"{revision}"'},
                params={"reason": f"change {change}", "wait": 10},
            )
            assert reply.status_code == 200, reply.text
            revision = reply.json()["revision"]
            for probe in probes:
                while True:
                    answer = probe.post("/v2/models/phishing/infer", json=infer_body([[1, 1, 1, 1]])).json()
                    if answer["parameters"]["revision"] == revision:
                        assert answer["parameters"]["variant"] == wanted
                        break
                    assert time.monotonic() - began < 30, "the change never arrived"
            took_s.append(time.monotonic() - began)
        rest.wait_for(20)
        rpc.wait_for(20)
    for client in (*probes, admin):
        client.close()
    assert not rest.failed + rpc.failed
    assert {entry["variant"] for entry in rest.answered} == {"champion", "challenger"}
    assert {entry["revision"] for entry in rest.answered + rpc.answered} >= {revision}
    print(
        f"\n{CHANGES} changes under load, admin write to the last worker's reply:"
        f" median {statistics.median(took_s) * 1000:.0f} ms, longest {max(took_s) * 1000:.0f} ms;"
        f" {len(rest.log) + len(rpc.log)} requests, none failed"
    )


def test_a_unit_keeps_its_variant_over_both_protocols_and_in_every_worker(gateway):
    gateway.client.split("phishing", champion=50, challenger=50, reason="half and half")
    drawn: dict[str, set[str]] = {}
    for _ in range(4):
        with httpx.Client(
            base_url=gateway.rest, timeout=20, verify=PLAIN
        ) as fresh:  # a new connection may be another worker's
            for unit in range(25):
                reply = fresh.post(
                    "/v2/models/phishing/infer",
                    json=infer_body([[1, 2, 3, 4]]),
                    headers={"x-runoff-unit": f"customer-{unit}"},
                )
                drawn.setdefault(f"customer-{unit}", set()).add(reply.headers["x-runoff-variant"])
    with gateway.channel() as channel:
        call = infer_call(channel)
        for unit, variants in drawn.items():
            reply = call(rpc_request("phishing", [[1, 2, 3, 4]]), metadata=[("x-runoff-unit", unit)], timeout=10)
            variants.add(reply.parameters["variant"].string_param)
    assert {len(variants) for variants in drawn.values()} == {1}
    assert set().union(*drawn.values()) == {"champion", "challenger"}
