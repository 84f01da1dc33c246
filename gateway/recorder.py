"""Room 9: exactly one record for each answered assignment, written before the reply leaves (with `durability: async` soon after).

A turn's tickets become one block per endpoint and model: the rows of inputs and outputs are the run's own arrays, so a record
costs one small tuple (1.6 µs with its share of the encode and the write, `loadtests/micro.py`).
"""

import hmac
from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Final, NamedTuple

import msgspec
import numpy as np

from gateway.live import ServedEndpoint
from gateway.privacy import LookupColumns, keyed_hashes, looked_up, sensitive_block
from gateway.spool.segment import SegmentWriter, SpoolFull
from gateway.telemetry.sizes import size_class
from gateway.ticket import Batch, Ticket
from models.batching import gather
from models.signature import TensorSpec
from models.tensors import Array, size_bytes
from routing.records import Column, MetricBlock
from routing.traffic import MIRRORED_HEADER, Record

_ENCODER: Final = msgspec.msgpack.Encoder()
_TAG_PREDICTIONS: Final = "p"
_TAG_MIRROR: Final = "m"
_UNIT_HASHES_MAX: Final = 16_384


class Written(NamedTuple):
    """What became of some records: in the segment, or not."""

    recorded: int
    failed: int


class Pending:
    """Encoded blocks that are not in their segment yet, and how many records each holds."""

    __slots__ = ("_payloads", "_records", "_writer", "size_bytes")

    def __init__(self, writer: SegmentWriter) -> None:
        self._writer = writer
        self._payloads: list[bytes] = []
        self._records: list[int] = []
        self.size_bytes = 0

    def add(self, payload: bytes, records: int) -> None:
        self._payloads.append(payload)
        self._records.append(records)
        self.size_bytes += len(payload)

    def write(self) -> Written:
        """Writes all of it in one go; what cannot be written is given up."""
        payloads, records = self._payloads, self._records
        self._payloads, self._records, self.size_bytes = [], [], 0
        if not payloads:
            return Written(0, 0)
        before = self._writer.sequence
        try:
            self._writer.append(payloads)
        except (SpoolFull, OSError):
            whole = self._writer.sequence - before  # what was written before the disk ended will be read
            return Written(sum(records[:whole]), sum(records[whole:]))
        return Written(sum(records), 0)


