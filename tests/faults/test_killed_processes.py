"""Processes die in the middle of the traffic, and what was answered is in the lake all the same, once."""

import signal
import threading
import time

import httpx
import pytest

from tests.kit import files
from tests.kit.gateway import (
    Gateway,
    RestCaller,
    RpcCaller,
    Served,
    eventually,
    infer_body,
    infer_call,
    route,
    rpc_request,
)
from tests.kit.plain import PLAIN
from tests.kit.processes import is_running

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GRACE_S = 12.0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "quick": files.binary(folder / "quick.onnx"),
        "other": files.binary(folder / "other.onnx", 1, 2, 1, 1),
        "slow": files.slow(folder / "slow.onnx", 300_000),
    }


def stored_ids(gateway: Gateway, endpoint: str) -> list[str]:
    return [found[0] for found in gateway.lake("SELECT prediction_id FROM predictions WHERE endpoint = ?", endpoint)]


def assert_every_answer_is_stored_once(gateway: Gateway, endpoint: str, *logs: Served) -> None:
    """The callers' own log against the lake: nobody's answer lacks its record, and no record is there twice."""
    answered = [entry["prediction_id"] for log in logs for entry in log.answered]
    stored = stored_ids(gateway, endpoint)
    assert len(stored) == len(set(stored)), "a record is in the lake twice"
    assert not set(answered) - set(stored), "an answered request has no record"
    assert len(answered) == len(set(answered))


def test_kill_9_of_a_worker_under_load_loses_no_answered_record_and_doubles_none(tmp_path, models):
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", models["quick"], 1)))
        silent_s = []
        with Served(RestCaller(gateway, "phishing"), 2) as rest, Served(RpcCaller(gateway, "phishing"), 1) as rpc:
            for _ in range(2):
                rest.wait_for(100)
                rpc.wait_for(20)
                died_at = time.monotonic()
                gateway.kill("worker-0")
                eventually(lambda died_at=died_at: any(one["sent_at"] > died_at for one in rest.answered), 30)
                silent_s.append(min(one["done_at"] for one in rest.answered if one["sent_at"] > died_at) - died_at)
            rest.wait_for(50)
            rpc.wait_for(5)
        assert gateway.metric("runoff_process_restarts_total", process="worker-0") == 2
        assert gateway.stop() == 0
        assert_every_answer_is_stored_once(gateway, "phishing", rest, rpc)
        print(
            f"\nkill -9 of the only worker, twice: answered again after {', '.join(f'{s:.2f} s' for s in silent_s)};"
            f" {len(rest.answered) + len(rpc.answered)} answered, {len(stored_ids(gateway, 'phishing'))} stored"
        )


def test_kill_9_of_control_and_shadow_stops_no_answer_and_the_lake_catches_up_exactly(tmp_path, models):
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", models["quick"], 1), mirrors={"candidate": models["other"]}))
        with Served(RestCaller(gateway, "phishing"), 2) as rest, Served(RpcCaller(gateway, "phishing"), 1) as rpc:
            rest.wait_for(100)
            killed = [gateway.kill("control"), gateway.kill("shadow")]
            rest.wait_for(100)
            rpc.wait_for(20)
            eventually(lambda: gateway.pid("control") not in killed and gateway.pid("shadow") not in killed)
            eventually(lambda: gateway.is_managed, 30)
            rest.wait_for(100)
            killed = [gateway.kill("shadow"), gateway.kill("control")]
            rest.wait_for(100)
            eventually(lambda: gateway.pid("control") not in killed and gateway.pid("shadow") not in killed)
        assert not rest.failed + rpc.failed
        answered = {entry["prediction_id"] for log in (rest, rpc) for entry in log.answered}
        eventually(lambda: gateway.is_managed, 30)
        gateway.stored("predictions", len(answered))
        gateway.stored("shadows", len(answered))
        assert gateway.stop() == 0
        assert_every_answer_is_stored_once(gateway, "phishing", rest, rpc)
        pairs = [found[0] for found in gateway.lake("SELECT prediction_id FROM shadows")]
        assert sorted(pairs) == sorted(answered), "each answered request has its pair, once"


