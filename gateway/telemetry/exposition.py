"""What Prometheus scrapes: the merged counter pages in the formats that it accepts. The room of prometheus_client."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from gateway.telemetry.catalogue import METRICS, Metric
from gateway.telemetry.counters import Labels, Totals


class PageCollector(Collector):
    """Every metric of the catalogue that has at least one series, as families of prometheus_client."""

    def __init__(self, read: Callable[[], Totals]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        by_name: dict[str, list[tuple[Labels, list[float]]]] = {}
        for (name, labels), values in self._read().series.items():
            by_name.setdefault(name, []).append((labels, values))
        for name, metric in METRICS.items():
            if name in by_name:
                yield _family(metric, sorted(by_name[name]))


class Exposition:
    """Renders the scrape. Blocking: reads a page of 256 KiB a process."""

    def __init__(self, read: Callable[[], Totals]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PageCollector(read))

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body, and its content type, in the best format that the `Accept` header allows."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _family(metric: Metric, series: Iterable[tuple[Labels, list[float]]]) -> Family:
    match metric.kind:
        case "counter":
            counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, values in series:
                counter.add_metric(_values(labels), values[0] / metric.scale)
            return counter
        case "gauge":
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, values in series:
                gauge.add_metric(_values(labels), values[0])
            return gauge
        case "histogram":
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, (*counts, sum_) in series:
                histogram.add_metric(_values(labels), _cumulative(metric, counts), sum_ / metric.scale)
            return histogram


def _values(labels: Labels) -> list[str]:
    return [value for _, value in labels]


def _cumulative(metric: Metric, counts: list[float]) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them: each counts everything up to its bound."""
    rows, total = [], 0.0
    for bound, count in zip((*(str(bound) for bound in metric.bounds), "+Inf"), counts, strict=True):
        total += count
        rows.append((bound, total))
    return rows
