"""What is bounded: the spool, and gateways on one state directory."""

import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, infer_call, route, rpc_request, run

pytestmark = pytest.mark.faults

ROW = [[1.0, 2.0, 3.0, 4.0]]
WIDE = 2000


@pytest.mark.slow
def test_a_full_spool_is_counted_where_the_route_is_open_and_refused_where_it_is_closed(tmp_path):
    """A lake that cannot be written (its address is a file) leaves everything in the spool, which is small here."""
    (tmp_path / "not-a-folder").write_text("")
    model = files.binary(tmp_path / "wide.onnx", *([0.01] * WIDE))
    with Gateway(tmp_path, spool_bytes_max=1 << 20, lake_uri=str(tmp_path / "not-a-folder" / "lake")) as gateway:
        gateway.apply(route("open", ("champion", model, 1)))
        gateway.apply(route("closed", ("champion", model, 1), record={"on_failure": "closed"}))
        row = [[0.5] * WIDE]

        def status(endpoint: str) -> int:
            return gateway.infer(endpoint, row).status_code

        assert status("closed") == 200
        eventually(
            lambda: status("open") == 200 and gateway.metric("runoff_records_total", outcome="failed") > 0, 60, 0
        )
        refused = gateway.infer("closed", row)
        assert refused.status_code == 503
        assert refused.headers["x-runoff-reason"] == "spool_closed"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "spool_closed"
        with gateway.channel() as channel, pytest.raises(Exception, match="UNAVAILABLE"):
            infer_call(channel)(rpc_request("closed", row), timeout=30)
        assert status("open") == 200, "an open route serves on and counts"
        labelled = gateway.http.post(
            "/v1/labels", json=[{"prediction_id": refused.json()["prediction_id"], "label": 1}] * 500
        )
        assert labelled.status_code == 503, "a label is durable or refused"
        assert gateway.metric("runoff_records_total", outcome="failed") >= 3
        assert gateway.is_ready


def test_a_second_gateway_on_one_state_directory_refuses_and_the_first_goes_on(tmp_path):
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", files.binary(tmp_path / "phishing.onnx"), 1)))
        second = run("serve", "--config", str(tmp_path / "runoff.toml"), cwd=tmp_path)
        assert second.returncode == 1
        assert f"another gateway (process {gateway.process.pid}) runs on {gateway.state}" in second.stderr
        assert "choose another state_dir" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        assert not second.stdout
        assert gateway.infer("phishing", ROW).status_code == 200


def test_a_port_that_is_taken_is_named(tmp_path):
    with Gateway(tmp_path / "one") as gateway:
        port = gateway.rest.rpartition(":")[2]
        done = run("serve", "--state-dir", str(tmp_path / "two"), "--rest-port", port, "--grpc-port", "0", "--metrics-port", "0", "--admin-port", "0")  # fmt: skip
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "rest_port" in done.stderr


def test_a_setting_that_is_unknown_is_named(tmp_path):
    (tmp_path / "runoff.toml").write_text("wrokers = 3\n")
    done = run("serve", cwd=tmp_path)
    assert done.returncode == 1
    assert "wrokers" in done.stderr
