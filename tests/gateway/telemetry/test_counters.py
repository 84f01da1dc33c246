import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.telemetry.catalogue import METRICS
from gateway.telemetry.counters import CounterPage, Totals, page_files, read_page
from gateway.telemetry.retained import read_pages

REQUEST = {"endpoint": "e", "variant": "v", "model": "m", "version": "1", "protocol": "v2-rest"}


def totals_of(folder: Path) -> Totals:
    return read_pages(folder)


def test_a_count_is_read_while_its_writer_lives(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    page.cells[page.counter("runoff_cancelled_total", {"endpoint": "e"})] += 3
    assert totals_of(tmp_path).value("runoff_cancelled_total", endpoint="e") == 3


def test_asking_again_gives_the_same_slot(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    first = page.counter("runoff_refused_total", {"endpoint": "e", "reason": "size"})
    assert page.counter("runoff_refused_total", {"reason": "size", "endpoint": "e"}) == first


def test_a_bucket_holds_its_upper_bound(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    histogram = page.histogram("runoff_request_duration_seconds", REQUEST)
    for value_us in (250, 251, 99_000_000):
        histogram.observe(value_us)
    values = totals_of(tmp_path).series["runoff_request_duration_seconds", tuple(REQUEST.items())]
    assert values[:2] == [1, 1]
    assert values[-2:] == [1, 250 + 251 + 99_000_000]


@pytest.mark.parametrize("instants_us", [[1_000], [900, 1_000, 950], [0, 1_000, 999_000, 500]])
def test_instants_are_counted_together_as_one_by_one(tmp_path, instants_us):
    page = CounterPage(tmp_path, "worker-a")
    together = page.histogram("runoff_queue_duration_seconds", {"endpoint": "e", "variant": "v"})
    single = page.histogram("runoff_queue_duration_seconds", {"endpoint": "e", "variant": "w"})
    total_ns = together.observe_since([1000 * instant for instant in instants_us], 1_000_000_000)
    for instant in instants_us:
        single.observe(1_000_000 - instant)
    assert total_ns == sum(1_000_000_000 - 1000 * instant for instant in instants_us)
    cells = len(together.bounds) + 2
    assert [*page.cells[together.base : together.base + cells]] == [*page.cells[single.base : single.base + cells]]


def test_plain_histograms_count_in_their_own_unit(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    rows = page.histogram("runoff_batch_rows", {"endpoint": "e", "variant": "v", "role": "live"})
    rows.observe(2)
    assert rows.bounds[:3] == (1, 2, 4)
    assert page.cells[rows.base + 1] == 1


def test_gauges_are_floats(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    page.floats[page.gauge("runoff_sink_lag_seconds", {"sink": "lake"})] = 1.25
    assert totals_of(tmp_path).value("runoff_sink_lag_seconds", sink="lake") == 1.25


def test_pages_of_several_writers_add_up_and_gauges_merge_as_the_catalogue_says(tmp_path):
    pages = []
    for writer, count, lag in (("worker-a", 2, 0.5), ("worker-b", 5, 0.25)):
        page = CounterPage(tmp_path, writer)
        page.cells[page.counter("runoff_cancelled_total", {"endpoint": "e"})] += count
        page.floats[page.gauge("runoff_sink_lag_seconds", {"sink": "lake"})] = lag
        page.floats[page.gauge("runoff_inflight", {"endpoint": "e"})] = count
        pages.append(page)  # kept open: closing a page makes its writer dead
    totals = totals_of(tmp_path)
    assert totals.value("runoff_cancelled_total", endpoint="e") == 7
    assert totals.value("runoff_sink_lag_seconds", sink="lake") == 0.5
    assert totals.value("runoff_inflight", endpoint="e") == 7


def test_series_above_the_bound_count_under_other_and_are_counted(tmp_path):
    page = CounterPage(tmp_path, "worker-a", series_max=3)
    for number in range(10):
        page.cells[page.counter("runoff_cancelled_total", {"endpoint": f"e{number}"})] += 1
    totals = totals_of(tmp_path)
    assert totals.value("runoff_cancelled_total", endpoint="e0") == 1
    assert totals.value("runoff_cancelled_total", endpoint="other") == 8
    assert totals.value("runoff_telemetry_series_overflow_total") == 8


def test_every_metric_finds_its_other_series_in_a_full_page(tmp_path):
    page = CounterPage(tmp_path, "worker-a", cells=2 * sum(metric.cells for metric in METRICS.values()))
    for number in range(1000):
        page.counter("runoff_cancelled_total", {"endpoint": f"e{number}"})
    for metric in METRICS.values():
        make = {"counter": page.counter, "gauge": page.gauge, "histogram": page.histogram}[metric.kind]
        make(metric.name, dict.fromkeys(metric.labels, "x"))


@pytest.mark.parametrize(
    ("name", "labels"),
    [("runoff_nonsense_total", {}), ("runoff_cancelled_total", {}), ("runoff_inflight", {"endpoint": "e"})],
)
def test_a_series_that_the_catalogue_does_not_know_is_our_mistake(tmp_path, name, labels):
    page = CounterPage(tmp_path, "worker-a")
    with pytest.raises(AssertionError, match=name):
        page.counter(name, labels)


def test_a_torn_last_line_of_a_sidecar_is_left_out(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    page.counter("runoff_cancelled_total", {"endpoint": "e"})
    with (tmp_path / "counters-worker-a.jsonl").open("ab") as sidecar:
        sidecar.write(b'{"name":"runoff_canc')
    names = [name for name, *_ in read_page(page_files(tmp_path)[0])]
    assert names == ["runoff_telemetry_series_overflow_total", "runoff_cancelled_total"]


def test_two_writers_of_one_name_are_refused(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    with pytest.raises(FileExistsError):
        CounterPage(tmp_path, page.writer)


def test_a_page_is_readable_by_its_owner_only(tmp_path):
    page = CounterPage(tmp_path / "run", "worker-a")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert modes == {0o600}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    page.close()


def test_counts_survive_kill_9(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert child.stdout.readline() == b"counted\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert totals_of(tmp_path).value("runoff_cancelled_total", endpoint="e") == 41


CHILD = """
import sys, time
from pathlib import Path
from gateway.telemetry.counters import CounterPage
page = CounterPage(Path(sys.argv[1]), "worker-killed")
page.cells[page.counter("runoff_cancelled_total", {"endpoint": "e"})] += 41
print("counted", flush=True)
time.sleep(60)
"""


def test_a_gauge_at_nan_is_off_the_scrape(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    page.floats[page.gauge("runoff_endpoint_ready", {"endpoint": "gone"})] = math.nan
    assert ("runoff_endpoint_ready", (("endpoint", "gone"),)) not in totals_of(tmp_path).series
