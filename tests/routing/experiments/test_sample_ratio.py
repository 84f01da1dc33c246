import itertools
import math

import numpy as np
import pytest

from routing.experiments.sample_ratio import SampleRatio, log_evidence
from routing.split import compile_split


def run(check, arms):
    for arm in arms:
        check = check.observe(int(arm))
    return check


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.6, 0.3, 0.1)])
@pytest.mark.parametrize("concentration", [1.0, 20.0, 1000.0])
def test_over_all_paths_of_a_sound_split_the_evidence_has_the_mean_one(shares, concentration):
    mean = 0.0
    for path in itertools.product(range(len(shares)), repeat=6):
        check = run(SampleRatio.start(shares, concentration), path)
        mean += math.prod(shares[arm] for arm in path) * math.exp(check.log_e)

    assert mean == pytest.approx(1, abs=1e-12)


def test_the_steps_multiply_to_the_closed_form():
    shares, arms = (0.7, 0.2, 0.1), [0, 0, 1, 2, 0, 1, 0, 0, 2, 1, 0]
    counts = [arms.count(arm) for arm in range(3)]

    assert log_evidence(counts, shares) == pytest.approx(run(SampleRatio.start(shares), arms).log_e, abs=1e-9)


def test_a_count_in_an_arm_without_a_share_is_proof():
    assert log_evidence([5, 1], [1.0, 0.0]) == math.inf
    assert log_evidence([5, 0], [1.0, 0.0]) == 0


def test_a_million_units_dealt_by_the_table_do_not_alarm_by_its_shares():
    split = compile_split("salt", [("champion", 90), ("challenger", 10)])
    arms = np.frombuffer(split.arms, np.uint8)[np.random.default_rng(5).integers(0, 65_536, 200_000)]

    assert not run(SampleRatio.start(split.shares), arms).is_violated()


def test_a_share_that_is_off_is_found():
    """10% asked, 12% got: about 3,170 units in the research."""
    arms = np.random.default_rng(3).random(12_000) < 0.12

    check = run(SampleRatio.start((0.9, 0.1)), arms)

    assert check.is_violated()


def test_one_unit_in_an_arm_without_a_share_is_proof():
    check = run(SampleRatio.start((1.0, 0.0)), [0, 0, 1])

    assert check.p_value == 0
    assert check.is_violated()
    assert run(check, [0, 0, 0]).is_violated()


def test_no_data_shows_nothing():
    assert SampleRatio.start((0.5, 0.5)).p_value == 1
    assert not SampleRatio.start((0.5, 0.5)).is_violated()


def test_under_another_table_the_evidence_so_far_is_kept_as_a_factor():
    first = run(SampleRatio.start((0.5, 0.5)), [0] * 30)

    second = run(first.under((0.9, 0.1)), [0, 1, 0])

    alone = run(SampleRatio.start((0.9, 0.1)), [0, 1, 0])
    assert second.log_e == pytest.approx(first.log_e + alone.log_e)
    assert second.counts == (2, 1)


def test_sound_splits_alarm_at_most_as_often_as_alpha_however_often_one_looks():
    """300 replicates of 3,000 units at α = 0.05: more than 24 alarms would have a probability below 0.01."""
    chance = np.random.default_rng(11)
    alarms = sum(
        run(SampleRatio.start((0.8, 0.2), 50.0), chance.random(3000) < 0.2).is_violated(0.05) for _ in range(300)
    )

    assert alarms <= 24
