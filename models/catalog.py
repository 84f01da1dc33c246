"""What is loaded in this process: staged models by digest, each with its session, its measured curve and its leases."""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models import profiles
from models.artifacts import file_digest
from models.batching import fill_samples
from models.errors import ArtifactInvalid, ModelFailed
from models.runtime.onnx import OnnxSession, Stop
from models.staged import ModelKey, Profile, Setting, StagedModel
from models.tensors import Array

CURVE_ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes measured at warm-up. A batch grows only while the time for a row still falls (PERFORMANCE.md 1, fact 8)."""
_TRUE_WITHIN = 2.0
"""A profile is believed while a run takes between half and twice what it says: what other processes do to a run stays below that."""
_CHECKS = 3


class LoadedModel:
    """A warm model. `leases` counts the requests that hold it open; it is closed only after the last one returned."""

    __slots__ = (
        "_curve",
        "_curve_rows",
        "_is_batched",
        "is_tuned",
        "leases",
        "output_names",
        "rows_max",
        "runs_max",
        "session",
        "staged",
    )

    def __init__(self, staged: StagedModel, session: OnnxSession) -> None:
        self.staged = staged
        self.session = session
        self.output_names = [spec.name for spec in staged.signature.outputs]
        self._is_batched = staged.signature.is_batched
        self.leases = 0
        self.rows_max = 1
        self.runs_max = 1
        """How many runs on threads may go on at once."""
        self.is_tuned = False
        self._curve_rows: list[int] = [1]
        self._curve: list[float] = [0.0]

    def run(self, inputs: Sequence[Array], stop: Stop | None = None) -> list[Array]:
        """Runs `inputs` (in the signature's order, rows first) and answers the outputs in the signature's order. `stop` may end it.

        Raises InputInvalid or ModelFailed; also ModelFailed when an output of a batched model has another number of rows.
        """
        outputs = self.session.run(inputs, self.output_names, stop)
        if self._is_batched and inputs:
            rows = len(inputs[0])
            for output in outputs:
                if len(output) != rows:
                    raise ModelFailed(f"the model answered without one row for each of {rows} input rows")
        return outputs

    @property
    def shares_runs(self) -> bool:
        """Whether rows of several callers may share a run: in the int8 form, and where the model itself mixes rows, they would change each other's answers."""
        staged, profile = self.staged, self.staged.profile
        is_plain = profile is None or profile.setting.form == "plain"
        return staged.signature.is_batched and staged.keeps_rows_apart and is_plain

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
        sizes, curve = self._curve_rows, self._curve  # `take` may bring others while a thread is here
        place = min(bisect_left(sizes, rows), len(sizes) - 1, len(curve) - 1)
        scaled = seconds * sizes[place] / rows if rows > sizes[place] else seconds
        known = curve[place]
        curve[place] = known + 0.1 * (min(scaled, 2 * known) - known)

    def as_version(self, key: ModelKey) -> "LoadedModel":
        """The same session under another version's name: registered versions may have the very same files."""
        other = LoadedModel(msgspec.structs.replace(self.staged, key=key), self.session)
        other.take(self)
        return other

    def take(self, other: "LoadedModel") -> None:
        """Goes on with the session and the curve of `other`, under its own name. Runs that have begun end in the old session."""
        self.staged = msgspec.structs.replace(other.staged, key=self.staged.key, uri=self.staged.uri)
        self.session = other.session
        self.rows_max, self.runs_max, self.is_tuned = other.rows_max, other.runs_max, other.is_tuned
        self._curve_rows, self._curve = other._curve_rows, other._curve  # noqa: SLF001  # one of our own kind

    def adopt(self, profile: Profile, samples: Sequence[Array], clock: Callable[[], float] = time.perf_counter) -> bool:
        """Takes batch size and curve from the profile, unless a few runs of one row and of a full batch contradict it.

        Raises what `run` raises. A profile from another machine or another time must not decide what runs on the event loop.
        """
        curve = sorted(profile.seconds_by_rows.items())
        for rows in {curve[0][0], max(rows for rows, _ in curve if rows <= max(profile.rows_max, curve[0][0]))}:
            batch = self._batch(samples, rows)
            if not any(self._is_as_said(batch, profile.seconds_by_rows[rows], clock) for _ in range(_CHECKS)):
                return False
        self._curve_rows, self._curve = [rows for rows, _ in curve], [seconds for _, seconds in curve]
        self.rows_max, self.runs_max = profile.rows_max if self.shares_runs else 1, profile.setting.runs
        self.is_tuned = True
        return True

    def _is_as_said(self, batch: list[Array], said_s: float, clock: Callable[[], float]) -> bool:
        times = []
        for _ in range(3):
            started = clock()
            self.run(batch)
            times.append(clock() - started)
        return said_s / _TRUE_WITHIN <= min(times) <= said_s * _TRUE_WITHIN

    def _batch(self, samples: Sequence[Array], rows: int) -> list[Array]:
        """So many rows of the samples, over and over; as they are where rows are not free."""
        if not self.staged.signature.is_batched:
            return list(samples)
        return [np.resize(sample, (rows, *sample.shape[1:])) for sample in samples]

    def warm(self, samples: Sequence[Array], clock: Callable[[], float] = time.perf_counter) -> None:
        """Runs the samples and measures the curve; raises what `run` raises, which means that this model must not go live.

        Three runs a size, the least of them counts; sizes stop once a run takes over 50 ms or a row gets no cheaper.
        """
        curve_rows, curve = [], []
        best_row_s = float("inf")
        for rows in CURVE_ROWS if self.staged.signature.is_batched else (1,):
            batch = self._batch(samples, rows)
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
        if not self.shares_runs:
            self.rows_max = 1
        self._curve_rows, self._curve = curve_rows, curve


class Catalog:
    """Loaded models by digest, below `artifacts`. `load` and `renewed` block and may run in any one thread; the rest belongs to the loop."""

    def __init__(self, artifacts: Path, *, intra_threads: int = 1) -> None:
        """`intra_threads`: what one session may have at most; how many of them it takes is in its profile."""
        self._artifacts = artifacts
        self._intra_threads = intra_threads
        self._loaded: dict[str, LoadedModel] = {}
        self._versions: dict[tuple[str, ModelKey], LoadedModel] = {}
        self._stamps: dict[str, int] = {}

    def load(self, digest: str) -> LoadedModel:
        """Loads and warms the artifact unless it is loaded already, as this machine's profile says where there is one.

        Raises ArtifactInvalid, ModelFailed or InputInvalid; nothing is kept then.
        """
        found = self._loaded.get(digest)
        if found is not None:
            return found
        stamp = profiles.stamp(self._artifacts / digest)
        model = self._warmed(digest)
        self._loaded[digest] = model
        self._stamps[digest] = stamp
        return model

    def outdated(self) -> list[str]:
        """What was tuned anew since it was loaded; named once."""
        found = []
        for digest in list(self._loaded):  # the thread that loads may add to it meanwhile: a look at a file lets it run
            stamp = profiles.stamp(self._artifacts / digest)
            if stamp not in {0, self._stamps.get(digest)}:
                self._stamps[digest] = stamp
                found.append(digest)
        return found

    def renewed(self, digest: str) -> LoadedModel:
        """A second session of a loaded model, opened as its profile says now, for `take`. Raises as `load`."""
        return self._warmed(digest)

    def take(self, renewed: LoadedModel) -> None:
        """Puts the new session in the place of the old one, for all its versions, unless the model was let go meanwhile."""
        digest = renewed.staged.digest
        model = self._loaded.get(digest)
        for one in (model, *(other for (known, _), other in self._versions.items() if known == digest)):
            if one is not None:
                one.take(renewed)

    def _warmed(self, digest: str) -> LoadedModel:
        """Opens and warms: by the profile where it proves true, else as a session without one. Raises as `load`."""
        folder = self._artifacts / digest
        staged = StagedModel.read(folder)
        if file_digest(folder / staged.file) != staged.file_sha256:
            raise ArtifactInvalid(f"{staged.key}: {staged.file} does not have the digest of its manifest")
        if staged.data_file is not None and file_digest(folder / staged.data_file) != staged.data_sha256:
            raise ArtifactInvalid(f"{staged.key}: {staged.data_file} does not have the digest of its manifest")
        samples = fill_samples(staged, folder)
        profile = self._profile(folder)
        staged = msgspec.structs.replace(staged, profile=profile)
        if profile is not None and profile.setting.threads <= self._intra_threads:
            model = LoadedModel(staged, self._session(folder, staged, profile.setting))
            if model.adopt(profile, samples):
                return model
        # The form stays: what a model answers must not depend on how fast it was while it was loaded.
        known = profile.setting if profile is not None else Setting()
        setting = Setting(form=known.form, shares_weights=known.shares_weights)
        model = LoadedModel(staged, self._session(folder, staged, setting))
        model.warm(samples)
        return model

    def _profile(self, folder: Path) -> Profile | None:
        """This machine's profile, if all of it is here and whole."""
        profile = profiles.read(folder)
        if profile is None or profile.setting.form == "plain":
            return profile
        twin = folder / profile.twin_file
        return profile if twin.is_file() and file_digest(twin) == profile.twin_sha256 else None

    def _session(self, folder: Path, staged: StagedModel, setting: Setting) -> OnnxSession:
        """Raises ArtifactInvalid."""
        file = staged.profile.twin_file if staged.profile is not None and setting.form == "int8" else staged.file
        session = OnnxSession(folder / file, setting)
        wanted = tuple(spec.name for spec in staged.signature.inputs)
        if set(wanted) != set(session.input_names):
            raise ArtifactInvalid(
                f"{staged.key}: manifest declares inputs {list(wanted)}, the session has {list(session.input_names)}"
            )
        session.input_names = wanted
        return session

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
        for digest in gone:
            self._stamps.pop(digest, None)
        self._versions = {known: model for known, model in self._versions.items() if known[0] not in gone}
        return [self._loaded.pop(digest) for digest in gone]

    def _leases(self, digest: str) -> int:
        others = sum(model.leases for (known, _), model in self._versions.items() if known == digest)
        return self._loaded[digest].leases + others
