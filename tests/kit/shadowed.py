"""A gateway as the shadow process sees it: routes in a real state database, staged models, workers' mirror segments, its own spool."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np

from gateway.ids import Minter
from gateway.settings import Settings
from gateway.shadow.draw import Draw, column_of
from gateway.shadow.process import Shadow
from gateway.spool.frame import Frame
from gateway.spool.reader import SegmentReader, is_writer_dead, writers
from gateway.spool.segment import SegmentWriter
from gateway.state.compiled import CompiledModel, CompiledRoute
from gateway.state.revision import Draft
from gateway.state.store import StateStore
from gateway.telemetry.counters import Totals, read_page
from models.catalog import Catalog
from models.staged import StagedModel
from models.tensors import Array, datatype_of
from routing.records import MirrorBlock, RequestRow, ShadowBlock
from routing.split import compile_split, mirror_draw
from routing.traffic import to_document
from routing.validate import validate
from tests.kit.staged import stage_linear

Pair = tuple[str, bytes]
"""A mirror and a prediction id."""


class Shadowed:
    """`route` makes a route live, `serve` is a worker that answers and mirrors, `read` what the shadow has written since."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(state_dir=str(folder), **settings)
        self.artifacts = self.settings.artifacts_path
        self.catalog = Catalog(self.artifacts)
        self.store = StateStore(self.settings.state_file)
        self.champion = stage_linear(self.artifacts, name="champion", slope=1.0)
        self.mirrors: Mapping[str, StagedModel | dict[str, Any]] = {}
        self.names: tuple[str, ...] = ()
        self.drawn: dict[Pair, Array] = {}
        """Everything that was drawn, with its input rows."""
        self.revision = 0
        self._samples: dict[str, float] = {}
        self._minter = Minter()
        self._workers: dict[str, SegmentWriter] = {}
        self._readers: dict[str, SegmentReader] = {}

    def candidates(self, count: int, **fields: Any) -> dict[str, StagedModel]:
        """Real models that differ from the champion and from one another."""
        return {
            f"candidate-{n}": stage_linear(
                self.artifacts, name="candidate", version=str(n + 1), slope=0.5 - n, **fields
            )
            for n in range(count)
        }

    def route(self, mirrors: Mapping[str, StagedModel | dict[str, Any]], **fields: Mapping[str, Any]) -> int:
        """Makes these mirrors live: a staged model, or the `remote` of the document. `fields` by mirror name are added."""
        listed = []
        for name, mirror in mirrors.items():
            target = {"model": mirror.uri} if isinstance(mirror, StagedModel) else {"remote": mirror}
            listed.append({"name": name, **target, **fields.get(name.replace("-", "_"), {})})
        route = validate(
            {
                "endpoint": "line",
                "variants": [{"name": "champion", "model": self.champion.uri, "weight": 1}],
                **({"mirrors": listed} if listed else {}),
            }
        )
        split = compile_split(route.salt, route.weights)
        models = {"champion": CompiledModel(key=self.champion.key, digest=self.champion.digest, uri=self.champion.uri)}
        for name, mirror in mirrors.items():
            if isinstance(mirror, StagedModel):
                models[name] = CompiledModel(key=mirror.key, digest=mirror.digest, uri=mirror.uri, role="mirror")
        document = to_document(route)
        draft = Draft(endpoint="line", action="put", author="test", reason="test", document=document)
        revision = self.store.write(draft, check=False)
        compiled = CompiledRoute(
            endpoint="line",
            revision=revision.number,
            document=document,
            models=models,
            split=split.arms,
            split_sha256=split.sha256,
            signature=self.champion.signature,
        )
        assert self.store.activate(revision.number, compiled)
        self.mirrors, self.names, self.revision = mirrors, tuple(mirrors), revision.number
        self._samples = {mirror.name: mirror.sample for mirror in route.mirrors}
        return revision.number

    def serve(
        self, requests: int, *, rows: int = 1, worker: str = "worker-a", age_s: float = 0.0, inputs: Array | None = None
    ) -> list[bytes]:
        """One turn of a worker: the champion's answers to random rows, mirrored as one block. Answers the prediction ids."""
        if inputs is None:
            inputs = np.random.default_rng(len(self.drawn)).normal(size=(requests * rows, 2)).astype(np.float32)
        outputs = self.catalog.load(self.champion.digest).run([inputs])
        received = int((time.time() - age_s) * 1e6)
        ids = [raw for raw, _ in self._minter.mint(requests)]
        listed = []
        for place, prediction in enumerate(ids):
            mask = 0
            for bit, name in enumerate(self.names):
                if mirror_draw(prediction, name, self._samples[name]):
                    mask |= 1 << bit
                    self.drawn[name, prediction] = inputs[place * rows : (place + 1) * rows]
            listed.append(
                RequestRow(
                    prediction,
                    rows,
                    received,
                    0,
                    0,
                    0,
                    7,
                    1.0,
                    0,
                    200,
                    1,
                    1,
                    2,
                    requests * rows,
                    "u" * 32,
                    mirrors=mask,
                )
            )
        outs = self.champion.signature.outputs
        block = MirrorBlock(
            "line",
            self.revision,
            ("champion",),
            self.champion.key.name,
            self.champion.key.version,
            self.names,
            listed,
            [column_of("x", "FP32", inputs)],
            [column_of(spec.name, datatype_of(out), out) for spec, out in zip(outs, outputs, strict=True)],
        )
        self.append(msgspec.msgpack.encode(block), worker)
        return ids

    def append(self, payload: bytes, worker: str = "worker-a") -> int:
        """Puts any payload into a worker's mirror segment."""
        if worker not in self._workers:
            folder = self.settings.state_path / "mirror" / worker
            self._workers[worker] = SegmentWriter(folder, bytes_max=1 << 28)
        return self._workers[worker].append([payload])

    def die(self, worker: str = "worker-a") -> None:
        """Ends a worker, as far as the spool can tell."""
        self._workers.pop(worker).close()

    def shadow(self, **fields: Any) -> Shadow:
        """A shadow process in the test's own loop."""
        options: dict[str, Any] = {"environ": {}, "memory_bytes_max": 1 << 40, **fields}
        return Shadow(self.settings, f"shadow-{uuid4().hex}", **options)

    def read(self, *, consume: bool = False) -> list[ShadowBlock]:
        """Shadow blocks that were not read before, of all shadow writers. `consume`: as the streams do, unlinking what was read."""
        spool, found = self.settings.state_path / "spool", []
        for writer in writers(spool):
            reader = self._readers.setdefault(writer, SegmentReader(spool / writer))
            is_dead = is_writer_dead(spool / writer)
            while frames := reader.read():
                found += [msgspec.msgpack.decode(frame.payload, type=ShadowBlock) for frame in frames]
            if consume:
                reader.release(reader.sequence)
                if is_dead and reader.is_drained:
                    reader.remove()
        return found

    def totals(self) -> Totals:
        """The counters of all processes, living and dead."""
        totals = Totals()
        for page in (self.settings.state_path / "run").glob("counters-*.bin"):
            for name, _, labels, values in read_page(page):
                totals.add(name, labels, values)
        return totals

    def offline(self, mirror: str, inputs: Array) -> list[Array]:
        """What a local candidate answers when it is run alone."""
        staged = self.mirrors[mirror]
        assert isinstance(staged, StagedModel)
        return self.catalog.load(staged.digest).run([np.ascontiguousarray(inputs)])

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        for worker in self._workers.values():
            worker.close()
        self.store.close()


