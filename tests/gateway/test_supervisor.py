import os
import re
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

from tests.kit.plain import PLAIN
from tests.kit.processes import is_running
from tests.kit.supervised import CHILD, Gateway, eventually

pytestmark = pytest.mark.faults


@pytest.fixture
def start(tmp_path):
    started: list[Gateway] = []

    def begin(**options) -> Gateway:
        gateway = Gateway(tmp_path / "var", **options)
        started.append(gateway)
        if options.get("worker", CHILD) == CHILD:
            eventually(gateway.ready)
        return gateway

    yield begin
    for gateway in started:
        gateway.stop()


def test_it_prints_every_address_and_serves_through_its_workers(start):
    gateway = start(workers=2)
    assert set(gateway.addresses) == {"REST", "gRPC", "metrics", "admin"}
    assert gateway.ask().isdigit()
    assert httpx.get(gateway.addresses["metrics"] + "/livez", timeout=30, verify=PLAIN).status_code == 200
    body = httpx.get(gateway.addresses["metrics"] + "/readyz", timeout=30, verify=PLAIN).json()
    assert body["endpoints"] == {"e": True}
    assert gateway.stop() == 0


def test_whatever_its_processes_write_is_for_their_owner_alone(start):
    gateway = start()
    pids = [gateway.process.pid, int(gateway.ask())]
    told = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
    assert set(re.findall(r"Umask:\s*(\d+)", told)) <= {"0077"}  # not every kernel tells it
    eventually((gateway.state / "control.heard").exists)
    assert (gateway.state / "control.heard").stat().st_mode & 0o777 == 0o600


def test_a_second_gateway_on_the_same_state_is_refused_with_a_clear_line(start):
    gateway = start()
    second = Gateway(gateway.state)
    assert second.stop() == 1
    (line,) = second.events("text")
    assert "another gateway (process" in line["text"]


def test_a_killed_worker_is_restarted_and_a_queued_connection_is_answered_by_the_next(start):
    gateway = start()
    first = gateway.ask()
    os.kill(int(first), signal.SIGSTOP)  # it takes no more connections, so that the next one stays queued
    host, port = gateway.addresses["REST"].removeprefix("http://").split(":")
    queued = socket.create_connection((host, int(port)), timeout=20)
    queued.sendall(b"GET / HTTP/1.1\r\n\r\n")
    os.kill(int(first), signal.SIGKILL)
    reply = b"".join(iter(lambda: queued.recv(4096), b""))
    queued.close()
    assert reply.startswith(b"HTTP/1.1 200")
    assert reply.split(b"\r\n")[-1] != first.encode()
    assert gateway.metric("runoff_process_restarts_total", process="worker-0") == 1
    assert gateway.events("process_exited")[0]["end"] == "signal SIGKILL"


def test_no_counter_goes_back_over_a_kill_and_what_was_lost_is_published(start):
    gateway = start()
    for _ in range(3):
        gateway.ask()
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.ask("/die")
    eventually(gateway.ready)
    gateway.ask()
    assert gateway.metric("runoff_cancelled_total", endpoint="e") == 5
    assert gateway.metric("runoff_records_total", outcome="assigned") == 5
    assert gateway.metric("runoff_records_total", outcome="recorded") == 4
    assert gateway.metric("runoff_records_total", outcome="lost") == 1
    assert gateway.events("records_lost")[0]["count"] == 1


@pytest.mark.slow
def test_a_hung_worker_is_killed_and_replaced(start):
    gateway = start()
    before = gateway.ask()
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.ask("/hang")
    eventually(gateway.ready)
    assert gateway.ask() != before
    assert gateway.events("process_hung")[0]["child"] == "worker-0"


def test_probes_and_metrics_answer_while_control_and_shadow_are_dead(start):
    gateway = start(other="import sys; sys.exit(3)")
    eventually(lambda: len(gateway.events("process_exited")) > 3)
    assert gateway.ready()
    assert gateway.ask().isdigit()
    assert gateway.metric("runoff_process_up", process="control") == 0
    assert gateway.metric("runoff_process_up", process="worker-0") == 1


