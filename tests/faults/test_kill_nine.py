"""Workers die at random instants, again and again, while every durability is asked for. `loadtests/kill9.py` is the long form."""

import pytest

from gateway.processes.backoff import FAILURES_MAX
from loadtests.kill9 import run

pytestmark = [pytest.mark.faults, pytest.mark.slow]

KILLS = FAILURES_MAX - 1
"""More of them, one soon after the other, count as a worker that cannot be brought back; to wait for each to recover takes a minute."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [9, 10])
def test_kills_at_random_lose_no_answered_record_but_the_window_of_async_and_double_none(tmp_path, seed):
    outcome = run(tmp_path, times=KILLS, seed=seed, up_s=(0.3, 2.0))
    print(f"\n{outcome}")
    assert (outcome.lost["process"], outcome.lost["disk"], outcome.doubled) == (0, 0, 0)
    assert min(outcome.answered.values()) > 100
    assert outcome.lost["async"] <= outcome.counted_lost, "what async lost is counted"
