from gateway.rest.stats import gathered, stats_document
from gateway.statistics import BatchStatistics, Duration, ModelStatistics, added
from tests.kit.small_corridor import stocked_corridor


def counted(worker=1):
    return ModelStatistics(
        endpoint="phishing",
        version="3",
        last_inference_unix_ms=1000 + worker,
        inference_count=10,
        execution_count=4,
        success=Duration(10, 500),
        batches=(BatchStatistics(batch_size=8 * worker, compute_infer=Duration(1, 9)),),
        memory_bytes=77,
    )


class Counted:
    async def statistics(self, wanted):
        return added(wanted, [counted()])


async def test_what_never_ran_is_zero():
    view = stocked_corridor().view("phishing")
    entries = await gathered(Counted(), [view])
    assert [(one.version, one.inference_count) for one in entries] == [("3", 10), ("2", 0)]
    assert [one.version for one in await gathered(Counted(), [view], "2")] == ["2"]
    assert [one.inference_count for one in await gathered(None, [view])] == [0, 0]


async def test_the_document_has_tritons_fields():
    entry = stats_document(await gathered(Counted(), [stocked_corridor().view("phishing")]))["model_stats"][0]
    assert entry["inference_stats"]["success"] == {"count": 10, "ns": 500}
    assert entry["batch_stats"][0]["batch_size"] == 8
    assert entry["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 77}]
    assert set(entry["inference_stats"]) == {
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    }
