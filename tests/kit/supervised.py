"""A real supervisor in a process of its own, with real or tiny children, as `runoff serve` would start it."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.plain import PLAIN

ROOT = Path(__file__).parents[2]

SUPERVISOR = """
import os, sys
from gateway.settings_sources import load
from gateway.supervisor import Commands, serve
state, workers, grace, worker, other = sys.argv[1:]
settings = load({"state_dir": state, "workers": int(workers), "rest_port": 0, "grpc_port": 0, "metrics_port": 0,
                 "admin_port": 0, "grace_s": float(grace)}, os.environ)
python = sys.executable, "-c"
real = Commands()
commands = Commands((*python, worker) if worker else real.worker, (*python, other), (*python, other))
sys.exit(serve(settings, commands=commands, say=lambda line: print(line, flush=True)))
"""

CHILD = """
import asyncio, json, os, signal, socket, sys, time
from pathlib import Path
from gateway.processes.birth import Birth, adopt
from gateway.telemetry.counters import CounterPage
birth = Birth.of(os.environ)
state = Path(birth.settings.state_dir)
page = CounterPage(state / "run", birth.writer)

async def main():
    pipe = birth.pipe()
    done = asyncio.Event()
    served = page.counter("runoff_cancelled_total", {"endpoint": "e"})
    records = {name: page.counter("runoff_records_total", {"outcome": name}) for name in ("assigned", "recorded")}

    async def serve(reader, writer):
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        path = head.split()[1]
        page.cells[served] += 1
        page.cells[records["assigned"]] += 1
        if path == b"/die":
            os.kill(os.getpid(), signal.SIGKILL)
        if path == b"/hang":
            time.sleep(3600)
        if path == b"/slow":
            await asyncio.sleep(0.5)
        if path == b"/fail":
            pipe.send({"event": "failed", "endpoint": "e", "revision": 7, "problem": "no"})
        page.cells[records["recorded"]] += 1
        body = str(os.getpid()).encode()
        writer.write(b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async def beat():
        while True:
            pipe.send({"event": "beat", "loop_lag_s": 0.001, "endpoints": {"e": True}})
            await asyncio.sleep(0.2)

    async def hear():
        async for line in pipe:
            with (state / f"{birth.process}.heard").open("a") as file:
                file.write(json.dumps(line) + "\\n")
            if line.get("command") == "drain" and "STUBBORN":
                done.set()
    beating = asyncio.create_task(beat())
    hearing = asyncio.create_task(hear())
    server = None
    if birth.rest_fd is not None:
        server = await asyncio.start_server(serve, sock=adopt(birth.rest_fd))
    pipe.send({"event": "beat", "loop_lag_s": 0.001, "endpoints": {"e": True}})
    pipe.send({"event": "ready"})
    await done.wait()
    if server:
        server.close()
        pending = [task for task in asyncio.all_tasks() if "serve" in repr(task.get_coro())]
        await asyncio.gather(*pending, return_exceptions=True)
asyncio.run(main())
"""


class Gateway:
    """A running supervisor. `worker`, `other` (shadow and control): programs to run in their places; worker empty: the real one."""

    def __init__(self, state: Path, workers: int = 1, grace_s: float = 5.0, worker: str = CHILD, other: str = CHILD):
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(state), str(workers), str(grace_s), worker, other],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.errors: list[dict] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        lines = [self.process.stdout.readline().split() for _ in range(4)]
        self.addresses = {name: address.removesuffix("/metrics") for name, address in filter(None, lines)}

    def _read(self):
        for line in self.process.stderr:
            self.errors.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})

    def events(self, name: str) -> list[dict]:
        return [line for line in self.errors if line["event"] == name]

    def heard(self, process: str) -> list[dict]:
        try:
            return [json.loads(line) for line in (self.state / f"{process}.heard").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def ready(self) -> bool:
        return httpx.get(self.addresses["metrics"] + "/readyz", timeout=30, verify=PLAIN).status_code == 200

    def ask(self, path: str = "/", timeout: float = 20) -> str:
        return httpx.get(self.addresses["REST"] + path, timeout=timeout, verify=PLAIN).text

    def metric(self, name: str, **labels: str) -> float | None:
        text = httpx.get(self.addresses["metrics"] + "/metrics", timeout=30, verify=PLAIN).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return next((s.value for s in samples if s.name == name and labels.items() <= s.labels.items()), None)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reading.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def eventually(claim: Callable[[], object], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(0.02)
