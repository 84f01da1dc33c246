from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.telemetry.catalogue import METRICS
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.retained import read_pages


def scrape(folder, accept: str = "") -> dict[str, float]:
    body, content_type = Exposition(lambda: read_pages(folder)).render(accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def test_times_are_seconds_and_buckets_are_cumulative(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    histogram = page.histogram("runoff_queue_duration_seconds", {"endpoint": "e", "variant": "v"})
    for value_us in (100, 400, 20_000_000):
        histogram.observe(value_us)
    rows = scrape(tmp_path)
    name = "runoff_queue_duration_seconds"
    assert rows[f"{name}_count[('endpoint', 'e'), ('variant', 'v')]"] == 3
    assert rows[f"{name}_sum[('endpoint', 'e'), ('variant', 'v')]"] == 20.0005
    assert rows[f"{name}_bucket[('endpoint', 'e'), ('le', '0.00025'), ('variant', 'v')]"] == 1
    assert rows[f"{name}_bucket[('endpoint', 'e'), ('le', '0.0005'), ('variant', 'v')]"] == 2
    assert rows[f"{name}_bucket[('endpoint', 'e'), ('le', '10.0'), ('variant', 'v')]"] == 2
    assert rows[f"{name}_bucket[('endpoint', 'e'), ('le', '+Inf'), ('variant', 'v')]"] == 3


def test_every_metric_of_the_catalogue_can_be_scraped_in_both_formats(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    for metric in METRICS.values():
        make = {"counter": page.counter, "gauge": page.gauge, "histogram": page.histogram}[metric.kind]
        make(metric.name, dict.fromkeys(metric.labels, 'odd"\n\\value'))
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        names = {row.partition("[")[0] for row in scrape(tmp_path, accept)}
        for metric in METRICS.values():
            assert (metric.name if metric.kind != "histogram" else f"{metric.name}_bucket") in names


def test_every_help_says_what_it_is_and_what_to_do():
    for metric in METRICS.values():
        assert len(metric.help) > 40, metric.name


def test_names_follow_the_rules_of_prometheus():
    for metric in METRICS.values():
        assert metric.name.startswith("runoff_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
