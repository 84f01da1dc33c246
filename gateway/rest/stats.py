"""Triton's statistics extension: the numbers it needs of the data plane, and the document it makes of them."""

from collections.abc import Sequence

from gateway.request import ModelView
from gateway.statistics import Duration, ModelStatistics, Statistics, added


async def gathered(
    statistics: Statistics | None, views: Sequence[ModelView], version: str | None = None
) -> list[ModelStatistics]:
    """One entry for each endpoint and warm version, with zeros where nothing ran or nobody counts."""
    wanted = [(view.endpoint, text) for view in views for text in view.versions if version is None or text == version]
    return added(wanted, ()) if statistics is None else await statistics.statistics(wanted)


def stats_document(entries: Sequence[ModelStatistics]) -> dict[str, object]:
    """Triton's JSON form."""
    return {"model_stats": [_entry(entry) for entry in entries]}


def _entry(entry: ModelStatistics) -> dict[str, object]:
    return {
        "name": entry.endpoint,
        "version": entry.version,
        "last_inference": entry.last_inference_unix_ms,
        "inference_count": entry.inference_count,
        "execution_count": entry.execution_count,
        "inference_stats": {
            "success": _duration(entry.success),
            "fail": _duration(entry.fail),
            "queue": _duration(entry.queue),
            "compute_input": _duration(entry.compute_input),
            "compute_infer": _duration(entry.compute_infer),
            "compute_output": _duration(entry.compute_output),
            "cache_hit": _duration(Duration()),
            "cache_miss": _duration(Duration()),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": batch.batch_size,
                "compute_input": _duration(batch.compute_input),
                "compute_infer": _duration(batch.compute_infer),
                "compute_output": _duration(batch.compute_output),
            }
            for batch in entry.batches
        ],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": entry.memory_bytes}] if entry.memory_bytes else [],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
