"""The search: from the plain setting one knob at a time, each duel side by side on the same rows, for as long as something can be won.

    curve of the plain setting ─▶ threads 2, 4, … ─▶ runs at once ─▶ arena off ─▶ fewer optimisations ─▶ int8 ─▶ curve of the winner

What is skipped, and why that loses nothing:

- a larger batch, once two doublings made a row no cheaper, or once a run takes longer than the target;
- more threads, once a doubling did not win on the widest batch within the target, and at all where even that takes less than 50 µs,
  which is less than waking a thread;
- more runs at once than threads are left, and a lower level of optimisation once the one above it did not win;
- whatever the time is over for: opening a large model may take longer than all runs together.

A challenger must win by 5%, twice: settings that cost more (threads) or do less (optimisation) are not taken for noise.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from heapq import nsmallest
from typing import Final, Protocol

import msgspec

from models.errors import ModelsError
from models.staged import Setting, Traffic, Trial

ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIN: Final = 0.95
"""A challenger's time for a row must be below this share of the incumbent's."""
NEAR: Final = 1.03
"""The smallest batch within 3% of the cheapest row is taken: it answers earlier."""
INLINE_S: Final = 1e-3
"""Workers run what is shorter than this on their event loop."""
_HANDOFF_S: Final = 100e-6
"""What handing a longer run to a thread costs (PERFORMANCE.md 6, rule 4)."""
_SPLIT_S: Final = 50e-6
_WIDE_S: Final = 0.02
_WATCH_S: Final = (0.02, 0.1)
"""How long one run is watched, at least and at most: a neighbour's burst lasts milliseconds, and slows every run in it alike."""
_SECOND_LOOK_S: Final = (0.1, 0.3)
_ROUNDS_MIN: Final = 8
_SETTLED: Final = 1.03


class Bench(Protocol):
    """Runs the model. Blocking; one caller."""

    def load(self, setting: Setting) -> float:
        """Opens a session; the seconds that took. Raises ModelsError when there is none with this setting."""

    def run(self, setting: Setting, rows: int) -> float:
        """Seconds of one run of `rows`, or of `setting.runs` such runs at once, until the last is done. Raises ModelsError."""

    def drop(self, setting: Setting) -> None:
        """Closes the session."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """`threads_max` is what all runs of a session together may have; `budget_s` ends the search, but not before one curve point."""

    target_s: float = 0.05
    threads_max: int = 1
    runs_max: int = 1
    budget_s: float = 4.0
    is_batched: bool = True
    int8: bool = False
    shares_weights: bool = False
    traffic: Traffic | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the search chose, and all that it measured on the way."""

    setting: Setting
    rows_max: int
    seconds_by_rows: dict[int, float]
    target_met: bool
    load_s: float
    trials: tuple[Trial, ...]
    skipped: tuple[str, ...]


class _Standing(msgspec.Struct, kw_only=True):
    """A setting with its curve so far. `rows` is its best batch."""

    setting: Setting
    curve: dict[int, float]
    rows: int
    load_s: float

    @property
    def row_s(self) -> float:
        return cost_s(self.curve[self.rows]) / self.rows / self.setting.runs

    def run_s(self, rows: int) -> float:
        """What a run of `rows` should take, from the best batch."""
        return self.curve[self.rows] * rows / self.rows


def cost_s(seconds: float) -> float:
    """What a run costs the gateway: its time, and the way to a thread and back where it is too long for the event loop."""
    return seconds if seconds <= INLINE_S else seconds + _HANDOFF_S


def search(bench: Bench, bounds: Bounds, clock: Callable[[], float] = time.perf_counter) -> Found:
    """Measures and chooses. Raises ModelsError when the model does not load or fails on its own samples."""
    return _Search(bench, bounds, clock).run()


