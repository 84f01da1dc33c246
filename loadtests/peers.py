"""Our doors against the model servers that pip can install: the same ONNX model behind each, side by side in one run.

    python -m loadtests.peers [--only kserve --only mlflow] [--windows 3] [--seconds 2] [--environments FOLDER] [--prepare]

Each peer lives in an environment of its own, made by uv from the versions in `loadtests/peers/<name>.txt` when it is first wanted
(1 to 2 GB in all, in `--environments`, else $RUNOFF_PEERS, else ~/.cache/runoff/peers), and is started as its documentation says for
production: `loadtests/peers/<name>.py`. Servers stand on core 0, the generator (wrk, h2load: one thread) on core 1. Every answer is compared
with ONNX Runtime before any load. A window of a peer and one of ours alternate, and what counts is the median of their ratios. Ours is a
whole gateway with everything on. A peer that does not start is reported with its reason. Results: `loadtests/results/peers.md`.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import numpy as np
import onnxruntime
import psutil

from gateway.rpc import open_inference_pb2 as pb
from loadtests.loaded_models import gbm, mlp
from loadtests.machine import cpu_s, free_port, machine, memory_mb
from loadtests.whole_gateway import gateway
from loadtests.windows import LoadFailed, Window, h2load, post_script, wrk

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
START_S: Final = 90.0
ROWS_CHECKED: Final = 5
MARK: Final = "RUNOFF_PEER_RUN"
"""A variable in the environment of a peer's processes: some leave the family of the one that we started."""
BATCH_ROWS: Final = 32
OURS: Final = "runoff"

Reader = Callable[[Any], np.ndarray]


class PeerFailed(Exception):
    """It did not install, start, or answer as ONNX Runtime does."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a peer is asked over REST for one row, and where the scores stand in its answer."""

    path: str
    ask: Callable[[str, list[float]], dict[str, Any]]
    read: Reader


