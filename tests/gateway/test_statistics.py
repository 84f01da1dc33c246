from gateway.statistics import BatchStatistics, Duration, ModelStatistics, added


def entry(rows, at, **batches):
    sizes = tuple(BatchStatistics(batch_size=int(n[1:]), compute_infer=Duration(1, ns)) for n, ns in batches.items())
    return ModelStatistics(
        endpoint="e",
        version="1",
        last_inference_unix_ms=at,
        inference_count=rows,
        execution_count=len(batches),
        success=Duration(rows, rows * 10),
        batches=sizes,
    )


def test_what_workers_counted_is_added_up_and_the_newest_instant_holds():
    (found,) = added([("e", "1")], [entry(3, 50, b1=5, b2=7), entry(4, 40, b2=9)])
    assert (found.inference_count, found.execution_count, found.last_inference_unix_ms) == (7, 3, 50)
    assert found.success == Duration(7, 70)
    assert [(one.batch_size, one.compute_infer) for one in found.batches] == [(1, Duration(1, 5)), (2, Duration(2, 16))]


def test_what_is_wanted_is_answered_in_its_order_with_zeros():
    found = added([("f", "2"), ("e", "1")], [entry(3, 50)])
    assert [(one.endpoint, one.version, one.inference_count) for one in found] == [("f", "2", 0), ("e", "1", 3)]
