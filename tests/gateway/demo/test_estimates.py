import numpy as np
import pytest

from gateway.demo.estimates import difference, weighted, wilson


def test_the_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    estimate = wilson(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0.0, 0.1611)


def test_equal_weights_give_the_plain_mean_and_its_textbook_interval() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0])
    found = weighted(values, np.ones(4), np.array(list("abcd"), object)).interval()
    assert found.value == pytest.approx(0.75)
    assert found.high - found.value == pytest.approx(1.959964 * values.std() / 2)


def test_rows_of_one_unit_count_as_one_witness() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.0])
    apart = weighted(values, np.ones(4), np.array(list("abcd"), object)).interval()
    together = weighted(values, np.ones(4), np.array(list("aabb"), object)).interval()
    assert together.high - together.low > apart.high - apart.low


def test_weights_undo_a_split_that_favoured_one_part() -> None:
    # The arm saw all of the easy part and a tenth of the hard one.
    values = np.array([1.0] * 100 + [0.0] * 10)
    weights = np.array([1.0] * 100 + [10.0] * 10)
    units = np.arange(110).astype(object)
    assert weighted(values, weights, units).mean == pytest.approx(0.5)


def test_an_arm_does_not_differ_from_itself() -> None:
    random = np.random.default_rng(1)
    arm = weighted(random.random(50), np.ones(50), np.arange(50).astype(object))
    found = difference(arm, arm)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_interval_of_a_difference_holds_the_truth_in_nineteen_of_twenty() -> None:
    random = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        units = np.repeat(np.arange(100), 2).astype(object)
        shared = np.repeat(random.normal(0, 1, 100), 2)
        one = weighted(shared + random.normal(0.5, 1, 200), np.ones(200), units)
        other = weighted(shared + random.normal(0, 1, 200), np.ones(200), units)
        found = difference(one, other)
        held += found.low <= 0.5 <= found.high
    assert 0.92 <= held / 400 <= 0.98
