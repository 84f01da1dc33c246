"""A corridor of one process and no queue, for tests of the doors: real ONNX Runtime sessions behind the real seam."""

import time
from collections import Counter
from typing import Any

import numpy as np
import onnxruntime

from gateway.errors import (
    DeadlinePassed,
    EndpointUnknown,
    NotReady,
    SpoolClosed,
    VersionUnknown,
    translate,
)
from gateway.ids import Minter
from gateway.request import InferReply, InferRequest, ModelState, ModelView
from gateway.statistics import BatchStatistics, Duration, ModelStatistics, Wanted, added
from models.errors import ModelFailed, NotWarm
from models.signature_check import check
from models.staged import ModelKey, Profile, StagedModel
from routing.errors import PinRefused
from routing.records import LabelRow
from tests.kit.onnx_models import MadeModel, classifier, columns, echo, failing


class Loaded:
    """One version of a model with its session."""

    def __init__(self, name: str, version: str, made: MadeModel) -> None:
        self.staged = StagedModel(
            key=ModelKey(name, version),
            digest=version * 64,
            uri=f"models:/{name}/{version}",
            flavor="onnx",
            file="model.onnx",
            file_sha256="0" * 64,
            size_bytes=len(made.model),
            signature=made.signature,
            answer=made.answer,
            profile=Profile(rows_max=64),
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # failures are answers here, not log lines
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(made.model, options, providers=["CPUExecutionProvider"])

    def run(self, arrays: list[Any]) -> list[Any]:
        feeds = {one.name: array for one, array in zip(self.staged.signature.inputs, arrays, strict=True)}
        try:
            outputs = self.session.run(None, feeds)
        except Exception as error:
            raise ModelFailed("the model failed on this input") from error
        return [np.asarray(output) for output in outputs]


class SmallCorridor:
    """Endpoints by name, each with versions of which the first is the champion's. `seen` holds every request that came in."""

    def __init__(self, endpoints: dict[str, dict[str, MadeModel]], *, default: str | None = None) -> None:
        self.loaded = {
            name: {version: Loaded(name, version, made) for version, made in versions.items()}
            for name, versions in endpoints.items()
        }
        self.seen: list[InferRequest] = []
        self.refusals: list[tuple[str, str]] = []
        self.body_bytes_max: int | None = None
        self.is_ready = True
        self.cold: set[str] = set()
        self.allow_pin = True
        self.fallback_from: str | None = None
        self.overloaded: Exception | None = None
        self._default = default
        self._minter = Minter()
        self._rows: Counter[tuple[str, str]] = Counter()
        self._runs: Counter[tuple[str, str]] = Counter()

    async def infer(self, request: InferRequest) -> InferReply:
        self.seen.append(request)
        view = self.view(request.endpoint)
        if not self.is_ready:
            raise NotReady("this process is draining", "draining")
        if self.overloaded is not None:
            raise self.overloaded
        if request.version is not None and not self.allow_pin:
            raise PinRefused(request.endpoint, "a version")
        self.view(request.endpoint, request.version)
        arrays, rows = check(view.signature, request.inputs)
        prediction_id = self._minter.mint()[0][1]
        if request.timeout_s is not None and time.monotonic_ns() > request.received_ns + request.timeout_s * 1e9:
            error = DeadlinePassed("the deadline passed before the model ran")
            error.prediction_id = prediction_id  # type: ignore[attr-defined]
            raise error
        version = request.version or view.champion.key.version
        loaded = self.loaded[request.endpoint][version]
        outputs = loaded.run(arrays)
        self._rows[request.endpoint, version] += rows
        self._runs[request.endpoint, version] += 1
        return InferReply(
            prediction_id=prediction_id,
            endpoint=request.endpoint,
            variant=request.variant or "champion",
            assigned=self.fallback_from or request.variant or "champion",
            model=loaded.staged,
            revision=7,
            outputs=outputs,
            explain={"rule": None, "bucket": 11, "share": 1.0} if request.explain else None,
        )

    def view(self, endpoint: str, version: str | None = None) -> ModelView:
        versions = self.loaded.get(endpoint)
        if versions is None:
            raise EndpointUnknown(f"unknown model '{endpoint}'")
        if endpoint in self.cold:
            raise NotWarm(f"model '{endpoint}' is not warm here")
        if version is not None and version not in versions:
            raise VersionUnknown(f"unknown version '{version}' of model '{endpoint}'")
        champion = next(iter(versions.values())).staged
        return ModelView(
            endpoint=endpoint,
            signature=champion.signature,
            champion=champion,
            versions=tuple(versions),
            revision=7,
            allow_pin=self.allow_pin,
            default=endpoint == self._default,
            body_bytes_max=self.body_bytes_max,
        )

    def state(self, endpoint: str, version: str | None = None) -> ModelState:
        if endpoint in self.cold:
            return ModelState(False, tuple(self.loaded[endpoint]))
        return ModelState(self.is_ready, self.view(endpoint, version).versions)

    def version_of(self, endpoint: str, alias: str) -> str:
        versions = self.view(endpoint).versions
        if alias != "canary":
            raise VersionUnknown(f"unknown label '{alias}' of model '{endpoint}'")
        return versions[-1]

    def views(self) -> list[ModelView]:
        return [self.view(endpoint) for endpoint in self.loaded]

    def default_endpoint(self) -> str:
        if self._default is None:
            raise EndpointUnknown("no default endpoint: name one in the path or in X-Runoff-Endpoint")
        return self._default

    def refused(self, endpoint: str, error: Exception) -> None:
        self.refusals.append((endpoint, translate(error).code))

    async def statistics(self, wanted: Wanted) -> list[ModelStatistics]:
        return added(wanted, [entry for place in wanted if (entry := self._counted(*place))])

    def _counted(self, endpoint: str, version: str) -> ModelStatistics | None:
        runs = self._runs[endpoint, version]
        if not runs:
            return None
        count = Duration(runs, runs * 1000)
        return ModelStatistics(
            endpoint=endpoint,
            version=version,
            last_inference_unix_ms=1_700_000_000_000,
            inference_count=self._rows[endpoint, version],
            execution_count=runs,
            success=count,
            compute_infer=count,
            batches=(BatchStatistics(batch_size=1, compute_infer=count),),
            memory_bytes=1024,
        )


class ListSink:
    """A label sink whose spool is a list; `is_closed` makes it refuse."""

    def __init__(self) -> None:
        self.rows: list[LabelRow] = []
        self.is_closed = False

    async def accept(self, rows: list[LabelRow]) -> None:
        if self.is_closed:
            raise SpoolClosed
        self.rows.extend(rows)


def stock() -> dict[str, dict[str, MadeModel]]:
    """One endpoint of each kind: `phishing` (versions 3 and 2), `churn`, `fragile`, and `echo-<datatype>`."""
    echoes = {
        f"echo-{datatype.lower()}": {"1": echo(datatype)}
        for datatype in ("BOOL", "UINT8", "INT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES")
    }
    return {
        "phishing": {"3": classifier(), "2": classifier()},
        "churn": {"1": columns()},
        "fragile": {"1": failing()},
        **echoes,
    }


def stocked_corridor() -> SmallCorridor:
    """A corridor with all of `stock`; `phishing` is the default."""
    return SmallCorridor(stock(), default="phishing")
