import shutil

from gateway.telemetry.counters import CounterPage, page_files
from gateway.telemetry.retained import fold_dead, read_pages


def counted(folder, writer: str, **outcomes: int) -> CounterPage:
    page = CounterPage(folder, writer)
    for outcome, number in outcomes.items():
        page.cells[page.counter("runoff_records_total", {"outcome": outcome})] += number
    return page


def test_no_counter_goes_back_when_its_writer_is_gone(tmp_path):
    dead, living = counted(tmp_path, "worker-a", recorded=5), counted(tmp_path, "worker-b", recorded=2)
    dead.close()
    before = read_pages(tmp_path).value("runoff_records_total", outcome="recorded")
    fold_dead(tmp_path)
    assert before == read_pages(tmp_path).value("runoff_records_total", outcome="recorded") == 7
    assert [page.stem for page in page_files(tmp_path)] == ["counters-worker-b"]
    living.close()


def test_histograms_are_retained_and_gauges_vanish(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    page.histogram("runoff_queue_duration_seconds", {"endpoint": "e", "variant": "v"}).observe(1000)
    page.floats[page.gauge("runoff_inflight", {"endpoint": "e"})] = 3
    page.close()
    assert not read_pages(tmp_path).value("runoff_inflight", endpoint="e")
    fold_dead(tmp_path)
    totals = read_pages(tmp_path)
    assert not totals.value("runoff_inflight", endpoint="e")
    key = ("runoff_queue_duration_seconds", (("endpoint", "e"), ("variant", "v")))
    assert totals.series[key][-1] == 1000


def test_what_a_dead_worker_assigned_and_never_ended_is_published_as_loss(tmp_path):
    counted(tmp_path, "worker-a", assigned=10, recorded=6, sampled_out=1, dropped=1).close()
    counted(tmp_path, "worker-b", assigned=4, recorded=4).close()
    assert fold_dead(tmp_path) == {"worker-a": 2, "worker-b": 0}
    assert read_pages(tmp_path).value("runoff_records_total", outcome="lost") == 2


def test_the_living_are_not_folded(tmp_path):
    living = counted(tmp_path, "worker-a", assigned=3)
    assert fold_dead(tmp_path) == {}
    assert page_files(tmp_path)
    living.close()


def test_a_crash_between_sum_and_unlink_counts_nothing_twice(tmp_path):
    counted(tmp_path, "worker-a", recorded=5).close()
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in tmp_path.glob("counters-*"):
        shutil.copy(path, kept)
    fold_dead(tmp_path)
    for path in kept.iterdir():
        shutil.copy(path, tmp_path)
    assert read_pages(tmp_path).value("runoff_records_total", outcome="recorded") == 5
    assert fold_dead(tmp_path) == {}
    assert not page_files(tmp_path)
    assert read_pages(tmp_path).value("runoff_records_total", outcome="recorded") == 5


def test_totals_grow_over_many_generations(tmp_path):
    for generation in range(5):
        counted(tmp_path, f"worker-{generation}", recorded=1).close()
        fold_dead(tmp_path)
    assert read_pages(tmp_path).value("runoff_records_total", outcome="recorded") == 5


def test_a_spoiled_retained_file_begins_anew(tmp_path):
    (tmp_path / "retained.json").write_bytes(b"\0\0\0")
    assert not read_pages(tmp_path).series
