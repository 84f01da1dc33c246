"""What is counted for the statistics extension of the Open Inference Protocol, and the seam through which doors read it."""

from typing import Protocol

import msgspec


class Duration(msgspec.Struct, frozen=True):
    """How often something happened and how long it took in sum, in nanoseconds."""

    count: int = 0
    ns: int = 0


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one batch size."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one endpoint since this worker started.

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
    """Where the doors read statistics: the data plane's counters, and in tests the kit's."""

    def statistics(self, endpoint: str, version: str) -> ModelStatistics | None:
        """What this worker has counted; None when the version has not run yet."""
        ...
