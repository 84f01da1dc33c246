import itertools
import math

import msgspec
import numpy as np
import pytest

from routing.experiments.mcnemar import McNemar, Verdict


def run(outcomes, test=None):
    """`+` only the candidate is right, `-` only the champion, `=` both."""
    test = test or McNemar()
    for outcome in outcomes:
        test = test.observe(champion_is_right=outcome != "+", candidate_is_right=outcome != "-")
    return test


def simulated(seed, win_share, discordance, rows, alpha=0.05):
    chance = np.random.default_rng(seed)
    discordant = chance.random(rows) < discordance
    won = chance.random(rows) < win_share
    test = McNemar(alpha=alpha)
    for row in range(rows):
        if discordant[row]:
            test = test.observe(champion_is_right=not won[row], candidate_is_right=bool(won[row]))
        if test.verdict is not Verdict.INCONCLUSIVE:
            return test.verdict, row + 1
    return test.verdict, rows


def test_no_data_is_no_verdict():
    assert McNemar().verdict is Verdict.INCONCLUSIVE
    assert McNemar().p_value == McNemar().p_better == McNemar().p_worse == 1
    assert McNemar().difference is None


def test_rows_that_both_or_neither_got_right_say_nothing():
    test = McNemar()
    for both in (True, False) * 500:
        test = test.observe(champion_is_right=both, candidate_is_right=both)

    assert (test.ties, test.rows, test.p_value, test.log_e) == (1000, 1000, 1, 0)
    assert test.verdict is Verdict.INCONCLUSIVE


def test_a_better_and_a_worse_candidate_are_told_apart():
    assert run("+" * 60).verdict is Verdict.BETTER
    assert run("-" * 60).verdict is Verdict.WORSE
    assert run("+-" * 300).verdict is Verdict.INCONCLUSIVE


def test_a_verdict_once_reached_is_kept():
    better = run("+" * 60)

    after = run("-" * 500, better)

    assert after.verdict is Verdict.BETTER
    assert after.p_better == better.p_better
    assert (after.wins, after.losses) == (60, 500)


def test_p_values_never_rise():
    test, before = McNemar(), 1.0
    for outcome in "+++-+++++-++-+++++++-+++++" * 4:
        test = run(outcome, test)
        assert test.p_value <= before
        before = test.p_value


def test_a_stored_state_goes_on_as_if_never_stopped():
    stored = msgspec.msgpack.encode(run("++-+=" * 20))

    assert run("+=-+" * 30, msgspec.msgpack.decode(stored, type=McNemar)) == run("++-+=" * 20 + "+=-+" * 30)


def test_champion_and_candidate_changed_places_change_the_verdicts_places():
    outcomes = "+-+++-++" * 30
    test, mirrored = run(outcomes), run(outcomes.translate(str.maketrans("+-", "-+")))

    assert test.log_better_max == mirrored.log_worse_max
    assert test.log_e_max == pytest.approx(mirrored.log_e_max)


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_over_all_paths_of_equals_a_false_verdict_is_no_likelier_than_alpha(alpha):
    """Exact: every one of the 2¹² equally likely paths, each looked at after every row."""
    wrong = 0
    for path in itertools.product("+-", repeat=12):
        wrong += run(path, McNemar(alpha=alpha, a=1, b=1)).verdict is not Verdict.INCONCLUSIVE

    assert 0 < wrong / 2**12 <= alpha


def test_equal_models_get_a_false_verdict_at_most_as_often_as_alpha_however_often_one_looks():
    """300 replicates of 4,000 rows at α = 0.05: more than 24 false verdicts would have a probability below 0.01."""
    verdicts = [simulated(seed, 0.5, 0.1, 4000)[0] for seed in range(300)]

    assert sum(verdict is not Verdict.INCONCLUSIVE for verdict in verdicts) <= 24


def test_a_real_difference_is_found_in_about_as_many_rows_as_the_research_says():
    """0.85 → 0.87 at 6% discordance (two wins in three): a mean of about 1,130 rows two-sided, some more with α shared half and half."""
    found = [simulated(seed, 2 / 3, 0.06, 20_000) for seed in range(60)]

    assert all(verdict is Verdict.BETTER for verdict, _ in found)
    assert 800 < np.mean([rows for _, rows in found]) < 1600


def test_the_two_sided_evidence_is_the_published_mixture():
    wins, losses = 40, 20
    wanted = (
        math.lgamma(50) + math.lgamma(30) - math.lgamma(80) - (2 * math.lgamma(10) - math.lgamma(20)) + 60 * math.log(2)
    )

    assert run("+" * wins + "-" * losses).log_e == pytest.approx(wanted)
