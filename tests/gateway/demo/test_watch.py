import pytest

from gateway.demo import watch
from gateway.demo.replay import Progress
from gateway.demo.watch import Evidence, Watcher
from runoff import Runoff

TEXT = """\
# HELP runoff_records_total records
# TYPE runoff_records_total counter
runoff_records_total{outcome="recorded"} 7.0
runoff_records_total{outcome="dropped"} 1.0
runoff_request_duration_seconds_bucket{endpoint="flights",le="0.001"} 90.0
runoff_request_duration_seconds_bucket{endpoint="flights",le="0.01"} 99.0
runoff_request_duration_seconds_bucket{endpoint="flights",le="+Inf"} 100.0
runoff_revision{endpoint="flights"} 3.0
runoff_up 1
"""


def test_samples_are_read_with_their_labels() -> None:
    samples = watch._samples(TEXT)
    assert watch._sum(samples, "runoff_records_total", outcome="recorded") == 7
    assert watch._sum(samples, "runoff_records_total") == 8
    assert ("runoff_up", {}, 1.0) in samples


def test_the_quantile_is_the_bound_that_holds_it() -> None:
    samples = watch._samples(TEXT)
    assert watch._quantile_ms(samples, 0.5) == pytest.approx(1.0)
    assert watch._quantile_ms(samples, 0.99) == pytest.approx(10.0)
    assert watch._quantile_ms([], 0.99) is None


def test_odds_are_the_inverse_of_the_p_value() -> None:
    assert Evidence(p_better=0.025).odds == pytest.approx(40.0)
    assert Evidence(p_better=0.0).odds == float("inf")


def test_a_gateway_that_does_not_answer_leaves_the_last_values() -> None:
    with Runoff("http://127.0.0.1:9", timeout_s=0.5) as client:
        watcher = Watcher(client, "http://127.0.0.1:9/metrics")
        watcher.sight.agreement = 0.9
        sight = watcher.see(Progress(asked=5, total=10))
        watcher.close()
    assert (sight.agreement, sight.progress.asked) == (0.9, 5)
