"""Spans of the requests that are sampled for tracing, from the instants that every ticket carries anyway."""

from gateway.telemetry.trace import Span, Tracer
from gateway.ticket import Batch, Ticket


def trace(tracer: Tracer, batch: Batch, tickets: list[Ticket], offset_us: int, now_ns: int) -> None:
    """Records those of the finished `tickets` of `batch` that are sampled; `offset_us` turns monotonic into wall-clock microseconds."""
    for ticket in tickets:
        if ticket.trace is None or not ticket.trace.is_sampled:
            continue
        started_ns, finished_ns = batch.started_ns or now_ns, batch.finished_ns or now_ns
        instants = (
            ("request", ticket.received_ns, now_ns),
            ("decode", ticket.received_ns, ticket.decoded_ns),
            ("route", ticket.decoded_ns, ticket.submitted_ns),
            ("queue", ticket.submitted_ns, started_ns),
            ("batch", started_ns, finished_ns),
            ("record", finished_ns, now_ns),
        )
        offset_ns = offset_us * 1000
        key = ticket.answered.model.staged.key
        tracer.record(
            ticket.trace,
            [Span(name, offset_ns + start, offset_ns + end) for name, start, end in instants],
            {
                "runoff.prediction_id": ticket.prediction_id,
                "runoff.endpoint": ticket.endpoint.name,
                "runoff.variant": ticket.answered.name,
                "runoff.model": key.name,
                "runoff.version": key.version,
                "runoff.revision": ticket.endpoint.revision,
                "runoff.batch_rows": batch.rows,
            },
            ticket.code,
        )
