"""The real bench: sessions of ONNX Runtime on the model's own rows, timed one run at a time, and the memory that one adds."""

import ctypes
import gc
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from models.errors import StagingRefused
from models.runtime.onnx import OnnxSession
from models.signature import Signature
from models.staged import Setting
from models.tensors import Array

_LONG_S: Final = 1e-3
_TOGETHER: Final = 4
"""Runs of each thread in a measurement of several at once: starting the threads costs as much as a small run."""


class SessionBench:
    """Implements `search.Bench`. `samples` are rows in the signature's order; `twin` is the int8 file, None: there is none."""

    def __init__(
        self,
        model: Path,
        signature: Signature,
        samples: Sequence[Array],
        *,
        twin: Path | None = None,
        no_twin: str = "",
    ) -> None:
        self._model = model
        self._twin = twin
        self._no_twin = no_twin
        self._signature = signature
        self._samples = samples
        self._outputs = [spec.name for spec in signature.outputs]
        self._sessions: dict[Setting, OnnxSession] = {}
        self._batches: dict[int, list[Array]] = {}

    def load(self, setting: Setting) -> float:
        path = self._model if setting.form == "plain" else self._twin
        if path is None:
            raise StagingRefused("int8_refused", self._no_twin)
        began = time.perf_counter()
        session = OnnxSession(path, setting)
        session.input_names = tuple(spec.name for spec in self._signature.inputs)
        self._sessions[setting] = session
        return time.perf_counter() - began

    def run(self, setting: Setting, rows: int) -> float:
        session, batch = self._sessions[setting], self._batch(rows)
        if setting.runs > 1:
            return self._run_together(session, batch, setting.runs)
        own = time.thread_time()
        began = time.perf_counter()
        session.run(batch, self._outputs)
        wall_s = time.perf_counter() - began
        own_s = time.thread_time() - own
        # A long run is interrupted, and its own time leaves out what others took of the core. A short one is whole in the best of several,
        # where that clock, corrected by the host, may be microseconds off. Of several threads only the wall clock knows the end.
        return min(wall_s, own_s) if setting.threads == 1 and wall_s > _LONG_S else wall_s

    def drop(self, setting: Setting) -> None:
        self._sessions.pop(setting, None)

    def memory_bytes(self, setting: Setting, rows: int) -> int:
        """What opening one session and one run of `rows` add to the memory that is this process's own (libraries' pages are not)."""
        self._sessions.clear()
        self._batch(rows)
        _give_back()
        before = _own_bytes()
        self.load(setting)
        self.run(setting, rows)
        return max(0, _own_bytes() - before)

    def _run_together(self, session: OnnxSession, batch: list[Array], runs: int) -> float:
        def work(_: int) -> None:
            for _ in range(_TOGETHER):
                session.run(batch, self._outputs)

        with ThreadPoolExecutor(runs) as threads:
            began = time.perf_counter()
            list(threads.map(work, range(runs)))
            return (time.perf_counter() - began) / _TOGETHER

    def _batch(self, rows: int) -> list[Array]:
        """So many rows of the samples, again from the first where they do not suffice; as they are where rows are not free."""
        batch = self._batches.get(rows)
        if batch is None:
            batch = self._batches[rows] = [
                np.resize(sample, (rows, *sample.shape[1:])) if self._signature.is_batched else sample
                for sample in self._samples
            ]
        return batch


def _own_bytes() -> int:
    """Anonymous memory in use (Linux); 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _give_back() -> None:
    """Returns freed memory to the system, so that it is not taken for the next session's."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
