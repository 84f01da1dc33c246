"""One window of load by a generator in C, wrk for REST and h2load for gRPC, and what it saw."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNITS = 5_000
"""Different units in the load, so that nothing profits from asking for the same one again."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """`count` requests at `rate` a second; latencies in microseconds; `data_bytes` of bodies that came back, where the generator counts them."""

    count: int
    rate: float
    p50_us: float
    p99_us: float
    data_bytes: int = 0


class LoadFailed(Exception):
    """A reply was not 2xx, or none came."""


def wrk(url: str, script: Path, *, connections: int, seconds: float, core: int | str = 1) -> Window:
    """`core` as taskset takes it. Raises LoadFailed."""
    command = [
        "taskset",
        "-c",
        str(core),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--latency",
        "-s",
        script,
        url,
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", told), re.search(r"(\d+) requests in", told)
    refused = re.search(r"Non-2xx or 3xx responses: \d+", told)
    if rate is None or count is None or count[1] == "0" or refused is not None:
        raise LoadFailed(f"wrk: {refused[0] if refused else 'no reply'} of {count[1] if count else 0}")
    return Window(
        count=int(count[1]), rate=float(rate[1]), p50_us=_latency_us(told, "50%"), p99_us=_latency_us(told, "99%")
    )


def h2load(url: str, body: Path, *, connections: int, seconds: int, streams: int = 1, core: int = 1) -> Window:
    """`body` holds one framed message. Raises LoadFailed. h2load sees statuses of HTTP only: compare `data_bytes` with what a success has."""
    log = body.with_suffix(".log")
    command = [
        *("taskset", "-c", str(core), "h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "-d", body),
        *(
            "-H",
            "te: trailers",
            "-H",
            "content-type: application/grpc",
            "-H",
            "x-user-id: user-1",
            f"--log-file={log}",
            url,
        ),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in [^,]+, ([0-9.]+) req/s", told)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", told)
    data = re.search(r"headers.*, [^,]+ \((\d+)\) data", told)
    if rate is None or counts is None or data is None or counts[3] != "0" or counts[1] == "0":
        raise LoadFailed(f"h2load: {counts[0] if counts else told}")
    took_us = np.loadtxt(log, usecols=2, ndmin=1)
    log.unlink()
    p50, p99 = np.percentile(took_us, [50, 99])
    return Window(count=int(counts[1]), rate=float(rate[1]), p50_us=p50, p99_us=p99, data_bytes=int(data[1]))


def post_script(place: Path, body: bytes, *, headers: Mapping[str, str] | None = None, units: int = UNITS) -> Path:
    """Wrk's load: one POST with a unit that differs from request to request. The body is written beside it."""
    content = place.with_suffix(".body")
    content.write_bytes(body)
    lines = headers or {"content-type": "application/json"}
    place.write_text(
        f'local body = io.open("{content}", "rb"):read("*a")\n'
        "local requests, at = {}, 0\n"
        "init = function()\n"
        f"  for i = 1, {units} do\n"
        f'    requests[i] = wrk.format("POST", nil, {{{", ".join(f"""["{name}"] = "{value}" """ for name, value in lines.items())}, ["x-user-id"] = "user-" .. i}}, body)\n'
        "  end\n"
        "end\n"
        f"request = function() at = at % {units} + 1; return requests[at] end\n"
    )
    return place


def _latency_us(told: str, quantile: str) -> float:
    """A quantile out of wrk's table."""
    found = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s)\b", told)
    assert found
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]
