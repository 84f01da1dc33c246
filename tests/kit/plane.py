"""A whole data plane in the test's own event loop: real models, real spool, real counters, below one temporary folder."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.admission import Admission
from gateway.corridor import PlaneCorridor
from gateway.dataplane import Dataplane
from gateway.labels import SpoolLabels
from gateway.live import LiveTable, ServedEndpoint, table_of
from gateway.meter import Meter
from gateway.recorder import Recorder
from gateway.request import InferRequest
from gateway.rest.protocol import HotPaths
from gateway.spool.files import Files
from gateway.spool.reader import SegmentReader
from gateway.spool.segment import SegmentWriter
from gateway.state.compiled import CompiledModel, CompiledRoute
from gateway.telemetry.counters import CounterPage, Totals, read_page
from models.catalog import Catalog
from models.pool import ComputePool
from models.staged import StagedModel
from models.tensors import Array
from routing.records import Block
from routing.split import compile_split
from routing.traffic import to_document
from routing.validate import validate

UNIT_KEY = b"k" * 32


class Plane:
    """`serve` makes a route live; `infer` asks as a door would; `blocks` reads the spool back. `files` is under the records."""

    def __init__(
        self,
        folder: Path,
        *,
        spool_bytes_max: int = 1 << 24,
        mirror_bytes_max: int = 1 << 24,
        segment_bytes: int = 32 << 20,
        files: Files | None = None,
    ) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.catalog = Catalog(self.artifacts)
        self.page = CounterPage(folder / "run", "worker-1")
        self.meter = Meter(self.page)
        under: dict[str, Any] = {"segment_bytes": segment_bytes, "files": files}
        self.recorder = Recorder(
            SegmentWriter(folder / "spool" / "worker-1", bytes_max=spool_bytes_max, **under),
            SegmentWriter(folder / "mirror" / "worker-1", bytes_max=mirror_bytes_max),
            SegmentWriter(folder / "spool" / "worker-1-disk", bytes_max=spool_bytes_max, durable=True, **under),
            UNIT_KEY,
        )
        self.pools = ComputePool(1), ComputePool(1)
        loop = asyncio.get_running_loop()
        self.data = Dataplane(
            loop=loop,
            recorder=self.recorder,
            meter=self.meter,
            admission=Admission(4096),
            pool=self.pools[0],
            sync_pool=self.pools[1],
        )
        self.corridor = PlaneCorridor(self.data, loop)
        self.labels = SpoolLabels(
            self.recorder._records,
            lambda: SegmentWriter(
                folder / "spool" / "worker-1-labels", bytes_max=spool_bytes_max, durable=True, **under
            ),
            lambda: self.data.table,
            self.meter,
            UNIT_KEY,
        )
        self.paths = HotPaths()
        self.revision = 0

    def serve(self, models: Mapping[str, StagedModel], **document: Any) -> ServedEndpoint:
        """Makes a route live: by variant name its model (the first is the champion, with all weight unless `variants` says else)."""
        names = list(models)
        route = {
            "endpoint": "line",
            "champion": names[0],
            "variants": [
                {"name": name, "model": staged.uri, "weight": 1.0 if place == 0 else 0.0}
                for place, (name, staged) in enumerate(models.items())
            ],
            **document,
        }
        parsed = validate(route)
        for staged in models.values():
            self.catalog.load(staged.digest)
        split = compile_split(parsed.salt, parsed.weights)
        self.revision += 1
        compiled = CompiledRoute(
            endpoint=parsed.endpoint,
            revision=self.revision,
            document=to_document(parsed),
            models={
                name: CompiledModel(key=staged.key, digest=staged.digest, uri=staged.uri)
                for name, staged in models.items()
            },
            split=split.arms,
            split_sha256=split.sha256,
            signature=models[names[0]].signature,
        )
        served = ServedEndpoint(compiled, self.catalog, table_of(compiled))
        self.data.table = LiveTable({**self.data.table.endpoints, served.name: served}, served.name)
        self.paths.rebuild(self.data.table)
        return served

    def request(self, inputs: Mapping[str, Array], **fields: Any) -> InferRequest:
        """A request as a door decodes it, received now."""
        at = {"received_ns": self.data._clock_ns(), "endpoint": "line", "protocol": 0}
        return InferRequest(inputs=inputs, **(at | fields))

    def blocks(self, folder: str = "spool/worker-1") -> Sequence[Block]:
        """Every block in a writer's segments, in order."""
        reader = SegmentReader(self.folder / folder)
        frames = reader.read(1 << 26)
        return [msgspec.msgpack.decode(frame.payload, type=Block) for frame in frames]

    def totals(self) -> Totals:
        """The counters of this worker."""
        totals = Totals()
        for name, _, labels, values in read_page(self.folder / "run" / "counters-worker-1.bin"):
            totals.add(name, labels, values)
        return totals

    def close(self) -> None:
        """Ends threads and files."""
        for pool in self.pools:
            pool.close()
        self.recorder.close()
        self.page.close()