def test_sigterm_says_not_ready_first_finishes_what_is_in_flight_and_loses_nothing(tmp_path, models):
    with Gateway(tmp_path, workers=2, grace_s=GRACE_S) as gateway:
        gateway.apply(route("slow", ("champion", models["slow"], 1), limits={"timeout_s": 10, "queue_wait_max_s": 10}))
        replies: list[tuple[float, httpx.Response]] = []
        seen: list[tuple[float, int]] = []
        stopped = threading.Event()

        def ask(number: int) -> None:
            with httpx.Client(base_url=gateway.rest, timeout=30, verify=PLAIN) as own:
                reply = own.post("/v2/models/slow/infer", json=infer_body([[number, 1, 1, 1]]))
                replies.append((time.monotonic(), reply))

        def watch() -> None:
            with httpx.Client(timeout=30, verify=PLAIN) as own:
                while not stopped.is_set():
                    try:
                        status = own.get(gateway.metrics_url.replace("/metrics", "/readyz")).status_code
                    except httpx.TransportError:
                        return
                    seen.append((time.monotonic(), status))
                    stopped.wait(0.01)

        pids = [gateway.pid(name) for name in ("worker-0", "worker-1", "control", "shadow")]
        with gateway.channel() as channel:
            in_flight = infer_call(channel).future(rpc_request("slow", [[1, 1, 1, 1]]), timeout=30)
            threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
            watcher = threading.Thread(target=watch)
            for thread in (*threads, watcher):
                thread.start()
            eventually(lambda: seen, 30)
            eventually(lambda: len(replies) >= 1, 30)
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            by_rpc = in_flight.result()
            for thread in threads:
                thread.join(30)
        status = gateway.stop()
        took_s = time.monotonic() - began
        stopped.set()
        watcher.join(30)
        assert status == 0
        assert took_s < GRACE_S + 20
        assert not [pid for pid in pids if is_running(pid)]
        assert [reply.status_code for _, reply in replies] == [200] * 6
        unready_at = min(at for at, code in seen if code == 503)
        assert unready_at < max(at for at, _ in replies), "it was still finishing requests when it said not ready"
        answered = {reply.headers["x-prediction-id"] for _, reply in replies}
        answered.add(by_rpc.parameters["prediction_id"].string_param)
        stored = stored_ids(gateway, "slow")
        assert len(stored) == len(set(stored))
        assert answered <= set(stored)


def test_sigterm_under_load_breaks_no_request_that_was_taken(tmp_path, models):
    """Whoever comes after the doors closed is refused a connection; nobody is cut off in the middle of an answer."""
    with Gateway(tmp_path, workers=2) as gateway:
        gateway.apply(route("phishing", ("champion", models["quick"], 1)))
        with Served(RestCaller(gateway, "phishing"), 3) as rest:
            rest.wait_for(300)
            status = gateway.stop()
        assert status == 0
        broken = [one["error"] for one in rest.failed if "ConnectError" not in one["error"]]
        assert not broken, broken[:5]
        assert_every_answer_is_stored_once(gateway, "phishing", rest)


def test_after_kill_9_of_everything_the_next_start_serves_and_stores_what_was_answered(tmp_path, models):
    gateway = Gateway(tmp_path).start()
    gateway.apply(route("phishing", ("champion", models["quick"], 1)))
    with Served(RestCaller(gateway, "phishing"), 2) as rest:
        rest.wait_for(200)
        children = [gateway.pid(name) for name in ("worker-0", "control", "shadow")]
        gateway.stop(signal.SIGKILL)
        eventually(lambda: not [pid for pid in children if is_running(pid)])  # who lost its supervisor leaves by itself
    with gateway:
        assert gateway.infer("phishing", [[1, 2, 3, 4]]).status_code == 200
        gateway.stored("predictions", len(rest.answered) + 1)
        assert_every_answer_is_stored_once(gateway, "phishing", rest)
