from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.statistics import BatchStatistics, Duration, ModelStatistics, added

COUNTS = st.integers(0, 1 << 40)
DURATIONS = st.builds(Duration, COUNTS, COUNTS)
BATCHES = st.builds(
    BatchStatistics,
    batch_size=st.sampled_from([1, 2, 8]),
    compute_input=DURATIONS,
    compute_infer=DURATIONS,
    compute_output=DURATIONS,
)
ENTRIES = st.builds(
    ModelStatistics,
    endpoint=st.sampled_from(["a", "b"]),
    version=st.sampled_from(["1", "2"]),
    last_inference_unix_ms=COUNTS,
    inference_count=COUNTS,
    execution_count=COUNTS,
    success=DURATIONS,
    fail=DURATIONS,
    queue=DURATIONS,
    compute_input=DURATIONS,
    compute_infer=DURATIONS,
    compute_output=DURATIONS,
    batches=st.lists(BATCHES, max_size=3, unique_by=lambda batch: batch.batch_size).map(tuple),
    memory_bytes=COUNTS,
)
WANTED = [(endpoint, version) for endpoint in "ab" for version in "12"]


def test_what_has_not_run_is_zero_and_the_order_is_the_one_asked_for():
    ran = ModelStatistics(endpoint="a", version="1", inference_count=3)
    assert added([("b", "1"), ("a", "1")], [ran]) == [ModelStatistics(endpoint="b", version="1"), ran]


def test_what_nobody_asked_for_is_left_out():
    assert added([], [ModelStatistics(endpoint="a", version="1", inference_count=3)]) == []


def test_counts_and_times_add_up_and_the_last_inference_is_the_latest():
    early = ModelStatistics(
        endpoint="a", version="1", last_inference_unix_ms=5, success=Duration(1, 10), memory_bytes=100
    )
    late = ModelStatistics(
        endpoint="a", version="1", last_inference_unix_ms=9, success=Duration(2, 30), memory_bytes=100
    )
    (both,) = added([("a", "1")], [late, early])
    assert (both.last_inference_unix_ms, both.success, both.memory_bytes) == (9, Duration(3, 40), 200)


def test_batches_of_one_size_are_one_entry_in_order_of_size():
    def ran(*sizes):
        batches = tuple(BatchStatistics(batch_size=size, compute_infer=Duration(1, size)) for size in sizes)
        return ModelStatistics(endpoint="a", version="1", batches=batches)

    (both,) = added([("a", "1")], [ran(8, 1), ran(2, 8)])
    found = [(batch.batch_size, batch.compute_infer) for batch in both.batches]
    assert found == [(1, Duration(1, 1)), (2, Duration(1, 2)), (8, Duration(2, 16))]


@settings(max_examples=40, deadline=None)
@given(st.lists(ENTRIES, max_size=6), st.data())
def test_the_sum_does_not_depend_on_who_answers_first_nor_on_sums_of_sums(entries, data):
    total = added(WANTED, entries)
    assert added(WANTED, data.draw(st.permutations(entries))) == total
    cut = data.draw(st.integers(0, len(entries)))
    assert added(WANTED, [*added(WANTED, entries[:cut]), *added(WANTED, entries[cut:])]) == total
    assert sum(entry.inference_count for entry in total) == sum(entry.inference_count for entry in entries)