def test_control_hears_who_listens_what_they_say_and_after_its_restart_again(start):
    gateway = start()
    gateway.ask("/fail")
    failed = {"event": "failed", "endpoint": "e", "revision": 7, "problem": "no"}
    eventually(lambda: any(failed.items() <= line.items() for line in gateway.heard("control")))
    line = next(line for line in gateway.heard("control") if line["event"] == "failed")
    rosters = [line for line in gateway.heard("control") if line["event"] == "workers"]
    assert rosters[-1]["live"] == [line["worker"]]
    before = len(gateway.heard("control"))
    os.kill(gateway.events("process_started")[-1]["pid"], signal.SIGKILL)
    eventually(lambda: len(gateway.heard("control")) >= before + 2)
    assert {"workers", "failed"} <= {line["event"] for line in gateway.heard("control")[before:]}


def test_a_request_in_flight_is_answered_before_the_worker_leaves(start):
    gateway = start()
    replies: list[str] = []
    asking = threading.Thread(target=lambda: replies.append(gateway.ask("/slow")))
    asking.start()
    eventually(lambda: gateway.metric("runoff_records_total", outcome="assigned") == 1)
    assert gateway.stop() == 0
    asking.join()
    assert replies[0].isdigit()
    assert not gateway.events("process_killed")


@pytest.mark.slow
def test_who_does_not_drain_is_killed_within_the_grace(start):
    gateway = start(worker=CHILD.replace('"STUBBORN"', "False") + " ", grace_s=2.0)
    eventually(gateway.ready)
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: not gateway.ready())
    assert gateway.stop() == 0
    assert gateway.events("process_killed")[0]["child"] == "worker-0"


def test_a_second_interrupt_kills_at_once(start):
    gateway = start(worker=CHILD.replace('"STUBBORN"', "False") + " ", grace_s=60.0)
    eventually(gateway.ready)
    gateway.process.send_signal(signal.SIGINT)
    eventually(lambda: gateway.events("gateway_stopping"))
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(30) == 0


def test_children_die_with_a_supervisor_that_was_killed(start):
    gateway = start()
    pids = [line["pid"] for line in gateway.events("process_started")]
    assert len(pids) == 3
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not any(is_running(pid) for pid in pids))
    following = start()
    assert following.ask().isdigit()


def test_a_worker_that_never_comes_up_ends_the_gateway_with_status_1(start):
    gateway = start(worker="import sys; sys.exit(1)")
    assert gateway.process.wait(30) == 1
    assert gateway.events("gateway_gave_up")


def test_a_worker_whose_lines_make_no_sense_is_served_by_and_restarted_like_any_other(start):
    nonsense = 'pipe.send({"event": "beat", "loop_lag_s": "x"})\n    pipe.send({"event": "answer"})\n    '
    gateway = start(worker=CHILD.replace('pipe.send({"event": "ready"})', nonsense + 'pipe.send({"event": "ready"})'))
    eventually(gateway.ready)
    assert gateway.events("line_refused")
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.ask("/die")
    eventually(lambda: gateway.ask().isdigit())
    assert gateway.metric("runoff_process_restarts_total", process="worker-0") == 1


def test_whatever_is_wrong_with_the_end_of_a_life_the_next_one_follows(start):
    gateway = start(worker=CHILD.replace("signal.SIGKILL", "35"))  # a signal without a name
    eventually(gateway.ready)
    retained = gateway.state / "run" / "retained.json"
    retained.unlink(missing_ok=True)
    retained.mkdir()  # what dead workers counted cannot be kept
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.ask("/die")
    eventually(gateway.ready)
    assert gateway.ask().isdigit()
    assert gateway.events("process_exited")[0]["end"] == "signal 35"
    assert gateway.events("counters_not_folded")
    retained.rmdir()
    assert gateway.stop() == 0