def _v2_tensor(name: str, row: list[float]) -> dict[str, Any]:
    del name
    return {"inputs": [{"name": "X", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}


def _v2_scores(reply: Any) -> np.ndarray:
    return np.ravel(next(out["data"] for out in reply["outputs"] if out["datatype"] == "FP32"))


FORMS: Final = {
    "v2": Form(path="/v2/models/{name}/infer", ask=_v2_tensor, read=_v2_scores),
    "row": Form(path="/predict", ask=lambda _, row: {"input": row}, read=lambda reply: np.ravel(reply["output"])),
    "ray": Form(path="/", ask=lambda _, row: {"input": row}, read=lambda reply: np.ravel(reply["output"])),
    "bento": Form(path="/predict", ask=lambda _, row: {"input": [row]}, read=np.ravel),
    "mlflow": Form(
        path="/invocations",
        ask=lambda _, row: {"inputs": [row]},
        read=lambda reply: np.ravel(list(reply["predictions"].values())[-1]),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`pythons` are tried in turn; none: the one that runs this."""

    name: str
    title: str
    form: str
    has_grpc: bool = False
    pythons: tuple[str, ...] = ()


PEERS: Final = (
    Peer(name="mlserver", title="MLServer, pool off", form="v2", has_grpc=True),
    Peer(name="kserve", title="KServe", form="v2", has_grpc=True),
    # its bundled Python stub does not work under every Python; with Debian's 3.11 it does
    Peer(name="pytriton", title="PyTriton", form="v2", has_grpc=True, pythons=("/usr/bin/python3.11",)),
    Peer(name="litserve", title="LitServe", form="row"),
    Peer(name="mlflow", title="mlflow models serve", form="mlflow"),
    Peer(name="bentoml", title="BentoML", form="bento"),
    Peer(name="ray_serve", title="Ray Serve", form="ray"),
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`batch_rows` is what peers may batch by, 0: not at all; `loads` are protocol and connections."""

    name: str
    title: str
    make: Callable[[Path], tuple[Path, np.ndarray]]
    batch_rows: int
    loads: tuple[tuple[str, int], ...]


SCENARIOS: Final = (
    Scenario(name="gbm", title="gbm", make=gbm, batch_rows=0, loads=(("REST", 32), ("REST", 1), ("gRPC", 32))),
    Scenario(name="mlp", title="MLP of 8 MB", make=mlp, batch_rows=BATCH_ROWS, loads=(("REST", 32), ("gRPC", 32))),
)


@dataclass
class Measured:
    """Windows of one server under one load, and what it cost beside: processor time of the server, microseconds a request."""

    windows: list[Window] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    others_us: list[float] = field(default_factory=list)

    def median(self, what: str) -> float:
        return statistics.median(getattr(window, what) for window in self.windows)


@dataclass
class Row:
    """A peer, or ours, in one scenario."""

    title: str
    ready_s: float = 0.0
    memory_mb: float = 0.0
    by_load: dict[tuple[str, int], tuple[Measured, float]] = field(default_factory=dict)
    """By load: the windows, and how many times as many ours answered beside them."""
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Rows that are asked about, the scores that ONNX Runtime gives them, and a folder for the generators' files."""

    rows: np.ndarray
    wanted: np.ndarray
    work: Path


class Server:
    """A server that answers. `pids` are the processes whose time counts as its own; `others` help beside it, on the generator's core."""

    def __init__(
        self,
        rest: str,
        grpc_address: str,
        form: Form,
        name: str,
        pids: Callable[[], list[int]],
        others: Sequence[int] = (),
    ) -> None:
        self.url = rest + form.path.format(name=name)
        self.grpc = grpc_address
        self.form = form
        self.name = name
        self.pids = pids
        self.others = others
        self.reply_bytes = 0

    def check(self, asked: Asked) -> None:
        """Raises PeerFailed where an answer over REST is not ONNX Runtime's."""
        for row, scores in zip(asked.rows, asked.wanted, strict=True):
            reply = httpx.post(self.url, json=self.form.ask(self.name, _numbers(row)), timeout=10)
            if reply.status_code != 200:
                raise PeerFailed(f"{reply.status_code} {reply.text[:200]}")
            _compare(self.form.read(reply.json()), scores)

    def check_grpc(self, asked: Asked) -> None:
        """The same over gRPC."""
        with grpc.insecure_channel(self.grpc) as channel:
            infer = channel.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)
            for row, scores in zip(asked.rows, asked.wanted, strict=True):
                reply = infer(_message(self.name, row), timeout=10, wait_for_ready=True)
                place = next(at for at, output in enumerate(reply.outputs) if output.datatype == "FP32")
                raw = reply.raw_output_contents
                got = np.frombuffer(raw[place], np.float32) if raw else reply.outputs[place].contents.fp32_contents
                _compare(np.ravel(got), scores)
        self.reply_bytes = 5 + reply.ByteSize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=[peer.name for peer in PEERS], help="this peer; may be repeated"
    )
    parser.add_argument("--scenario", action="append", choices=[one.name for one in SCENARIOS])
    parser.add_argument(
        "--windows", type=int, default=3, help="windows of each peer under each load, and as many of ours"
    )
    parser.add_argument("--seconds", type=int, default=2, help="seconds of one window")
    parser.add_argument("--environments", type=Path, default=None, help="where the peers' environments are kept")
    parser.add_argument("--prepare", action="store_true", help="make the environments and end")
    parser.add_argument("--output", type=Path, default=RESULTS / "peers.md")
    options = parser.parse_args()
    kept = Path.home() / ".cache" / "runoff" / "peers"
    folder = options.environments or Path(os.environ.get("RUNOFF_PEERS", kept))
    missing = [name for name in ("wrk", "h2load", "taskset") if shutil.which(name) is None]
    if missing:
        print(f"needed and not here: {', '.join(missing)} (Debian: wrk, nghttp2-client, util-linux)", file=sys.stderr)
        return 1
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
    pythons = {peer.name: _environment(peer, folder) for peer in peers}
    if options.prepare:
        return 0
    found = [
        (one, _scenario(one, peers, pythons, options))
        for one in SCENARIOS
        if not options.scenario or one.name in options.scenario
    ]
    report(found, options)
    return 0


# ── environments and processes of the peers ──────────────────────────────────────────────────────────────────────────────────


def _environment(peer: Peer, folder: Path) -> Path | str:
    """The Python of a peer's environment, which is made when it is not there; or why it cannot be."""
    wanted = HERE / "peers" / f"{peer.name}.txt"
    python = next((one for one in peer.pythons if Path(one).exists()), sys.executable)
    mark = hashlib.sha256(wanted.read_bytes() + python.encode()).hexdigest()[:12]
    place = folder / f"{peer.name}-{mark}"
    inside = place / "bin" / "python"
    if (place / ".complete").exists():
        return inside
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    print(f"making the environment of {peer.title} in {place}", file=sys.stderr)
    try:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, place], check=True, capture_output=True)
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", inside, "-r", wanted]
        subprocess.run(install, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        return f"its environment cannot be made: {(said.decode().strip() or str(error))[-300:]}"
    (place / ".complete").touch()
    return inside


@contextlib.contextmanager
def started(peer: Peer, python: Path | str, scenario: Scenario, model: Path, folder: Path) -> Iterator[Server]:
    """A peer's server on core 0. Raises PeerFailed."""
    if isinstance(python, str):
        raise PeerFailed(python)
    ports = free_port(), free_port()
    mark = uuid.uuid4().hex
    work = folder / f"{peer.name}-{scenario.name}"
    work.mkdir()
    said = work / "said.log"
    command: list[str | Path] = [
        *("taskset", "-c", "0", python, "-P", HERE / "peers" / f"{peer.name}.py"),
        *(model, scenario.name, *map(str, ports), work, str(scenario.batch_rows)),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environ |= {MARK: mark, "HOME": str(work), "OMP_NUM_THREADS": "1"}
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=work, env=environ, stdout=log, stderr=log, start_new_session=True)
    form = FORMS[peer.form]
    server = Server(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", form, scenario.name, lambda: _marked(mark))
    try:
        yield server
    except PeerFailed as failed:
        lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
        last = [line for line in lines if "Error" in line][-1:] or lines[-1:]
        gone = "" if process.poll() is None else f" (it ended with {process.returncode})"
        raise PeerFailed(f"{failed}{gone}: {' '.join(last)[:300]}") from None
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        for pid in _marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _marked(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process.pid)
    return found


# ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _scenario(
    scenario: Scenario, peers: list[Peer], pythons: dict[str, Path | str], options: argparse.Namespace
) -> list[Row]:
    """A row of ours, then one of each peer."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        work = Path(place)
        model, rows = scenario.make(work)
        session = onnxruntime.InferenceSession(str(model))
        wanted = session.run(None, {session.get_inputs()[0].name: rows[:ROWS_CHECKED]})[-1]
        asked = Asked(rows=rows[:ROWS_CHECKED], wanted=wanted, work=work)
        route: dict[str, object] = {"unit": {"header": "x-user-id"}}
        with gateway(work / "ours", {scenario.name: model}, route, grpc_door="wire"):
            pass  # staged and live: what is measured starts as it would after a restart
        running = stack.enter_context(gateway(work / "ours", {}, route, grpc_door="wire"))
        form = FORMS["v2"]
        ours = Server(running.rest, running.grpc, form, scenario.name, lambda: running.workers, running.others)
        ours.check(asked)
        ours.check_grpc(asked)
        first = Row(OURS, ready_s=running.ready_s, memory_mb=memory_mb(running.workers))
        first.by_load = {load: (Measured(), 1.0) for load in scenario.loads}
        found = [first]
        for peer in peers:
            row = Row(peer.title)
            found.append(row)
            print(f"{scenario.title}: {peer.title}", file=sys.stderr)
            try:
                began = time.monotonic()
                with started(peer, pythons[peer.name], scenario, model, work) as server:
                    _until_it_answers(server, asked, began)
                    row.ready_s = time.monotonic() - began
                    row.memory_mb = memory_mb(server.pids())
                    for load in scenario.loads:
                        if load[0] == "REST" or peer.has_grpc:
                            row.by_load[load] = _beside(load, server, ours, first.by_load[load][0], asked, options)
            except (PeerFailed, LoadFailed, httpx.HTTPError, grpc.RpcError) as error:
                row.trouble = str(error).strip()[:400] or type(error).__name__
                print(f"  {row.trouble}", file=sys.stderr)
        return found


def _until_it_answers(server: Server, asked: Asked, began_s: float) -> None:
    """Raises PeerFailed when it does not in time, or its process has ended."""
    trouble: Exception | None = None
    while time.monotonic() - began_s < START_S:
        try:
            server.check(asked)
            return
        except (httpx.HTTPError, PeerFailed, ValueError, KeyError) as error:
            trouble = error
        if time.monotonic() - began_s > 1 and not server.pids():
            raise PeerFailed("it does not start")
        time.sleep(0.05)
    raise PeerFailed(f"no right answer within {START_S:g} s, the last was {trouble!r}")


def _beside(
    load: tuple[str, int], server: Server, ours: Server, mine: Measured, asked: Asked, options: argparse.Namespace
) -> tuple[Measured, float]:
    """Windows of a peer and of ours in turns; the peer's, and the median of how many times as many ours answered."""
    if load[0] == "gRPC":
        server.check_grpc(asked)
    measured, ratios = Measured(), []
    _window(load, server, asked, 1)  # warm
    for _ in range(options.windows):
        theirs = _timed(measured, load, server, asked, options.seconds)
        ratios.append(_timed(mine, load, ours, asked, options.seconds).rate / theirs.rate)
    return measured, statistics.median(ratios)


def _timed(measured: Measured, load: tuple[str, int], server: Server, asked: Asked, seconds: int) -> Window:
    pids, others = server.pids(), list(server.others)
    before = cpu_s(pids), cpu_s(others)
    window = _window(load, server, asked, seconds)
    measured.windows.append(window)
    measured.cpu_us.append((cpu_s(pids) - before[0]) / window.count * 1e6)
    measured.others_us.append((cpu_s(others) - before[1]) / window.count * 1e6)
    return window


def _window(load: tuple[str, int], server: Server, asked: Asked, seconds: int) -> Window:
    protocol, connections = load
    row = asked.rows[0]
    if protocol == "REST":
        body = json.dumps(server.form.ask(server.name, _numbers(row))).encode()
        return wrk(server.url, post_script(asked.work / "post.lua", body), connections=connections, seconds=seconds)
    message = _message(server.name, row)
    body_file = asked.work / "grpc.body"
    body_file.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    window = h2load(f"http://{server.grpc}{METHOD}", body_file, connections=connections, seconds=seconds)
    if window.data_bytes < 0.9 * (window.count - connections) * server.reply_bytes:
        raise LoadFailed(
            f"{window.data_bytes} bytes in {window.count} replies of {server.reply_bytes}: some were errors"
        )
    return window


def _message(name: str, row: np.ndarray) -> bytes:
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=[row.astype(np.float32).tobytes()])
    request.inputs.add(name="X", datatype="FP32", shape=[1, len(row)])
    return request.SerializeToString()


