"""The search on a bench of virtual time, whose costs are formulas: what it finds can be worked out, and what it spends counted."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from models.errors import ModelFailed, StagingRefused
from models.staged import Setting, Traffic
from models.tuning.search import ROWS, Bounds, Found, cost_s, search

Cost = Callable[[Setting, int], float]
PLAIN = Setting()


class VirtualBench:
    """Runs take what `cost` says, times what chance adds to one run in `noisy`; opening takes `load_s`."""

    def __init__(self, cost: Cost, *, load_s: float = 0.001, noise: float = 0.0) -> None:
        self.now = 0.0
        self.opened: list[Setting] = []
        self.open: set[Setting] = set()
        self.runs = 0
        self._cost = cost
        self._load_s = load_s
        self._noise = noise
        self._random = random.Random(1)

    def clock(self) -> float:
        return self.now

    def load(self, setting: Setting) -> float:
        self.now += self._load_s
        self.opened.append(setting)
        self.open.add(setting)
        return self._load_s

    def run(self, setting: Setting, rows: int) -> float:
        assert setting in self.open
        seconds = self._cost(setting, rows) * (1 + self._noise * self._random.expovariate(1))
        self.runs += 1
        self.now += seconds
        return seconds

    def drop(self, setting: Setting) -> None:
        self.open.discard(setting)


def find(cost: Cost, *, load_s: float = 0.001, noise: float = 0.0, **bounds: object) -> tuple[Found, VirtualBench]:
    bench = VirtualBench(cost, load_s=load_s, noise=noise)
    return search(bench, Bounds(**bounds), bench.clock), bench  # type: ignore[arg-type]


def linear(start_us: float, row_us: float) -> Cost:
    """A start and so much for each row; threads share the rows, runs at once cost nothing more."""
    return lambda setting, rows: (start_us + row_us * rows / setting.threads) / 1e6


def test_a_batch_grows_while_a_row_gets_cheaper_and_no_further() -> None:
    found, _ = find(linear(100, 1))
    assert found.rows_max == 256
    found, _ = find(lambda _, rows: 760e-6 * rows)
    assert found.rows_max == 1
    assert max(found.seconds_by_rows) == 4  # two doublings without gain end the curve


def test_the_smallest_batch_near_the_cheapest_row_is_taken() -> None:
    found, _ = find(lambda _, rows: (10 if rows < 4 else 1 if rows < 8 else 0.99) * rows * 1e-6)
    assert found.rows_max == 4


def test_no_batch_takes_longer_than_the_target() -> None:
    found, _ = find(linear(100, 100), target_s=0.001)
    assert (found.rows_max, found.target_met) == (8, True)


def test_a_target_that_one_row_misses_is_said_to_be_missed() -> None:
    found, _ = find(linear(0, 2000), target_s=0.001)
    assert (found.rows_max, found.target_met) == (1, False)


def test_a_batch_that_needs_a_thread_must_be_worth_the_way_there() -> None:
    """Rows cost 20 µs in batches of 32 on the loop and 19 µs in batches of 64 on a thread."""
    seconds = {1: 100e-6, 2: 110e-6, 4: 150e-6, 8: 240e-6, 16: 400e-6, 32: 640e-6, 64: 1216e-6, 128: 2500e-6, 256: 5e-3}
    found, _ = find(lambda _, rows: seconds[rows])
    assert found.rows_max == 32


def test_more_threads_are_taken_where_they_win_and_the_losers_are_closed() -> None:
    found, bench = find(linear(50, 100), threads_max=4)
    assert found.setting == Setting(threads=4)
    assert bench.open == set()
    found, bench = find(lambda setting, rows: rows * (98e-6 if setting.threads > 1 else 100e-6), threads_max=8)
    assert found.setting == PLAIN  # 2% is not worth a core
    assert Setting(threads=4) not in bench.opened


def test_all_threads_are_tried_where_their_number_is_no_power_of_two() -> None:
    found, _ = find(linear(50, 100), threads_max=6)
    assert found.setting.threads == 6


def test_threads_are_not_tried_for_runs_that_end_before_a_thread_wakes() -> None:
    found, bench = find(linear(6, 0.05), threads_max=4)
    assert all(setting.threads == 1 for setting in bench.opened)
    assert any(text.startswith("threads 2: a run takes less than") for text in found.skipped)


def test_runs_at_once_are_tried_where_threads_win_nothing_and_never_beyond_the_cores() -> None:
    def convolution(setting: Setting, rows: int) -> float:
        return 800e-6 * rows * (1.1 if setting.runs > 1 else 1.0)

    found, bench = find(convolution, threads_max=4, runs_max=4)
    assert found.setting == Setting(runs=4)
    assert all(setting.threads * setting.runs <= 4 for setting in bench.opened)
    found, bench = find(convolution, threads_max=4)
    assert all(setting.runs == 1 for setting in bench.opened)


@pytest.mark.parametrize(
    "better", [Setting(arena=False), Setting(optimisation="extended"), Setting(optimisation="basic")]
)
def test_arena_and_optimisation_are_taken_where_they_win(better: Setting) -> None:
    levels = ("all", "extended", "basic")

    def cost(setting: Setting, rows: int) -> float:
        gained = levels.index(setting.optimisation) if better.optimisation != "all" else 0
        gained = min(gained, levels.index(better.optimisation)) + (setting.arena == better.arena)
        return (100 + rows) * 1e-6 * 0.8**gained

    found, _ = find(cost)
    assert (found.setting.arena, found.setting.optimisation) == (better.arena, better.optimisation)


def test_a_level_is_not_tried_below_one_that_did_not_win() -> None:
    _, bench = find(linear(100, 5))
    assert "basic" not in {setting.optimisation for setting in bench.opened}


def test_int8_is_tried_only_where_it_is_allowed_and_never_shares_a_run() -> None:
    def cost(setting: Setting, rows: int) -> float:
        return (40 + 50 * rows) * 1e-6 * (0.1 if setting.form == "int8" else 1.0)

    found, _ = find(cost, int8=True)
    assert (found.setting.form, found.rows_max) == ("int8", 1)
    assert max(found.seconds_by_rows) > 1  # a caller's own rows may be many
    _, bench = find(cost)
    assert all(setting.form == "plain" for setting in bench.opened)


def test_int8_must_beat_whole_batches_of_the_plain_form() -> None:
    found, _ = find(
        lambda setting, rows: (340 + 20 * rows) * 1e-6 * (0.3 if setting.form == "int8" else 1.0), int8=True
    )
    assert found.setting.form == "plain"


def test_a_challenger_that_cannot_be_opened_is_named_and_nothing_else_is_lost() -> None:
    class NoTwin(VirtualBench):
        def load(self, setting: Setting) -> float:
            if setting.form == "int8":
                raise StagingRefused("int8_refused", "the model has no weights that can be quantised")
            return super().load(setting)

    bench = NoTwin(linear(100, 5))
    found = search(bench, Bounds(int8=True), bench.clock)
    assert found.setting == PLAIN
    assert found.skipped[-1] == "form int8: the model has no weights that can be quantised"


def test_a_model_that_fails_on_its_own_rows_has_no_profile() -> None:
    def fail(_: Setting, __: int) -> float:
        raise ModelFailed("the model failed on this input")

    with pytest.raises(ModelFailed):
        find(fail)


def test_a_large_model_costs_the_budget_and_says_what_it_left_out() -> None:
    found, bench = find(linear(0, 1_000_000), load_s=3.0, threads_max=8, target_s=10.0, budget_s=4.0)
    assert bench.opened == [PLAIN]
    assert found.seconds_by_rows == {1: pytest.approx(1.0)}
    assert {text.partition(":")[2] for text in found.skipped} == {" no time left"}
    assert bench.now < 3.0 + 4.0


def test_a_model_with_fixed_rows_has_one_point() -> None:
    found, _ = find(linear(100, 5), is_batched=False)
    assert (found.rows_max, list(found.seconds_by_rows)) == (1, [1])


def test_the_sizes_of_recorded_requests_are_points_of_the_curve() -> None:
    traffic = Traffic(endpoint="e", requests=100, rows_p50=3, rows_p95=700, rows_max=5000)
    found, _ = find(linear(100, 1), traffic=traffic)
    assert {3, 700} <= found.seconds_by_rows.keys()
    assert found.rows_max == 256


def test_every_trial_is_told_beside_the_plain_setting() -> None:
    found, _ = find(linear(50, 100), threads_max=2)
    assert [trial.setting.threads for trial in found.trials][:2] == [1, 2]
    assert found.trials[0].setting == PLAIN
    assert found.trials[1].rows_per_s > found.trials[0].rows_per_s


@hypothesis(max_examples=40, deadline=None)
@given(
    start_us=st.floats(1, 2000),
    rows_us=st.one_of(st.tuples(st.just(1), st.floats(0.01, 2000)), st.tuples(st.just(2), st.floats(5, 2000))),
    thread_us=st.floats(25, 200),
    arena=st.floats(0.8, 1.25),
    level=st.floats(0.8, 1.25),
    noise=st.sampled_from([0.0, 0.05]),
)
def test_what_is_found_is_within_a_tenth_of_the_best_of_everything(
    start_us: float, rows_us: tuple[int, float], thread_us: float, arena: float, level: float, noise: float
) -> None:
    """Two margins of 5% may add up: one for a setting that does not win by enough, one for the batch and for noise.

    With more than one thread rows cost something: what runs end before a thread wakes are not searched.
    """
    threads_max, row_us = rows_us

    def cost(setting: Setting, rows: int) -> float:
        seconds = (start_us + row_us * rows / setting.threads + thread_us * (setting.threads - 1)) / 1e6
        return seconds * (1.0 if setting.arena else arena) * (1.0 if setting.optimisation == "all" else level)

    def rows_per_s(setting: Setting, rows: int) -> float:
        return rows / cost_s(cost(setting, rows))

    found, _ = find(cost, threads_max=threads_max, noise=noise, budget_s=30.0)
    best = max(
        rows_per_s(Setting(threads=threads, arena=has_arena, optimisation=of), rows)
        for threads in range(1, threads_max + 1)
        for has_arena in (True, False)
        for of in ("all", "extended")
        for rows in ROWS
        if cost(Setting(threads=threads, arena=has_arena, optimisation=of), rows) <= 0.05 or rows == 1
    )
    assert rows_per_s(found.setting, found.rows_max) >= 0.9 * best
