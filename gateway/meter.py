"""What the corridor counts: plain additions into the worker's counter page, and the closed minutes for the lake."""

import time
from collections.abc import Iterable
from typing import Final

from gateway.live import Arm, ServedEndpoint
from gateway.statistics import BatchStatistics, Duration, ModelStatistics
from gateway.telemetry.catalogue import DURATION_BOUNDS_S
from gateway.telemetry.counters import CounterPage, Histogram
from gateway.ticket import Batch, Ticket
from routing.records import PROTOCOLS, MetricBlock, MinuteRow

_BATCH_SIZES_MAX: Final = 256
_BOUNDS_US: Final = tuple(round(bound * 1e6) for bound in DURATION_BOUNDS_S)


class ArmSeries:
    """The slots of one arm for one protocol, looked up once."""

    __slots__ = ("batch_rows", "by_status", "compute", "duration", "errors", "labels", "page", "queue", "rows")

    def __init__(self, page: CounterPage, endpoint: ServedEndpoint, arm: Arm, protocol: int) -> None:
        key = arm.model.staged.key
        pair = {"endpoint": endpoint.name, "variant": arm.name}
        self.page = page
        self.labels = {**pair, "model": key.name, "version": key.version, "protocol": PROTOCOLS[protocol]}
        self.by_status: dict[int, int] = {}
        self.duration: Histogram = page.histogram("runoff_request_duration_seconds", self.labels)
        self.queue: Histogram = page.histogram("runoff_queue_duration_seconds", pair)
        self.compute: Histogram = page.histogram("runoff_compute_duration_seconds", {**pair, "role": "live"})
        self.batch_rows: Histogram = page.histogram("runoff_batch_rows", {**pair, "role": "live"})
        self.rows = 0
        self.errors = 0

    def slot(self, status: int) -> int:
        """The request counter's slot for a status."""
        slot = self.by_status.get(status)
        if slot is None:
            slot = self.page.counter("runoff_requests_total", {**self.labels, "code": str(status)})
            self.by_status[status] = slot
        return slot


class VersionCount:
    """What Triton's statistics extension wants of one version of one endpoint, in this worker. Times in nanoseconds."""

    __slots__ = (
        "batches",
        "compute_ns",
        "executions",
        "failed",
        "failed_ns",
        "last_unix_ms",
        "queue_ns",
        "rows",
        "run",
        "succeeded",
        "succeeded_ns",
    )

    def __init__(self) -> None:
        self.rows = self.executions = self.run = self.last_unix_ms = 0
        self.succeeded = self.succeeded_ns = self.failed = self.failed_ns = self.queue_ns = self.compute_ns = 0
        self.batches: dict[int, tuple[int, int]] = {}

    def add(self, batch: Batch, tickets: list[Ticket], total_ns: int, queue_ns: int, unix_ms: int) -> None:
        """Counts the answered `tickets` of `batch`, with the sums of their times."""
        count = len(tickets)
        if batch.outputs is None:
            self.failed += count
            self.failed_ns += total_ns
            return
        self.succeeded += count
        self.succeeded_ns += total_ns
        run_ns = batch.finished_ns - batch.started_ns
        self.run += count
        self.queue_ns += queue_ns
        self.compute_ns += run_ns * count
        self.rows += _rows(batch, tickets)
        self.executions += 1
        self.last_unix_ms = unix_ms
        if batch.rows in self.batches or len(self.batches) < _BATCH_SIZES_MAX:
            count, ns = self.batches.get(batch.rows, (0, 0))
            self.batches[batch.rows] = (count + 1, ns + run_ns)

    def statistics(self, endpoint: str, version: str) -> ModelStatistics:
        """In the protocol's form. Gathering inputs is part of the run, and encoding outputs part of the reply: both count as 0."""
        return ModelStatistics(
            endpoint=endpoint,
            version=version,
            last_inference_unix_ms=self.last_unix_ms,
            inference_count=self.rows,
            execution_count=self.executions,
            success=Duration(self.succeeded, self.succeeded_ns),
            fail=Duration(self.failed, self.failed_ns),
            queue=Duration(self.run, self.queue_ns),
            compute_infer=Duration(self.run, self.compute_ns),
            batches=tuple(
                BatchStatistics(batch_size=rows, compute_infer=Duration(count, ns))
                for rows, (count, ns) in sorted(self.batches.items())
            ),
        )


