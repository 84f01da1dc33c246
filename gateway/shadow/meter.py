"""What the shadow process counts: outcomes by mirror, how far behind it is, how often a candidate agrees with production."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from gateway.shadow.draw import RECORDED, Job
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.sizes import size_class
from models.catalog import LoadedModel

_RECENT_ROWS: Final = 10_000
"""Agreement forgets: beyond so many rows both sums are halved."""


class Meter:
    """Belongs to the loop. Jobs are counted when they are in the spool, never before."""

    def __init__(self, page: CounterPage, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._page = page
        self._wall_us = wall_us
        self._agreement: dict[tuple[str, str], tuple[float, float]] = {}
        self._lags: set[int] = set()
        self._held: dict[int, float] = {}

    def count(self, job: Job) -> None:
        """Counts a job that was written."""
        page = self._page
        endpoint = job.draw.block.endpoint
        labels = {"endpoint": endpoint, "variant": job.mirror}
        outcomes = Counter(job.reasons.values())
        outcomes[RECORDED] += sum(len(answer.indexes) for answer in job.answers)
        for index, reason in job.reasons.items():
            dropped = labels | {"reason": reason, "size": size_class(job.draw.input_bytes(index))}
            page.cells[page.counter("runoff_mirror_dropped_total", dropped)] += 1
        for outcome, requests in outcomes.items():
            if requests:
                page.cells[page.counter("runoff_mirrored_total", labels | {"outcome": outcome})] += requests
        if not job.answers:
            return
        newest_us = max(job.draw.block.requests[answer.indexes[-1]].received_unix_us for answer in job.answers)
        slot = page.gauge("runoff_mirror_lag_seconds", labels)
        page.floats[slot] = max(0, self._wall_us() - newest_us) / 1e6
        self._lags.add(slot)
        role = labels | {"role": "mirror"}
        for answer in job.answers:
            if answer.leads_run:
                page.histogram("runoff_compute_duration_seconds", role).observe(answer.compute_us)
                page.histogram("runoff_batch_rows", role).observe(answer.batch_rows)
        self._count_agreement(job, labels)

    def idle(self) -> None:
        """Nothing waits: nobody lags."""
        for slot in self._lags:
            self._page.floats[slot] = 0.0
        self._lags.clear()

    def show(self, models: Iterable[LoadedModel], spool_bytes: int) -> None:
        """What is in memory and what waits in this process's spool, as of now."""
        gauge = self._page.gauge
        held = {}
        for model in models:
            labels = {"model": model.staged.key.name, "version": model.staged.key.version}
            profile = model.staged.profile
            size_bytes = profile.memory_bytes if profile is not None else 0
            held[gauge("runoff_model_state", {**labels, "state": "warm"})] = 1.0
            held[gauge("runoff_model_memory_bytes", labels)] = float(size_bytes or model.staged.size_bytes)
        for slot, value in (dict.fromkeys(self._held, float("nan")) | held).items():
            self._page.floats[slot] = value
        self._held = held
        self._page.floats[gauge("runoff_spool_bytes", {"spool": "shadow"})] = float(spool_bytes)

    def _count_agreement(self, job: Job, labels: dict[str, str]) -> None:
        draw = job.draw
        agreed = rows = 0
        for answer in job.answers:
            live = [
                label
                for index in answer.indexes
                for label in draw.live_labels[draw.starts[index] : draw.starts[index + 1]]
            ]
            pairs = [(a, b) for a, b in zip(answer.labels, live, strict=True) if a is not None and b is not None]
            rows += len(pairs)
            agreed += sum(a == b for a, b in pairs)
        if not rows:
            return
        key = (draw.block.endpoint, job.mirror)
        agreed_before, rows_before = self._agreement.get(key, (0.0, 0.0))
        share = 0.5 if rows_before > _RECENT_ROWS else 1.0
        self._agreement[key] = agreed_before * share + agreed, rows_before * share + rows
        agreed_now, rows_now = self._agreement[key]
        self._page.floats[self._page.gauge("runoff_mirror_agreement_ratio", labels)] = agreed_now / rows_now
