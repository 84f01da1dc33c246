"""A whole gateway with one worker under load: supervisor, worker, shadow and control, as `runoff serve` starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from loadtests.machine import free_port, pin, until
from runoff import Runoff

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Running:
    """`workers` are on core 0, `others` on core 1. `ready_s`: from the start to an empty worker that listens."""

    rest: str
    grpc: str
    metrics: str
    workers: list[int]
    others: list[int]
    ready_s: float
    client: Runoff


@contextlib.contextmanager
def gateway(
    state: Path, models: dict[str, Path], route: dict[str, object], *, is_pinned: bool = True, **settings: str
) -> Iterator[Running]:
    """Serves each model as an endpoint of its name, 90 to 10 between two variants. `settings`: RUNOFF_… variables, in lower case."""
    ports = {key: free_port() for key in ("rest", "grpc", "metrics", "admin")}
    environ = os.environ | {f"RUNOFF_{key.upper()}_PORT": str(port) for key, port in ports.items()}
    environ |= {"RUNOFF_STATE_DIR": str(state), "RUNOFF_WORKERS": "1"}
    environ |= {f"RUNOFF_{key.upper()}": value for key, value in settings.items()}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "serve"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: httpx.get(f"http://127.0.0.1:{ports['metrics']}/readyz").status_code == 200)
        ready_s = time.monotonic() - began
        client = Runoff(f"http://127.0.0.1:{ports['admin']}")
        until(lambda: client.routes() is not None)
        url = f"http://127.0.0.1:{ports['rest']}"
        for name, model in models.items():
            variants = [
                {"name": "champion", "model": str(model), "weight": 90},
                {"name": "challenger", "model": str(model), "weight": 10},
            ]
            client.apply({"endpoint": name, "variants": variants, **route}, reason="benchmark", wait_s=120)
            until(lambda name=name: httpx.get(f"{url}/v2/models/{name}").status_code == 200)
        workers, others = [], [process.pid]
        for child in psutil.Process(process.pid).children(recursive=True):
            (workers if "gateway.worker" in child.cmdline() else others).append(child.pid)
        for pid in (*workers, *others) if is_pinned else ():
            pin(pid, 0 if pid in workers else 1)
        yield Running(
            rest=url,
            grpc=f"127.0.0.1:{ports['grpc']}",
            metrics=f"http://127.0.0.1:{ports['metrics']}/metrics",
            workers=workers,
            others=others,
            ready_s=ready_s,
            client=client,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