class Recorder:
    """Writes prediction, mirror and metric blocks of one worker. Belongs to the event loop.

    `records` is the spool segment of most, `mirrors` the second, bounded one for rows drawn for mirrors, `synced` the segment of
    routes with `durability: disk` (its sync is the data plane's to call). Those of `durability: async` go to `records`, later.
    """

    def __init__(self, records: SegmentWriter, mirrors: SegmentWriter, synced: SegmentWriter, unit_key: bytes) -> None:
        self._records = records
        self._mirrors = mirrors
        self._synced = synced
        self._unit_key = unit_key
        self._unit_hashes: dict[bytes, str] = {}
        self._pending = {"process": Pending(records), "disk": Pending(synced), "async": Pending(records)}
        self._pending_mirror: list[bytes] = []
        self._drawn: list[tuple[ServedEndpoint, list[int]]] = []
        self.mirror_overflow: dict[tuple[str, str, str], int] = {}
        """By endpoint, mirror and size class, drawn requests whose rows could not be written; the caller counts and clears."""
        self.inputs_too_large: dict[str, int] = {}
        """By endpoint, requests whose inputs were left out for their size; the caller counts and clears."""
        self.sampled_out = 0
        """Requests that the route's `record.sample` left out; the caller counts and resets."""

    def add(self, batch: Batch, tickets: list[Ticket], offset_us: int, now_ns: int) -> None:
        """Encodes the finished `tickets` of one endpoint out of `batch`; `offset_us` turns monotonic into wall-clock microseconds."""
        endpoint = tickets[0].endpoint
        record = endpoint.route.record
        kept = tickets
        if record.sample < 1.0:
            kept = [ticket for ticket in tickets if _is_sampled(ticket, record.sample)] if record.sample else []
        self.sampled_out += len(tickets) - len(kept)
        if kept:
            self._pending[record.durability].add(self._block(endpoint, batch, kept, offset_us, now_ns), len(kept))
        if endpoint.mirror_names and batch.outputs is not None:
            drawn = [ticket for ticket in tickets if ticket.mirrors]
            if drawn:
                self._pending_mirror.append(self._mirror_block(endpoint, batch, drawn, offset_us, now_ns))
                self._drawn.append((endpoint, [ticket.mirrors for ticket in drawn]))

    def flush(self) -> Mapping[str, Written]:
        """Writes what `add` encoded, but for `durability: async`; answers what became of it by durability.

        Mirror rows that could not be written are counted.
        """
        if self._pending_mirror:
            before = self._mirrors.sequence
            try:
                self._mirrors.append(self._pending_mirror)
            except (SpoolFull, OSError):
                # What was written before the disk ended will be read: only the rest is lost.
                written = self._mirrors.sequence - before
                self._count_overflow(self._drawn[written:], self._pending_mirror[written:])
            self._pending_mirror, self._drawn = [], []
        return {durability: self._pending[durability].write() for durability in ("process", "disk")}

    @property
    def late_bytes(self) -> int:
        """Records of `durability: async` that a kill of this process would lose now."""
        return self._pending["async"].size_bytes

    def flush_late(self) -> Written:
        """Writes the records of `durability: async`."""
        return self._pending["async"].write()

    def _count_overflow(self, lost: list[tuple[ServedEndpoint, list[int]]], frames: list[bytes]) -> None:
        for (endpoint, masks), frame in zip(lost, frames, strict=True):
            size = size_class(len(frame) // len(masks))
            for bit, name in enumerate(endpoint.mirror_names):
                key = (endpoint.name, name, size)
                count = sum(mask >> bit & 1 for mask in masks)
                self.mirror_overflow[key] = self.mirror_overflow.get(key, 0) + count

    def write_minutes(self, block: MetricBlock) -> None:
        """Writes the closed minutes; raises SpoolFull or OSError."""
        self._records.append([_ENCODER.encode(block)])

    def sync(self) -> None:
        """Makes the synced segment durable. Blocks: runs on the sync thread."""
        self._synced.sync()

    def close(self) -> None:
        """Closes all segments."""
        for writer in (self._records, self._mirrors, self._synced):
            writer.close()

    def _block(
        self, endpoint: ServedEndpoint, batch: Batch, tickets: list[Ticket], offset_us: int, now_ns: int
    ) -> bytes:
        record = endpoint.route.record
        inputs = self._declared_inputs(endpoint, batch, tickets)
        digests = None
        size = sum(map(size_bytes, inputs))
        if record.inputs == "hash" or size > record.inputs_bytes_max * len(tickets):
            if record.inputs == "full":
                self.inputs_too_large[endpoint.name] = self.inputs_too_large.get(endpoint.name, 0) + len(tickets)
            digests = [_digest(ticket, endpoint) for ticket in tickets]
        is_kept = digests is None and record.inputs == "full"
        columns = [
            self._column(spec, array, record, is_kept=is_kept)
            for spec, array in zip(endpoint.signature.inputs, inputs, strict=True)
        ]
        if record.sensitive and is_kept:
            apart = sensitive_block(endpoint, tickets, inputs, offset_us)
            if apart is not None:
                self._pending[record.durability].add(apart, 0)
        lookups: LookupColumns | tuple[()] = ()
        if endpoint.features is not None:
            lookups = looked_up(endpoint.features, tickets, record, self._unit_key, is_kept=is_kept)
        staged = batch.model.staged
        return _ENCODER.encode(
            (
                _TAG_PREDICTIONS,
                endpoint.name,
                endpoint.revision,
                endpoint.variant_names,
                staged.key.name,
                staged.key.version,
                staged.digest,
                self._rows(batch, tickets, record, offset_us, now_ns),
                columns,
                self._outputs(batch, tickets),
                digests,
                None,
                *lookups,
            )
        )

    def _mirror_block(
        self, endpoint: ServedEndpoint, batch: Batch, tickets: list[Ticket], offset_us: int, now_ns: int
    ) -> bytes:
        staged = batch.model.staged
        inputs = self._declared_inputs(endpoint, batch, tickets)
        return _ENCODER.encode(
            (
                _TAG_MIRROR,
                endpoint.name,
                endpoint.revision,
                endpoint.variant_names,
                staged.key.name,
                staged.key.version,
                endpoint.mirror_names,
                self._rows(batch, tickets, endpoint.route.record, offset_us, now_ns),
                [_plain_column(spec, array) for spec, array in zip(endpoint.signature.inputs, inputs, strict=True)],
                self._outputs(batch, tickets),
                _chains(tickets),
            )
        )

    def _rows(
        self, batch: Batch, tickets: list[Ticket], record: Record, offset_us: int, now_ns: int
    ) -> list[tuple[object, ...]]:
        """`routing.records.RequestRow`, field by field, as tuples: a third of a Struct's cost (a test compares the two)."""
        started_ns, rows = batch.started_ns or now_ns, batch.rows  # what never ran has waited until now
        compute_us = ((batch.finished_ns or now_ns) - started_ns) // 1000
        unit_text = bytes.decode if record.unit == "raw" else self._hashed
        return [
            (
                ticket.prediction_bytes,
                ticket.rows,
                offset_us + ticket.received_ns // 1000,
                ticket.arm.index,
                ticket.answered.index if ticket.error is None else -1,
                ticket.assigned_by,
                ticket.bucket,
                ticket.propensity,
                ticket.protocol,
                ticket.status,
                (started_ns - ticket.submitted_ns) // 1000,
                compute_us,
                (now_ns - ticket.received_ns) // 1000,
                rows,
                None if ticket.unit is None else unit_text(ticket.unit),
                ticket.unit_missing,
                ticket.request_id,
                ticket.rule,
                ticket.code,
                None if ticket.trace is None else ticket.trace.trace_id,
                ticket.mirrors,
                ticket.experiment,
            )
            for ticket in tickets
        ]

    def _hashed(self, unit: bytes) -> str:
        """The keyed hash of a unit, remembered: units that come once come again, and an HMAC is half of a record's cost."""
        known = self._unit_hashes.get(unit)
        if known is None:
            if len(self._unit_hashes) >= _UNIT_HASHES_MAX:
                self._unit_hashes.clear()
            known = self._unit_hashes[unit] = hmac.digest(self._unit_key, unit, "sha256")[:16].hex()
        return known

    def _declared_inputs(self, endpoint: ServedEndpoint, batch: Batch, tickets: list[Ticket]) -> list[Array]:
        """All declared inputs of `tickets`: the run's own arrays where the run had just these, else gathered again."""
        if tickets[0].answered.select is None and len(tickets) == len(batch.tickets) and batch.inputs:
            return batch.inputs
        return [
            gather([ticket.inputs[place] for ticket in tickets], spec)
            for place, spec in enumerate(endpoint.signature.inputs)
        ]

    def _outputs(self, batch: Batch, tickets: list[Ticket]) -> list[Column]:
        if batch.outputs is None:
            return []
        specs = batch.model.staged.signature.outputs
        if len(tickets) == len(batch.tickets):
            return [_plain_column(spec, array) for spec, array in zip(specs, batch.outputs, strict=True)]
        cut = [ticket.outputs() for ticket in tickets]
        return [_plain_column(spec, np.concatenate([part[i] for part in cut])) for i, spec in enumerate(specs)]

    def _column(self, spec: TensorSpec, array: Array, record: Record, *, is_kept: bool) -> Column:
        """An input as the route lets it be recorded: whole, not at all, or each value as a keyed hash."""
        rule = next((how for name, how in record.mask if name == spec.name), None)
        if not is_kept or rule == "drop" or spec.name in record.sensitive:
            return Column(spec.name, spec.datatype, array.shape[1:], None)
        if rule == "hmac":
            return Column(spec.name, "BYTES", array.shape[1:], keyed_hashes(self._unit_key, array.ravel().tolist()))
        return _plain_column(spec, array)


def _chains(tickets: list[Ticket]) -> list[str | None]:
    """What `MirrorBlock.chains` says; for callers' own requests, which most are, nothing."""
    chains = [ticket.headers.get(MIRRORED_HEADER) for ticket in tickets]
    return chains if any(chain is not None for chain in chains) else []


def _plain_column(spec: TensorSpec, array: Array) -> Column:
    data = array.ravel().tolist() if array.dtype == object else array.tobytes()
    return Column(spec.name, spec.datatype, array.shape[1:], data)


def _is_sampled(ticket: Ticket, share: float) -> bool:
    """A draw of its own, apart from split and mirrors, from the prediction id."""
    return int.from_bytes(blake2b(ticket.prediction_bytes, digest_size=4, person=b"record").digest(), "big") < share * (
        1 << 32
    )


def _digest(ticket: Ticket, endpoint: ServedEndpoint) -> str:
    """SHA-256 over a request's inputs: name, datatype, shape, then the values as recorded, each input in the declared order.

    Those that are masked or sensitive are left out: of a value with few possibilities a digest tells which it is.
    """
    record, digest = endpoint.route.record, sha256()
    hidden = {*dict(record.mask), *record.sensitive}
    for spec, part in zip(endpoint.signature.inputs, ticket.inputs, strict=True):
        if spec.name in hidden:
            continue
        array = gather([part], spec)
        digest.update(f"{spec.name}\0{spec.datatype}\0{list(array.shape)}\0".encode())
        digest.update(msgspec.msgpack.encode(array.ravel().tolist()) if array.dtype == object else array.tobytes())
    return digest.hexdigest()
