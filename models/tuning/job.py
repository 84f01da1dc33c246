"""One tuning, as its process runs it: a staged model and rows in, a profile (and perhaps an int8 file) out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from models import profiles
from models.artifacts import file_digest
from models.batching import fill_samples
from models.errors import StagingRefused
from models.runtime.onnx import VERSION
from models.staged import Ask, Certificate, Profile, StagedModel, Traffic
from models.tensors import NUMPY_OF, Array
from models.tuning.bench import SessionBench
from models.tuning.search import Bounds, search

RESULT_FILE: Final = "profile.json"
TWIN_FILE: Final = "model.int8.onnx"


class TuningFailed(Exception):
    """No profile was made: the message says why. Whoever loads the model measures it then."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`artifact` holds the model's files, whose manifest is `staged`; results go to `into`. `recorded` is an npz of rows by input name."""

    artifact: str
    into: str
    staged: StagedModel
    ask: Ask = Ask()
    threads_max: int = 1
    runs_max: int = 1
    budget_s: float = 4.0
    traffic: Traffic | None = None
    recorded: str | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why there is no profile."""

    problem: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The profile."""

    profile: Profile


def tune(request: Request) -> Profile:
    """Measures. Raises ModelsError when the model does not load or fails on its rows."""
    began = time.perf_counter()
    artifact, signature = Path(request.artifact), request.staged.signature
    model = artifact / request.staged.file
    samples, recorded = _rows(request, artifact)
    twin, certificate, refused = None, None, ""
    if request.ask.int8:
        try:
            twin, certificate = _twin(request, model, samples, recorded)
        except StagingRefused as refusal:
            refused = refusal.message
    bench = SessionBench(model, signature, samples, twin=twin, no_twin=refused)
    traffic = msgspec.structs.replace(request.traffic, inputs=recorded) if request.traffic else None
    bounds = Bounds(
        target_s=request.ask.target_s,
        threads_max=request.threads_max,
        runs_max=request.runs_max,
        budget_s=request.budget_s,
        is_batched=signature.is_batched,
        int8=request.ask.int8,
        shares_weights=request.ask.share_weights and request.staged.data_file is not None,
        traffic=traffic,
    )
    found = search(bench, bounds)
    is_twin = found.setting.form == "int8"
    return Profile(
        processor=profiles.processor(),
        onnxruntime=VERSION,
        threads_max=request.threads_max,
        setting=found.setting,
        seconds_by_rows=found.seconds_by_rows,
        rows_max=found.rows_max,
        memory_bytes=bench.memory_bytes(found.setting, found.rows_max),
        load_s=found.load_s,
        ask=request.ask,
        target_met=found.target_met,
        traffic=traffic,
        trials=found.trials,
        skipped=found.skipped,
        certificate=certificate,
        twin_file=TWIN_FILE if is_twin else "",
        twin_sha256=file_digest(twin) if is_twin and twin else "",
        tuned_at_unix=time.time(),
        took_s=time.perf_counter() - began,
    )


def _twin(request: Request, model: Path, samples: Sequence[Array], recorded: int) -> tuple[Path, Certificate]:
    """The int8 file and its certificate. Raises StagingRefused."""
    from models.tuning import int8

    path = Path(request.into) / TWIN_FILE
    int8.quantise(model, path, reduce_range=not profiles.has_integer_dot_product())
    rows = len(samples[0]) if samples and samples[0].ndim else 0
    staged = request.staged
    certificate = int8.certify(
        model, path, staged.signature, staged.answer, samples, request.ask, rows=rows, recorded=recorded
    )
    return path, certificate


def _rows(request: Request, artifact: Path) -> tuple[list[Array], int]:
    """Recorded rows where there are any, with how many they are; else the staged samples."""
    if request.recorded is not None:
        with np.load(request.recorded, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
        specs = request.staged.signature.inputs
        if stored and all(spec.name in stored for spec in specs):
            rows = [
                stored[spec.name].astype(object if spec.datatype == "BYTES" else NUMPY_OF[spec.datatype])
                for spec in specs
            ]
            return rows, len(rows[0]) if rows else 0
    return fill_samples(request.staged, artifact), 0
