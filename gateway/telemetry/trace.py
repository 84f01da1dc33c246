"""Traces: which requests are traced, and how their spans reach a collector. The room of opentelemetry.

Whether a request is traced is decided here before the SDK is touched: 1 µs a request, where a span of the SDK that is then not
sampled costs 22 µs (PERFORMANCE.md 3). The SDK is imported only when an endpoint is set, and exports on a thread of its own.
"""

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.telemetry.counters import CounterPage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

QUEUE_MAX: Final = 4_096
_BATCH_MAX: Final = 512
_EXPORT_S: Final = 5.0
_STATE_CHARACTERS_MAX: Final = 4_096
"""Of a longer `tracestate` nothing is passed on (W3C Trace Context, section 3.3.1.5, asks for at least 512)."""
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)

Attributes = Mapping[str, str | int | float | bool]


class Parent(NamedTuple):
    """A valid `traceparent`: 16 and 8 bytes, and the caller's sampled flag; and the `tracestate` beside it, unread."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool
    state: str = ""


class Trace(NamedTuple):
    """The decision for one request. `is_sampled` False: only the caller's trace id is kept, for the record."""

    trace_id: bytes
    parent: Parent | None
    is_sampled: bool


class Span(NamedTuple):
    """A piece of a request's life, wall clock."""

    name: str
    start_unix_ns: int
    end_unix_ns: int


def parse_traceparent(text: str) -> Parent | None:
    """W3C Trace Context, section 3.2; None where it must be ignored (malformed, zero ids, version ff, longer version 00)."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(bytes.fromhex(trace_id), bytes.fromhex(span_id), bool(int(flags, 16) & 1))


class Tracer:
    """Samples on the event loop; `record` hands finished spans to the exporter's thread through a bounded queue.

    Without an endpoint nothing is sampled, and callers' trace ids still reach the records.
    """

    def __init__(
        self,
        *,
        endpoint: str | None,
        sample_ratio: float,
        sampled_per_s_max: int,
        page: CounterPage,
        process: str = "worker",
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = sample_ratio
        self._per_s_max = sampled_per_s_max
        self._chance = chance
        self._clock = clock
        self._second = -1
        self._left = 0
        self._export = Export(endpoint, process, page) if endpoint else None
        self.is_on = self._export is not None
        """False: nothing is ever sampled, and a request without `traceparent` needs no call here at all."""

    def sample(self, traceparent: str | None, tracestate: str | None = None) -> Trace | None:
        """The decision for a request: the caller's flag holds, else our ratio, both up to `sampled_per_s_max`; None: no trace."""
        parent = parse_traceparent(traceparent) if traceparent else None
        if parent is not None:
            if tracestate and len(tracestate) <= _STATE_CHARACTERS_MAX:
                parent = parent._replace(state=tracestate)
            return Trace(parent.trace_id, parent, self.is_on and parent.is_sampled and self._take())
        if not self.is_on or self._chance() >= self._ratio or not self._take():
            return None
        return Trace(random.randbytes(16), None, is_sampled=True)

    def record(self, trace: Trace, spans: Sequence[Span], attributes: Attributes, error: str | None = None) -> None:
        """Exports a sampled request: the first span is the request itself, with the attributes; the others are its children."""
        if self._export is not None and trace.is_sampled:
            self._export.record(trace, spans, attributes, error)

    def close(self) -> None:
        """Exports what waits, for at most a few seconds. Blocks: call it from a thread, or at the very end."""
        if self._export is not None:
            self._export.close()

    def _take(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._left = second, self._per_s_max
        self._left -= 1
        return self._left >= 0


class Export:
    """The SDK side: finished spans → BatchSpanProcessor (own thread) → OTLP over HTTP."""

    def __init__(self, endpoint: str, process: str, page: CounterPage) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        url = endpoint if endpoint.endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
        self._resource = Resource(
            {"service.name": "runoff", "service.instance.id": page.writer, "runoff.process": process}
        )
        self._processor = BatchSpanProcessor(
            _counted(OTLPSpanExporter(endpoint=url, timeout=_EXPORT_S), page),
            max_queue_size=QUEUE_MAX,
            max_export_batch_size=_BATCH_MAX,
            schedule_delay_millis=1_000,
        )
        self._page = page
        self._queued = page.counter("runoff_spans_total", {"outcome": "queued"})

    def record(self, trace: Trace, spans: Sequence[Span], attributes: Attributes, error: str | None) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

        state = TraceState.from_header([trace.parent.state]) if trace.parent and trace.parent.state else None

        def context(span_id: int, *, is_remote: bool = False) -> SpanContext:
            return SpanContext(
                int.from_bytes(trace.trace_id), span_id, is_remote, TraceFlags(TraceFlags.SAMPLED), state
            )

        above = context(int.from_bytes(trace.parent.span_id), is_remote=True) if trace.parent else None
        root = context(_span_id())
        for place, span in enumerate(spans):
            is_root = place == 0
            self._processor.on_end(
                ReadableSpan(
                    span.name,
                    context=root if is_root else context(_span_id()),
                    parent=above if is_root else root,
                    resource=self._resource,
                    attributes=attributes if is_root else None,
                    kind=SpanKind.SERVER if is_root else SpanKind.INTERNAL,
                    status=Status(StatusCode.ERROR, error) if is_root and error else Status(StatusCode.UNSET),
                    start_time=span.start_unix_ns,
                    end_time=span.end_unix_ns,
                )
            )
        self._page.cells[self._queued] += len(spans)

    def close(self) -> None:
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK forgot to annotate it


def _span_id() -> int:
    return random.getrandbits(64) or 1


def _counted(exporter: "SpanExporter", page: CounterPage) -> "SpanExporter":
    """The exporter with its outcomes counted; what was queued and neither exported nor failed was dropped by the full queue."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    exported = page.counter("runoff_spans_total", {"outcome": "exported"})
    failed = page.counter("runoff_spans_total", {"outcome": "failed"})

    class Counted(SpanExporter):
        def export(self, spans: "Sequence[ReadableSpan]") -> SpanExportResult:
            result = exporter.export(spans)
            page.cells[exported if result is SpanExportResult.SUCCESS else failed] += len(spans)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Counted()
