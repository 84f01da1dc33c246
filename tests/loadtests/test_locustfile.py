import json
import subprocess
import sys

import pytest

from tests.kit import files
from tests.kit.gateway import ROOT, Gateway, environment, route

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def test_locust_finds_no_failure_over_rest_and_grpc_and_posts_labels(tmp_path):
    with Gateway(tmp_path) as gateway:
        champion, challenger = (files.binary(tmp_path / f"{n}.onnx", 1, n, 1, 1) for n in (1, 2))
        gateway.apply(
            route(
                "phishing", ("champion", champion, 3), ("challenger", challenger, 1), unit={"header": "x-runoff-unit"}
            )
        )
        program = [
            sys.executable,
            "-m",
            "locust",
            "-f",
            str(ROOT / "loadtests" / "locustfile.py"),
            "--headless",
            "--json",
        ]
        report = tmp_path / "report.html"
        target = ["--host", gateway.rest, "--grpc", gateway.rpc, "--scenario", "labels", "--html", str(report)]
        done = subprocess.run(
            [*program, *target, "-u", "6", "-r", "6", "-t", "4s", "--stop-timeout", "2"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told = {row["name"]: row for row in json.loads(done.stdout)}
        assert {"REST infer", "gRPC infer", "REST labels"} <= told.keys()
        assert {row["num_failures"] for row in told.values()} == {0}
        asked = sum(row["num_requests"] for name, row in told.items() if name.endswith(" infer"))
        gateway.stored("predictions", asked)
        assert b"REST labels" in report.read_bytes()
        gateway.stored("labels", 1)
        labelled = gateway.lake("SELECT count(*) FROM labels")[0][0]
        assert 0 < labelled <= asked
        drawn = dict(gateway.lake("SELECT assigned, count(*) FROM predictions GROUP BY 1"))
        assert drawn.keys() == {"champion", "challenger"}
        print(f"\nlocust: {asked} requests in 4 s, none failed, drawn {drawn}")