def _numbers(row: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in row]


def _compare(got: np.ndarray, wanted: np.ndarray) -> None:
    if got.shape != np.ravel(wanted).shape or not np.allclose(got, np.ravel(wanted), rtol=1e-4, atol=1e-5):
        raise PeerFailed(f"wanted the scores {np.ravel(wanted)[:3]}, got {got[:3]}")


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def report(found: list[tuple[Scenario, list[Row]]], options: argparse.Namespace) -> None:
    """Prints the tables and writes them, with machine, versions and command, and the chart beside them."""
    command = f"python -m loadtests.peers --windows {options.windows} --seconds {options.seconds}"
    lines = [
        "# Ours against the model servers that pip can install",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}; `{command}`.",
        "",
        f"Servers on core 0, the generator on core 1 (wrk, h2load); {options.windows} windows of {options.seconds} s of a peer and as many of",
        "ours in turns, medians. Ours is a whole gateway: validation, a split with sticky units, every request recorded",
        "(`durability: process`), metrics, 1% traces; its control, shadow and supervisor are on the generator's core.",
        "The same ONNX model and ONNX Runtime with one thread everywhere; answers compared with it before any load. Peers batch the MLP",
        f"(up to {BATCH_ROWS} rows) where they can. One core is hard on servers of several processes (LitServe, BentoML, Ray).",
        "",
    ]
    for scenario, rows in found:
        lines += [f"## {scenario.title}", "", *_table(rows), ""]
        lines += [f"- {row.title}: not measured. {row.trouble}" for row in rows if row.trouble]
    lines += [
        "",
        f"![requests a second]({options.output.with_suffix('.png').name})",
        "",
        "Versions: " + _versions() + ".",
    ]
    text = "\n".join(lines) + "\n"
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text)
    chart(found, options.output.with_suffix(".png"))
    print(text)


