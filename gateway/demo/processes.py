"""The programs that the demo starts: training, the gateway, the replay. Each is ended with the demo, in order, whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final, Self

from gateway.demo.replay import Progress

_START_S: Final = 60.0
_STOP_S: Final = 30.0
_LOOK_S: Final = 0.05
_TAIL_LINES: Final = 15
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For the training: threads that spin while others use the processor made one second's work take half a minute."""
_ADDRESSES: Final = ("REST", "gRPC", "metrics", "admin")


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and where to look."""


class Addresses:
    """Where a gateway listens, as it printed it."""

    def __init__(self, lines: dict[str, str]) -> None:
        self.rest, self.grpc, self.metrics, self.admin = (lines[name] for name in _ADDRESSES)


class Gateway:
    """`runoff serve` on free ports, its state in `state_dir`. Use it in a `with`."""

    def __init__(self, state_dir: Path, workers: int) -> None:
        self._log = state_dir / "gateway.log"
        ports = [part for name in ("rest", "grpc", "metrics", "admin") for part in (f"--{name}-port", "0")]
        command = ("-P", "-m", "gateway.cli", "serve", "--state-dir", str(state_dir), "--workers", str(workers), *ports)
        with self._log.open("wb") as log:
            self._process = _start(command, stdout=log)

    def addresses(self) -> Addresses:
        """Waits until they are printed. Raises DemoFailed."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            words = [line.split() for line in self._log.read_text(errors="replace").splitlines()]
            found = {word[0]: word[1] for word in words if len(word) == 2 and word[0] in _ADDRESSES}
            if len(found) == len(_ADDRESSES):
                return Addresses(found)
            self.check()
            time.sleep(_LOOK_S)
        raise self.failed(f"the gateway printed no addresses within {_START_S:.0f} s")

    def check(self) -> None:
        """Raises DemoFailed when it is gone."""
        if self._process.poll() is not None:
            raise self.failed(f"the gateway ended with status {self._process.returncode}")

    def failed(self, problem: str) -> DemoFailed:
        """The problem, with the last lines that the gateway wrote."""
        return DemoFailed(f"{problem}:\n{_tail(self._log)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)


class World:
    """The replay. It loads at once, starts on `go`, and is read line by line. Use it in a `with`."""

    def __init__(self, addresses: Addresses, folder: Path, *, days: int, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "replay.log"
        options = ("--folder", str(folder), "--days", str(days), "--seconds", str(seconds))
        with self._log.open("wb") as log:
            self._process = _start(
                ("-P", "-m", "gateway.demo.replay", "--rest", addresses.rest, "--grpc", addresses.grpc, *options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def go(self) -> None:
        """Waits until the flights are loaded, then starts them. Raises DemoFailed."""
        assert self._process.stdin is not None, "started with a pipe"
        if not self._line():
            raise DemoFailed(f"the replay could not load the flights:\n{_tail(self._log)}")
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def progress(self) -> Iterator[Progress]:
        """What it reports, twice a second, to the last line, whose event is `done`. Raises DemoFailed when it ends without that."""
        import msgspec

        while line := self._line():
            progress = msgspec.json.decode(line, type=Progress)
            yield progress
            if progress.event == "done":
                return
        raise DemoFailed(f"the replay ended before its last flight:\n{_tail(self._log)}")

    def _line(self) -> bytes:
        assert self._process.stdout is not None, "started with a pipe"
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)


def train(state_dir: Path, rows: int) -> Iterator[dict[str, str | float]]:
    """Runs the MLflow project; yields alias, version and seconds of each model as it is registered. Raises DemoFailed."""
    log = state_dir / "training.log"
    command = ("-P", "-m", "gateway.demo.project", str(state_dir), "--rows", str(rows))
    with log.open("wb") as errors:
        process = _start(command, stdout=subprocess.PIPE, stderr=errors, told=_ONE_THREAD)
    assert process.stdout is not None, "started with a pipe"
    try:
        for line in process.stdout:
            if line.startswith(b"{"):
                yield json.loads(line)
        if process.wait() != 0:
            raise DemoFailed(f"the training failed:\n{_tail(log)}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # MLflow started a process in turn, and does not end it
        _end(process)


def _start(
    command: tuple[str, ...],
    *,
    stdout: "IO[bytes] | int",
    stderr: "IO[bytes] | int" = subprocess.STDOUT,
    stdin: int = subprocess.DEVNULL,
    told: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """A Python program of our environment, in a process group of its own, so that Ctrl-C reaches it through us alone."""
    found = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ours = {"PATH": os.pathsep.join(found), "PYTHONUNBUFFERED": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # Whoever has a registry or a gateway of their own set up: the demo must neither write to it nor read from it.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RUNOFF_"))}
    return subprocess.Popen(
        (sys.executable, *command), stdin=stdin, stdout=stdout, stderr=stderr, env={**inherited, **ours, **(told or {})}, process_group=0
    )  # fmt: skip


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join((*(f"  {line[:240]}" for line in lines), f"  ({log})"))