def draw_of(
    inputs: Mapping[str, Array],
    *,
    rows: Sequence[int],
    mirrors: Sequence[str] = ("candidate-0",),
    masks: Sequence[int] | None = None,
    received_unix_s: float | None = None,
    writer: str = "worker-a",
    sequence: int = 1,
) -> Draw:
    """A mirror frame of one block: requests of so many `rows`, drawn as `masks` says (all by all), production's answer 1 for each row."""
    received = int((time.time() if received_unix_s is None else received_unix_s) * 1e6)
    every = (1 << len(mirrors)) - 1
    requests = [
        RequestRow(
            sha256(b"%d %d" % (sequence, place)).digest()[:16], count, received, 0, 0, 0, 7, 1.0, 0, 200, 1, 1, 2, 1,
            mirrors=every if masks is None else masks[place],
        )
        for place, count in enumerate(rows)
    ]  # fmt: skip
    block = MirrorBlock(
        "line",
        1,
        ("champion",),
        "champion",
        "1",
        tuple(mirrors),
        requests,
        [column_of(name, datatype_of(array), array) for name, array in inputs.items()],
        [column_of("label", "INT64", np.ones(sum(rows), np.int64))],
    )
    return Draw(writer, Frame(sequence, msgspec.msgpack.encode(block), 1, 0))


def outcomes(blocks: Sequence[ShadowBlock]) -> Counter[tuple[str, str]]:
    """How many requests of which mirror had which outcome."""
    return Counter((block.mirror, row.outcome) for block in blocks for row in block.requests)


def pairs(blocks: Sequence[ShadowBlock]) -> Counter[Pair]:
    """How often each drawn request was written for each mirror."""
    return Counter((block.mirror, row.prediction_id) for block in blocks for row in block.requests)