class _Search:
    def __init__(self, bench: Bench, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._bench = bench
        self._bounds = bounds
        self._clock = clock
        self._ends = clock() + bounds.budget_s
        self._trials: list[Trial] = []
        self._skipped: list[str] = []

    def run(self) -> Found:
        best = self._stand(Setting(shares_weights=self._bounds.shares_weights))
        self._note(best)
        best = self._doubled(best, "threads", self._bounds.threads_max)
        best = self._doubled(best, "runs", min(self._bounds.runs_max, self._bounds.threads_max // best.setting.threads))
        best = self._challenge(best, _with(best, arena=False)) or best
        for level in ("extended", "basic"):
            challenger = self._challenge(best, _with(best, optimisation=level))
            if challenger is None:
                break
            best = challenger
        if self._bounds.int8:
            best = self._challenge(best, _with(best, form="int8")) or best
        self._look_again(best)
        self._add_recorded_rows(best)
        self._bench.drop(best.setting)
        return Found(
            setting=best.setting,
            rows_max=1 if best.setting.form == "int8" else best.rows,
            seconds_by_rows=dict(sorted(best.curve.items())),
            target_met=best.curve[best.rows] <= self._bounds.target_s,
            load_s=best.load_s,
            trials=tuple(self._trials),
            skipped=tuple(self._skipped),
        )

    # ── challengers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _doubled(self, best: _Standing, knob: str, most: int) -> _Standing:
        """Doubles threads or runs while that wins."""
        for count in _doublings(most):
            if best.run_s(self._widest(best)) < _SPLIT_S:
                self._skipped.append(f"{knob} {count}: a run takes less than {_SPLIT_S * 1e6:g} µs")
                return best
            challenger = self._challenge(best, _with(best, **{knob: count}))
            if challenger is None:
                return best
            best = challenger
        return best

    def _challenge(self, best: _Standing, setting: Setting) -> _Standing | None:
        """The challenger where it wins; the loser's session is closed."""
        what = _difference(best.setting, setting)
        if self._left_s < 2 * best.load_s + 4 * best.curve[best.rows]:
            self._skipped.append(f"{what}: no time left")
            return None
        try:
            load_s = self._bench.load(setting)
        except ModelsError as error:
            self._skipped.append(f"{what}: {error}")
            return None
        standing = _Standing(setting=setting, curve={}, rows=self._duel_rows(best, setting), load_s=load_s)
        has_won = self._wins(standing, best)
        if has_won:
            standing.curve |= self._curve(setting)
            if setting.form == "plain":
                standing.rows = _best_rows(standing.curve, self._bounds.target_s)
        if standing.curve:
            self._note(standing)
        if not has_won:
            self._bench.drop(setting)
            return None
        self._bench.drop(best.setting)
        return standing

    def _wins(self, challenger: _Standing, best: _Standing) -> bool:
        """Whether a row costs the challenger less by 5%, twice. Leaves what was measured in its curve."""
        for _ in range(2):
            try:
                seconds, best_s = self._side_by_side((challenger.setting, challenger.rows), (best.setting, best.rows))
            except ModelsError as error:
                self._skipped.append(f"{_difference(best.setting, challenger.setting)}: {error}")
                return False
            known = challenger.curve.get(challenger.rows, seconds)
            challenger.curve[challenger.rows] = min(known, seconds)
            is_late = seconds > self._bounds.target_s and best_s <= self._bounds.target_s
            if is_late or challenger.row_s > WIN * cost_s(best_s) / best.rows / best.setting.runs:
                return False
        return True

    def _duel_rows(self, best: _Standing, setting: Setting) -> int:
        """What the challenger runs: the incumbent's batch; the widest where rows are shared out; one request where none is shared."""
        if setting.form != best.setting.form:
            return self._bounds.traffic.rows_p50 if self._bounds.traffic else 1
        return self._widest(best) if setting.threads > best.setting.threads else best.rows

    def _widest(self, best: _Standing) -> int:
        """The largest batch that should be within the target: where threads gain most, if they gain at all."""
        within_s = min(self._bounds.target_s, _WIDE_S)
        wider = [rows for rows in ROWS if rows > best.rows and best.run_s(rows) <= within_s]
        return max(wider, default=best.rows) if self._bounds.is_batched else best.rows

    @property
    def _left_s(self) -> float:
        return self._ends - self._clock()

    def _note(self, standing: _Standing) -> None:
        self._trials.append(
            Trial(
                setting=standing.setting,
                rows=standing.rows,
                seconds=standing.curve[standing.rows],
                rows_per_s=1 / standing.row_s,
            )
        )

    # ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _stand(self, setting: Setting) -> _Standing:
        load_s = self._bench.load(setting)
        curve = self._curve(setting)
        return _Standing(setting=setting, curve=curve, rows=_best_rows(curve, self._bounds.target_s), load_s=load_s)

    def _curve(self, setting: Setting) -> dict[int, float]:
        """Seconds by rows. Ends after two doublings without gain, with the first run above the target, and with the time."""
        curve: dict[int, float] = {}
        best_row_s, idle = float("inf"), 0
        for rows in ROWS if self._bounds.is_batched else ROWS[:1]:
            if curve and self._left_s < 4 * max(curve.values()):
                self._skipped.append(f"{rows} rows and more: no time left")
                break
            (seconds,) = self._side_by_side((setting, rows))
            curve[rows] = seconds
            row_s = cost_s(seconds) / rows
            idle = 0 if row_s < WIN * best_row_s else idle + 1
            best_row_s = min(best_row_s, row_s)
            if idle == 2 or seconds > self._bounds.target_s:
                break
        return curve

    def _look_again(self, best: _Standing) -> None:
        """The winner's batch and what came near it, or may lie behind the end of its curve, longer and in turns.

        The curve was measured point by point, and a busy moment of the machine may have ended it early, or made one point dear.
        """
        if best.setting.form == "int8" or not self._bounds.is_batched:
            return
        near_s = 1.2 * cost_s(best.curve[best.rows]) / best.rows
        sizes = [
            rows
            for rows in ROWS
            if (rows <= 4 * best.rows and best.run_s(rows) <= self._bounds.target_s)
            and (rows >= best.rows // 2 or cost_s(best.curve[rows]) / rows <= near_s)
        ]
        while len(sizes) > 1 and self._left_s < 4 * sum(map(best.run_s, sizes)):
            self._skipped.append(f"{sizes.pop()} rows a second time: no time left")
        if len(sizes) > 1:
            again = self._side_by_side(*((best.setting, rows) for rows in sizes), watch_s=_SECOND_LOOK_S)
            best.curve |= dict(zip(sizes, again, strict=True))
            best.rows = _best_rows(best.curve, self._bounds.target_s)

    def _add_recorded_rows(self, best: _Standing) -> None:
        """Points at the sizes of recorded requests, so that what is predicted for them was measured."""
        traffic = self._bounds.traffic
        if traffic is None or not self._bounds.is_batched:
            return
        for rows in {traffic.rows_p50, traffic.rows_p95} - best.curve.keys():
            expected_s = max(best.curve.values()) * max(1.0, rows / max(best.curve))
            if self._left_s > 4 * expected_s:
                (best.curve[rows],) = self._side_by_side((best.setting, rows))
            else:
                self._skipped.append(f"{rows} rows, as recorded: no time left")

    def _side_by_side(self, *runs: tuple[Setting, int], watch_s: tuple[float, float] = _WATCH_S) -> list[float]:
        """The least seconds of each, run in turns, so that a slow moment of the machine meets all of them.

        Ends when the three best of each agree within 3%, but is given at least and at most `watch_s` for each.
        """
        least_s, most_s = (seconds * len(runs) for seconds in watch_s)
        began = self._clock()
        lowest = [
            [self._bench.run(*run)] for run in runs
        ]  # fills pages, arenas and caches; counts only where runs are long
        for rounds in itertools.count(1):
            for place, run in enumerate(runs):
                lowest[place] = nsmallest(3, [*lowest[place], self._bench.run(*run)])
            spent_s = self._clock() - began
            is_watched = rounds >= _ROUNDS_MIN and spent_s >= least_s
            is_settled = is_watched and all(times[-1] <= _SETTLED * times[0] for times in lowest)
            if is_settled or spent_s > min(most_s, max(self._left_s, 0.0)):
                break
        return [times[0] for times in lowest]


def _best_rows(curve: dict[int, float], target_s: float) -> int:
    """The smallest batch near the cheapest row, among those within the target; one row where none is."""
    within = {rows: cost_s(seconds) / rows for rows, seconds in curve.items() if seconds <= target_s}
    if not within:
        return min(curve)
    cheapest = min(within.values())
    return min(rows for rows, row_s in within.items() if row_s <= NEAR * cheapest)


def _doublings(most: int) -> Iterator[int]:
    """2, 4, 8, … and at last `most` itself."""
    count = 2
    while count < most:
        yield count
        count *= 2
    if most > 1:
        yield most


def _with(standing: _Standing, **changes: object) -> Setting:
    return msgspec.structs.replace(standing.setting, **changes)


def _difference(before: Setting, after: Setting) -> str:
    """What the challenger changes: `threads 2`, `arena off`."""
    changed = {name: value for name, value in msgspec.structs.asdict(after).items() if value != getattr(before, name)}
    return ", ".join(f"{name} {'off' if value is False else value}" for name, value in changed.items())
