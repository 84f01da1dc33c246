import itertools
import math
import random

import pytest

from routing.experiments.betting import WARM_UP, Capital, LossTest
from routing.experiments.mcnemar import Verdict


def mean_capital(shares, steps, margin=0.0):
    """The exact expectation of K over all paths of `steps` draws of `shares` (difference → probability)."""
    found = 0.0
    for path in itertools.product(shares.items(), repeat=steps):
        state, probability = Capital(margin=margin), 1.0
        for difference, share in path:
            state, probability = state.observe(difference), probability * share
        found += probability * math.exp(state.log_k)
    return found


@pytest.mark.parametrize(
    ("shares", "margin"),
    [
        ({-1.0: 0.5, 1.0: 0.5}, 0.0),
        ({-0.2: 0.8, 0.8: 0.2}, 0.0),
        ({-1.0: 0.1, 0.0: 0.7, 0.5: 0.2}, 0.0),
        ({-1.0: 0.55, 1.0: 0.45}, 0.1),
    ],
)
def test_at_the_null_the_capital_is_one_in_the_mean(shares, margin):
    assert sum(difference * share for difference, share in shares.items()) == pytest.approx(-margin)
    assert mean_capital(shares, 8, margin) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shares", [{-1.0: 0.6, 1.0: 0.4}, {-0.5: 0.5, 0.4: 0.5}, {-1.0: 1.0}])
def test_below_the_null_it_is_less(shares):
    assert mean_capital(shares, 8) <= 1.0


def run(seed, rows, live, mirror, alpha=0.05):
    """Absolute errors of two models with normal noise of these widths; the last state and when the verdict came."""
    chance, state, decided = random.Random(seed), LossTest(alpha=alpha), None
    for row in range(rows):
        state = state.observe(champion_loss=abs(chance.gauss(0, live)), candidate_loss=abs(chance.gauss(0, mirror)))
        if decided is None and state.verdict is not Verdict.INCONCLUSIVE:
            decided = row
    return state, decided


def test_two_models_of_the_same_quality_are_told_apart_no_oftener_than_alpha_whenever_one_looks():
    wrong = sum(run(seed, 1500, 1.0, 1.0)[0].verdict is not Verdict.INCONCLUSIVE for seed in range(300))
    assert wrong <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_the_better_and_the_worse_are_found():
    assert run(1, 4000, 1.0, 0.8)[0].verdict is Verdict.BETTER
    assert run(1, 4000, 0.8, 1.0)[0].verdict is Verdict.WORSE


def test_a_verdict_once_reached_is_kept():
    state, decided = run(2, 3000, 1.0, 0.5)
    assert decided is not None
    for _ in range(500):
        state = state.observe(champion_loss=0.0, candidate_loss=3.0)
    assert state.verdict is Verdict.BETTER


def test_nothing_is_bet_until_the_scale_is_known_and_what_exceeds_it_counts_as_much():
    state = LossTest()
    for _ in range(WARM_UP):
        state = state.observe(champion_loss=2.0, candidate_loss=1.0)
    assert (state.scale, state.better.count, state.verdict) == (1.0, 0, Verdict.INCONCLUSIVE)
    state = state.observe(champion_loss=1e9, candidate_loss=0.0)
    assert (state.clipped, state.scale, state.better.total) == (1, 1.0, 1.0)


def test_models_that_never_differ_stay_inconclusive():
    state = LossTest()
    for _ in range(500):
        state = state.observe(champion_loss=1.0, candidate_loss=1.0)
    assert (state.verdict, state.scale, state.p_value) == (Verdict.INCONCLUSIVE, 0.0, 1.0)


def test_no_row_is_inconclusive():
    assert (LossTest().verdict, LossTest().log_e, LossTest().p_value) == (Verdict.INCONCLUSIVE, 0.0, 1.0)
