import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.grafana import make
from gateway.telemetry.catalogue import METRICS
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.responder import Answer, Responder
from gateway.telemetry.retained import read_pages

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"


def program(name: str) -> str:
    """From RUNOFF_TEST_PROMETHEUS (a folder) or the PATH. Debian and Ubuntu: the package `prometheus` has both programs."""
    found = shutil.which(name, path=os.environ.get("RUNOFF_TEST_PROMETHEUS")) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the PATH or in the folder that RUNOFF_TEST_PROMETHEUS names")
    return found


def test_promtool_finds_no_fault_in_the_rules():
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_no_fault_in_the_exposition(tmp_path):
    page = every_metric(tmp_path)
    body, _ = Exposition(lambda: read_pages(tmp_path)).render("")
    done = subprocess.run([program("promtool"), "check", "metrics"], input=body, capture_output=True, check=False)
    page.close()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
async def test_a_real_prometheus_scrapes_and_answers_every_expression(tmp_path):
    binary = program("prometheus")
    page = every_metric(tmp_path / "run")
    exposition = Exposition(lambda: read_pages(tmp_path / "run"))
    responder = Responder({"/metrics": lambda accept: Answer(200, *exposition.render(accept))})
    sock = socket.create_server(("127.0.0.1", 0))
    await responder.start(sock)
    config = {
        "global": {"scrape_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "runoff", "static_configs": [{"targets": [f"127.0.0.1:{sock.getsockname()[1]}"]}]}
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        binary,
        f"--config.file={tmp_path}/prometheus.yaml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address={address}",
        stderr=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v1") as client:
            await scraped(client)
            for expression in expressions():
                reply = (await client.get("/query", params={"query": expression})).json()
                assert reply["status"] == "success", f"{expression}: {reply}"
            rules = (await client.get("/rules")).json()["data"]["groups"][0]["rules"]
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
            for metric in METRICS.values():
                name = f"{metric.name}_bucket" if metric.kind == "histogram" else metric.name
                found = (await client.get("/query", params={"query": name})).json()["data"]["result"]
                assert found, name
    finally:
        process.terminate()
        await process.wait()
        await responder.stop()
        page.close()


def every_metric(folder: Path) -> CounterPage:
    """A page with one series of each metric there is."""
    page = CounterPage(folder, "worker-a")
    for metric in METRICS.values():
        labels = dict.fromkeys(metric.labels, "x")
        match metric.kind:
            case "counter":
                page.cells[page.counter(metric.name, labels)] += 1
            case "gauge":
                page.floats[page.gauge(metric.name, labels)] = 1.0
            case "histogram":
                page.histogram(metric.name, labels).observe(3)
    return page


def expressions() -> list[str]:
    shown = [
        target["expr"].replace("$__rate_interval", "1m").replace("$endpoint", ".*")
        for panel in json.loads(make.DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    alerts = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return shown + alerts


async def scraped(client: httpx.AsyncClient) -> None:
    """Waits until Prometheus has the first samples; its first scrape comes some five seconds after the start."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            reply = await client.get("/query", params={"query": "runoff_build_info"})
            if reply.status_code == 200 and reply.json()["data"]["result"]:
                return
        await asyncio.sleep(0.05)
    pytest.fail("Prometheus did not scrape in time")
