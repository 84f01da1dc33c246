from contextlib import AbstractContextManager
from pathlib import Path

from gateway.shadow.suspects import QUARANTINE_S, STRIKES_MAX, WITHIN_S, Suspects

BAD, GOOD = "b" * 64, "a" * 64
unfinished: list[AbstractContextManager[None]] = []


def crash(folder: Path, at: float, *, running: str = BAD) -> None:
    """A life that ends in the middle of a run: the mark is never taken back."""
    mark = Suspects(folder, wall=lambda: at).mark("run", running)
    mark.__enter__()
    unfinished.append(mark)


def is_quarantined(folder: Path, at: float, digest: str = BAD) -> bool:
    return Suspects(folder, wall=lambda: at).is_quarantined(digest)


def test_a_candidate_that_ended_the_process_some_times_in_a_row_is_left_out(tmp_path: Path) -> None:
    for life in range(STRIKES_MAX):
        assert not is_quarantined(tmp_path, life)
        crash(tmp_path, life)

    assert is_quarantined(tmp_path, STRIKES_MAX)
    assert is_quarantined(tmp_path, STRIKES_MAX + 1)
    assert not is_quarantined(tmp_path, STRIKES_MAX, GOOD)


def test_it_gets_another_chance_after_a_while(tmp_path: Path) -> None:
    for life in range(STRIKES_MAX):
        crash(tmp_path, life)

    assert is_quarantined(tmp_path, 10)
    assert not is_quarantined(tmp_path, 10 + QUARANTINE_S + STRIKES_MAX)


def test_strikes_far_apart_are_chance(tmp_path: Path) -> None:
    for life in range(2 * STRIKES_MAX):
        crash(tmp_path, life * WITHIN_S)

    assert not is_quarantined(tmp_path, 2 * STRIKES_MAX * WITHIN_S)


def test_a_run_that_ends_leaves_no_mark(tmp_path: Path) -> None:
    for life in range(2 * STRIKES_MAX):
        suspects = Suspects(tmp_path, wall=lambda life=life: float(life))
        with suspects.mark("load", BAD), suspects.mark("run", GOOD):
            pass
    assert not is_quarantined(tmp_path, 10)
    assert not is_quarantined(tmp_path, 10, GOOD)
