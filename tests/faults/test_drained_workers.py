"""Workers are told to end in the middle of the traffic: over the gRPC wire door nobody notices but by a new connection."""

import signal

import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, RpcCaller, Served, eventually, route

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_workers_that_are_told_to_end_lose_no_grpc_call(tmp_path):
    model = files.binary(tmp_path / "quick.onnx")
    with Gateway(tmp_path / "gateway", workers=2, grpc_door="wire") as gateway:
        gateway.apply(route("phishing", ("champion", model, 1)))
        with Served(RpcCaller(gateway, "phishing"), 4) as rpc:
            for restarts, worker in enumerate(("worker-0", "worker-1", "worker-0"), 1):
                rpc.wait_for(50)
                gateway.kill(worker, signal.SIGTERM)
                rpc.wait_for(50)
                eventually(
                    lambda restarts=restarts: (
                        sum(
                            gateway.metric("runoff_process_restarts_total", process=name)
                            for name in ("worker-0", "worker-1")
                        )
                        == restarts
                    ),
                    30,
                )
            rpc.wait_for(50)
        assert rpc.failed == []
        assert len(rpc.answered) > 300