class Meter:
    """Counts for one worker. Belongs to the event loop.

    Minutes are the difference of the page between two minutes' ends, so that they cost nothing on a request's path.
    """

    def __init__(self, page: CounterPage) -> None:
        self.page = page
        self._assigned = page.counter("runoff_records_total", {"outcome": "assigned"})
        self._outcomes = {
            outcome: page.counter("runoff_records_total", {"outcome": outcome})
            for outcome in ("recorded", "sampled_out", "dropped", "failed")
        }
        self._series: dict[tuple[str, str, str, str, int], ArmSeries] = {}
        self._minute_base: dict[tuple[str, str, str, str, int], list[int]] = {}
        self._minute_unix_s = int(time.time()) // 60 * 60
        self._versions: dict[tuple[str, str], VersionCount] = {}

    def assigned(self, count: int) -> None:
        """So many requests were given a variant."""
        self.page.cells[self._assigned] += count

    def records(self, outcome: str, count: int) -> None:
        """How `count` assigned requests ended: recorded, sampled_out, dropped or failed."""
        self.page.cells[self._outcomes[outcome]] += count

    def refused(self, endpoint: str, reason: str) -> None:
        """One request was refused before a variant was assigned."""
        self.page.cells[self.page.counter("runoff_refused_total", {"endpoint": endpoint, "reason": reason})] += 1

    def count(self, name: str, labels: dict[str, str], amount: int = 1) -> None:
        """Adds to a counter that is not on the hot path."""
        self.page.cells[self.page.counter(name, labels)] += amount

    def finished(self, batch: Batch, tickets: list[Ticket], now_ns: int, unix_ms: int) -> None:
        """Counts the answered `tickets` of one endpoint out of `batch`."""
        started_ns = batch.started_ns
        total_ns = queue_ns = 0
        for series, of_series in self._by_series(tickets):
            count = len(of_series)
            first = of_series[0].status
            if batch.outputs is not None:
                self.page.cells[series.slot(first)] += count
            else:
                for ticket in of_series:
                    self.page.cells[series.slot(ticket.status)] += 1
                series.errors += count
            series.rows += _rows(batch, of_series)
            total_ns += series.duration.observe_since([ticket.received_ns for ticket in of_series], now_ns)
            if started_ns:
                queue_ns += series.queue.observe_since([ticket.submitted_ns for ticket in of_series], started_ns)
        key = (tickets[0].endpoint.name, batch.model.staged.key.version)
        version = self._versions.get(key)
        if version is None:
            version = self._versions[key] = VersionCount()
        version.add(batch, tickets, total_ns, queue_ns, unix_ms)
        if batch.finished_ns:
            series.compute.observe((batch.finished_ns - started_ns) // 1000)
            series.batch_rows.observe(batch.rows)

    def statistics(self, endpoint: str, version: str) -> ModelStatistics | None:
        """What this worker has counted; None when the version has not run yet."""
        counted = self._versions.get((endpoint, version))
        return None if counted is None else counted.statistics(endpoint, version)

    def close_minute(self, now_unix_s: float) -> MetricBlock | None:
        """The minute that has ended since the last call, None while it lasts or when nothing was asked in it."""
        minute = int(now_unix_s) // 60 * 60
        if minute == self._minute_unix_s:
            return None
        return self._cut(minute)

    def close_last(self, now_unix_s: float) -> MetricBlock | None:
        """What was counted since the last closed minute; for the end of the process."""
        return self._cut(int(now_unix_s) // 60 * 60)

    def _cut(self, minute: int) -> MetricBlock | None:
        merged: dict[tuple[str, str, str, str], MinuteRow] = {}
        for key, series in self._series.items():
            base = series.duration.base
            cells = list(self.page.cells[base : base + len(_BOUNDS_US) + 2])
            now = [*cells, series.rows, series.errors]
            before = self._minute_base.get(key, [0] * len(now))
            self._minute_base[key] = now
            *buckets, sum_us, rows, errors = (a - b for a, b in zip(now, before, strict=True))
            requests = sum(buckets)
            if not requests:
                continue
            endpoint, variant, model, version, _ = key
            have = merged.get(key[:4])
            merged[key[:4]] = MinuteRow(
                endpoint,
                variant,
                model,
                version,
                self._minute_unix_s,
                requests + (have.requests if have else 0),
                errors + (have.errors if have else 0),
                rows + (have.rows if have else 0),
                sum_us / 1e6 + (have.latency_sum_s if have else 0.0),
                [a + b for a, b in zip(buckets, have.latency_buckets, strict=True)] if have else buckets,
            )
        self._minute_unix_s = minute
        return MetricBlock(list(merged.values())) if merged else None

    def _by_series(self, tickets: list[Ticket]) -> Iterable[tuple[ArmSeries, list[Ticket]]]:
        """The tickets by arm and protocol; nearly always there is one of each."""
        arm, protocol = tickets[0].answered, tickets[0].protocol
        for ticket in tickets:
            if ticket.answered is not arm or ticket.protocol != protocol:
                break
        else:
            return ((self._series_of(tickets[0]), tickets),)
        groups: dict[ArmSeries, list[Ticket]] = {}
        for ticket in tickets:
            groups.setdefault(self._series_of(ticket), []).append(ticket)
        return groups.items()

    def _series_of(self, ticket: Ticket) -> ArmSeries:
        arm, protocol = ticket.answered, ticket.protocol
        known = arm.series.get(protocol)
        if type(known) is ArmSeries:
            return known
        staged = arm.model.staged.key
        key = (ticket.endpoint.name, arm.name, staged.name, staged.version, protocol)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = ArmSeries(self.page, ticket.endpoint, arm, protocol)
        arm.series[protocol] = series
        return series


def _rows(batch: Batch, tickets: list[Ticket]) -> int:
    """The rows of some tickets of a batch, added up only where they are not all of it."""
    if len(tickets) == len(batch.tickets):
        return batch.rows
    return sum(ticket.rows for ticket in tickets)
