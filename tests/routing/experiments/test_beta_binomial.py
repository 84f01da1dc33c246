import math

import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from routing.experiments.beta_binomial import log_beta_above, log_e_value, log_e_value_above

NULLS = [0.02, 0.1, 0.25, 0.4, 0.5, 0.7, 0.9]


def expected(e_value, rounds, share):
    """E of exp(log e) after `rounds` events with this share of wins, by enumeration of all counts."""
    return sum(
        math.comb(rounds, wins) * share**wins * (1 - share) ** (rounds - wins) * math.exp(e_value(wins, rounds - wins))
        for wins in range(rounds + 1)
    )


@pytest.mark.parametrize("p0", NULLS)
@pytest.mark.parametrize("rounds", [1, 2, 7, 20, 40])
def test_the_two_sided_e_value_has_the_mean_one_under_its_null(p0, rounds):
    assert expected(lambda w, l: log_e_value(w, l, p0=p0), rounds, p0) == pytest.approx(1, abs=1e-10)  # noqa: E741  wins, losses


@pytest.mark.parametrize("p0", NULLS)
@pytest.mark.parametrize("prior", [(1, 1), (10, 10), (2, 9)])
def test_the_one_sided_e_value_has_a_mean_of_at_most_one_under_every_share_up_to_its_null(p0, prior):
    a, b = prior
    for rounds in range(41):
        for fraction in (0.2, 0.5, 0.9, 1.0):
            mean = expected(lambda w, l: log_e_value_above(w, l, p0=p0, a=a, b=b), rounds, p0 * fraction)  # noqa: E741
            assert mean <= 1 + 1e-9


def test_the_one_sided_e_value_never_rises_in_the_mean_whatever_came_before():
    for p0 in (0.1, 0.5, 0.8):
        for wins in range(25):
            for losses in range(25):
                now = math.exp(log_e_value_above(wins, losses, p0=p0))
                won = math.exp(log_e_value_above(wins + 1, losses, p0=p0))
                lost = math.exp(log_e_value_above(wins, losses + 1, p0=p0))
                assert p0 * won + (1 - p0) * lost <= now * (1 + 1e-9)


@given(st.floats(0.3, 3000), st.floats(0.3, 3000), st.floats(0.001, 0.999))
def test_the_tail_of_the_beta_distribution_is_scipys(a, b, x):
    wanted = scipy.special.betaincc(a, b, x)

    if wanted > 1e-280:
        assert log_beta_above(x, a, b) == pytest.approx(math.log(wanted), rel=1e-9, abs=1e-11)


def test_the_tail_stays_finite_where_the_probability_vanishes():
    # The logarithm of 2^-n·(sum of binomials) in whole numbers, for P(Beta(10, 3000) > 1/2).
    exact = sum(math.comb(3009, k) for k in range(10))

    assert log_beta_above(0.5, 10, 3000) == pytest.approx(math.log(exact) - 3009 * math.log(2), rel=1e-12)


def test_evidence_is_symmetric_for_an_even_null():
    assert log_e_value(30, 12) == pytest.approx(log_e_value(12, 30))


def test_the_closed_form_is_the_product_of_predictions():
    log_e, wins = 0.0, 0
    for events, won in enumerate([True, True, False, True, False, True, True]):
        predicted = (10 + wins) / (20 + events)
        log_e += math.log((predicted if won else 1 - predicted) / 0.5)
        wins += won

    assert log_e_value(wins, 7 - wins) == pytest.approx(log_e)
