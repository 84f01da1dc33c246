"""The spans of a request: one after the other without a gap, also for a run that nobody stayed for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.spans import trace
from gateway.telemetry.trace import Span, Trace
from gateway.ticket import Batch, Ticket
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

OFFSET_US = 1_000


class Export:
    """The tracer's own seam: what is recorded, in a list."""

    def __init__(self) -> None:
        self.recorded: list[tuple[Trace, Sequence[Span], Any, str | None]] = []

    def record(self, trace: Trace, spans: Sequence[Span], attributes: Any, error: str | None = None) -> None:
        self.recorded.append((trace, spans, attributes, error))


def ticket_of(plane: Plane, made: Trace | None) -> Ticket:
    endpoint = plane.data.table.endpoint("line")
    ticket = Ticket(None, endpoint, [np.zeros((1, 2), np.float32)], 1, 0, received_ns=1_000_000)  # type: ignore[arg-type]
    ticket.decoded_ns, ticket.submitted_ns = 2_000_000, 3_000_000
    ticket.arm = ticket.answered = endpoint.champion
    ticket.prediction_id, ticket.trace = "an-id", made
    return ticket


@pytest.mark.parametrize(
    ("started_ns", "finished_ns", "wanted_us"),
    [
        (4_000_000, 6_000_000, [(1000, 9000), (1000, 2000), (2000, 3000), (3000, 4000), (4000, 6000), (6000, 9000)]),
        (4_000_000, 0, [(1000, 9000), (1000, 2000), (2000, 3000), (3000, 4000), (4000, 9000), (9000, 9000)]),
        (0, 0, [(1000, 9000), (1000, 2000), (2000, 3000), (3000, 9000), (9000, 9000), (9000, 9000)]),
    ],
    ids=["answered", "left while it ran", "never ran"],
)
async def test_spans_follow_each_other_from_arrival_to_record(
    tmp_path: Path, started_ns: int, finished_ns: int, wanted_us: list[tuple[int, int]]
) -> None:
    plane = Plane(tmp_path)
    plane.serve({"champion": stage_linear(plane.artifacts)})
    sampled, export = Trace(b"t" * 16, None, is_sampled=True), Export()
    tickets = [ticket_of(plane, made) for made in (sampled, None, Trace(b"u" * 16, None, is_sampled=False))]
    batch = Batch(tickets[0].answered.model, tickets, 3)
    batch.started_ns, batch.finished_ns = started_ns, finished_ns
    trace(export, batch, tickets, OFFSET_US, 9_000_000)  # type: ignore[arg-type]  # all it needs of a Tracer
    plane.close()
    ((made, spans, attributes, error),) = export.recorded
    assert (made, error) == (sampled, None)
    assert [span.name for span in spans] == ["request", "decode", "route", "queue", "batch", "record"]
    starts_ends = [(span.start_unix_ns // 1000 - OFFSET_US, span.end_unix_ns // 1000 - OFFSET_US) for span in spans]
    assert starts_ends == wanted_us
    assert (attributes["runoff.prediction_id"], attributes["runoff.batch_rows"]) == ("an-id", 3)
