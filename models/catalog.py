"""What is loaded in this process: staged models by digest, each with its session, its measured curve and its leases."""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np

from models.batching import fill_samples
from models.errors import ArtifactInvalid, ModelFailed
from models.runtime.onnx import OnnxSession
from models.staged import ModelKey, StagedModel
from models.tensors import Array

CURVE_ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes measured at warm-up. A batch grows only while the time for a row still falls (PERFORMANCE.md 1, fact 8)."""


class LoadedModel:
    """A warm model. `leases` counts the requests that hold it open; it is closed only after the last one returned."""

    __slots__ = ("_curve", "_curve_rows", "leases", "output_names", "rows_max", "session", "staged")

    def __init__(self, staged: StagedModel, session: OnnxSession) -> None:
        self.staged = staged
        self.session = session
        self.output_names = [spec.name for spec in staged.signature.outputs]
        self.leases = 0
        self.rows_max = 1
        self._curve_rows: list[int] = [1]
        self._curve: list[float] = [0.0]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Runs `inputs` (in the signature's order, rows first) and answers the outputs in the signature's order.

        Raises InputInvalid or ModelFailed; also ModelFailed when an output of a batched model has another number of rows.
        """
        outputs = self.session.run(inputs, self.output_names)
        if self.staged.signature.is_batched and inputs:
            rows = len(inputs[0])
            for output in outputs:
                if len(output) != rows:
                    raise ModelFailed(f"the model answered without one row for each of {rows} input rows")
        return outputs

    def predicted_s(self, rows: int) -> float:
        """Seconds that one run of `rows` is expected to take, from the curve: the next measured size, linear beyond the last."""
        place = bisect_left(self._curve_rows, rows)
        if place < len(self._curve_rows):
            return self._curve[place]
        return self._curve[-1] * rows / self._curve_rows[-1]

    def observe(self, rows: int, seconds: float) -> None:
        """Moves the curve's nearest point a tenth of the way towards what a run really took, at most towards twice the point.

        So one run that the system interrupted does not send the next hundred to a thread, and a lasting change still gets through.
        """
        place = min(bisect_left(self._curve_rows, rows), len(self._curve) - 1)
        scaled = seconds * self._curve_rows[place] / rows if rows > self._curve_rows[place] else seconds
        known = self._curve[place]
        self._curve[place] = known + 0.1 * (min(scaled, 2 * known) - known)

    def as_version(self, key: ModelKey) -> "LoadedModel":
        """The same session under another version's name: registered versions may have the very same files."""
        other = LoadedModel(msgspec.structs.replace(self.staged, key=key), self.session)
        other.rows_max, other._curve_rows, other._curve = self.rows_max, self._curve_rows, self._curve
        return other

    def warm(self, samples: Sequence[Array], clock: Callable[[], float] = time.perf_counter) -> None:
        """Runs the samples and measures the curve; raises what `run` raises, which means that this model must not go live.

        Three runs a size, the least of them counts; sizes stop once a run takes over 50 ms or a row gets no cheaper.
        """
        curve_rows, curve = [], []
        best_row_s = float("inf")
        for rows in CURVE_ROWS if self.staged.signature.is_batched else (1,):
            batch = [np.resize(sample, (rows, *sample.shape[1:])) if sample.shape else sample for sample in samples]
            times = []
            for _ in range(3):
                started = clock()
                self.run(batch)
                times.append(clock() - started)
            curve_rows.append(rows)
            curve.append(min(times))
            if min(times) / rows > 0.95 * best_row_s:
                break
            best_row_s = min(times) / rows
            self.rows_max = rows
            if times[-1] > 0.05:
                break
        if self.rows_max == CURVE_ROWS[-1]:
            self.rows_max = 256  # still gaining at the last measured size; the turn's budget bounds it
        self._curve_rows, self._curve = curve_rows, curve


class Catalog:
    """Loaded models by digest, below `artifacts`. `load` blocks and may run in any one thread; the rest belongs to the loop."""

    def __init__(self, artifacts: Path, *, intra_threads: int = 1) -> None:
        self._artifacts = artifacts
        self._intra_threads = intra_threads
        self._loaded: dict[str, LoadedModel] = {}
        self._versions: dict[tuple[str, ModelKey], LoadedModel] = {}

    def load(self, digest: str) -> LoadedModel:
        """Loads and warms the artifact unless it is loaded already.

        Raises ArtifactInvalid, ModelFailed or InputInvalid; nothing is kept then.
        """
        found = self._loaded.get(digest)
        if found is not None:
            return found
        folder = self._artifacts / digest
        staged = StagedModel.read(folder)
        path = folder / staged.file
        if sha256(path.read_bytes()).hexdigest() != staged.file_sha256:
            raise ArtifactInvalid(f"{staged.key}: {staged.file} does not have the digest of its manifest")
        session = OnnxSession(path, intra_threads=self._intra_threads)
        wanted = tuple(spec.name for spec in staged.signature.inputs)
        if set(wanted) != set(session.input_names):
            raise ArtifactInvalid(
                f"{staged.key}: manifest declares inputs {list(wanted)}, the session has {list(session.input_names)}"
            )
        session.input_names = wanted
        model = LoadedModel(staged, session)
        model.warm(fill_samples(staged, folder))
        self._loaded[digest] = model
        return model

    def get(self, digest: str, key: ModelKey | None = None) -> LoadedModel | None:
        """The model if it is loaded; with `key` under that version's name, which its answers then bear."""
        model = self._loaded.get(digest)
        if model is None or key is None or model.staged.key == key:
            return model
        known = self._versions.get((digest, key))
        if known is None:
            known = self._versions[digest, key] = model.as_version(key)
        return known

    def loaded(self) -> list[LoadedModel]:
        """All that is loaded now."""
        return list(self._loaded.values())

    def retain(self, digests: set[str]) -> list[LoadedModel]:
        """Lets go of every model that is not named and has no lease; answers what was let go. Called again until nothing is left."""
        gone = [digest for digest in self._loaded if digest not in digests and not self._leases(digest)]
        self._versions = {known: model for known, model in self._versions.items() if known[0] not in gone}
        return [self._loaded.pop(digest) for digest in gone]

    def _leases(self, digest: str) -> int:
        others = sum(model.leases for (known, _), model in self._versions.items() if known == digest)
        return self._loaded[digest].leases + others