def _table(rows: list[Row]) -> list[str]:
    lines = [
        "| | ready s | memory MB | | requests/s | p50 µs | p99 µs | processor µs/request | runoff is | runoff's p50 and p99 are |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    ours = rows[0]
    for row in rows:
        start = f"| {row.title} | {row.ready_s:.1f} | {row.memory_mb:.0f} |"
        for load, (measured, ratio) in row.by_load.items():
            if not measured.windows:
                continue
            mine = ours.by_load[load][0]
            p50, p99 = measured.median("p50_us"), measured.median("p99_us")
            cpu = f"{statistics.median(measured.cpu_us):.0f}"
            if row is ours:
                cpu += f" + {statistics.median(measured.others_us):.0f} beside"
            lines.append(
                f"{start} {load[0]}, {load[1]} connection{'s' * (load[1] > 1)} | {measured.median('rate'):,.0f} | {p50:,.0f} | {p99:,.0f} "
                f"| {cpu} | {ratio:.1f} × | {mine.median('p50_us') / p50:.2f} × and {mine.median('p99_us') / p99:.2f} × |"
            )
            start = "| | | |"
    return lines


def _versions() -> str:
    """The pinned version of each peer, and of the ONNX Runtime that all have."""
    library = {"pytriton": "nvidia-pytriton", "ray_serve": "ray"}
    texts = []
    for peer in PEERS:
        wanted = library.get(peer.name, peer.name)
        lines = (HERE / "peers" / f"{peer.name}.txt").read_text().splitlines()
        texts.append(next(line for line in lines if line.startswith(f"{wanted}==")).replace("==", " "))
    return ", ".join([*texts, f"onnxruntime {onnxruntime.__version__}"])


def chart(found: list[tuple[Scenario, list[Row]]], place: Path) -> None:
    """Bars of requests a second at 32 connections, longest first, two charts side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    loads = [(scenario, rows, load) for scenario, rows in found for load in scenario.loads if load[1] > 1]
    lines = -(-len(loads) // 2)
    figure, axes = plt.subplots(lines, 2, figsize=(10, 2.9 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (scenario, rows, load) in zip(axes.flat, loads, strict=False):
        measured = [(row.title, row.by_load[load][0]) for row in rows if load in row.by_load]
        bars = sorted((one.median("rate"), title) for title, one in measured if one.windows)
        axis.set_axis_on()
        axis.set_title(f"{scenario.title}, {load[0]}, requests/s", fontsize=10)
        if not bars:
            continue
        colours = ["#0b6e4f" if title == OURS else "#9aa5b1" for _, title in bars]
        drawn = axis.barh([title for _, title in bars], [rate for rate, _ in bars], color=colours, height=0.7)
        axis.bar_label(drawn, labels=[f"{rate:,.0f}" for rate, _ in bars], padding=3, fontsize=8)
        axis.set_xlim(right=bars[-1][0] * 1.2)
        axis.xaxis.set_visible(False)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.suptitle(f"one core, 32 connections · {machine()} · {datetime.now(UTC):%Y-%m-%d}", fontsize=8)
    figure.savefig(place, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
