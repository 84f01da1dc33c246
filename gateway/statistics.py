"""What is counted for the statistics extension of the Open Inference Protocol, and the seam through which doors read it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

Wanted = Sequence[tuple[str, str]]
"""Endpoint and version of each entry that is wanted."""


class Duration(msgspec.Struct, frozen=True):
    """How often something happened and how long it took in sum, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(self.count + other.count, self.ns + other.ns)


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one batch size."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one endpoint, in one worker since it started or in all that live now.

    `inference_count` counts rows and `execution_count` runs, so that their ratio is the mean batch (Triton's definition).
    `queue` and the `compute_` ones count requests. `last_inference_unix_ms` is 0 when there was none.
    """

    endpoint: str
    version: str
    last_inference_unix_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    batches: tuple[BatchStatistics, ...] = ()
    memory_bytes: int = 0


class Statistics(Protocol):
    """Where the doors read statistics: those of all workers, and in tests the kit's."""

    async def statistics(self, wanted: Wanted) -> list[ModelStatistics]:
        """One entry for each that is wanted, in this order; zeros where nothing has run."""
        ...


def added(wanted: Wanted, entries: Iterable[ModelStatistics]) -> list[ModelStatistics]:
    """The entries of several workers added up, one for each that is wanted."""
    found: dict[tuple[str, str], list[ModelStatistics]] = defaultdict(list)
    for entry in entries:
        found[entry.endpoint, entry.version].append(entry)
    return [_sum(endpoint, version, found[endpoint, version]) for endpoint, version in wanted]


def _sum(endpoint: str, version: str, entries: Sequence[ModelStatistics]) -> ModelStatistics:
    batches: dict[int, list[BatchStatistics]] = defaultdict(list)
    for entry in entries:
        for batch in entry.batches:
            batches[batch.batch_size].append(batch)
    return ModelStatistics(
        endpoint=endpoint,
        version=version,
        last_inference_unix_ms=max((entry.last_inference_unix_ms for entry in entries), default=0),
        inference_count=sum(entry.inference_count for entry in entries),
        execution_count=sum(entry.execution_count for entry in entries),
        success=_total(entry.success for entry in entries),
        fail=_total(entry.fail for entry in entries),
        queue=_total(entry.queue for entry in entries),
        compute_input=_total(entry.compute_input for entry in entries),
        compute_infer=_total(entry.compute_infer for entry in entries),
        compute_output=_total(entry.compute_output for entry in entries),
        batches=tuple(
            BatchStatistics(
                batch_size=size,
                compute_input=_total(batch.compute_input for batch in alike),
                compute_infer=_total(batch.compute_infer for batch in alike),
                compute_output=_total(batch.compute_output for batch in alike),
            )
            for size, alike in sorted(batches.items())
        ),
        memory_bytes=sum(entry.memory_bytes for entry in entries),
    )


def _total(durations: Iterable[Duration]) -> Duration:
    return sum(durations, Duration())
