"""A profile is this machine's own, kept by rename, and one that does not fit counts as not being there."""

from pathlib import Path

from models import profiles
from models.runtime.onnx import VERSION
from models.staged import Profile


def mine(**changes: object) -> Profile:
    given = {"processor": profiles.processor(), "onnxruntime": VERSION, "seconds_by_rows": {1: 1e-5, 8: 2e-5}} | changes
    return Profile(**given)  # type: ignore[arg-type]  # by name


def test_a_profile_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert profiles.read(tmp_path) is None
    assert profiles.stamp(tmp_path) == 0
    profiles.write(tmp_path, mine(rows_max=8))
    assert profiles.read(tmp_path) == mine(rows_max=8)
    assert profiles.stamp(tmp_path) > 0
    assert profiles.newest(tmp_path) == mine(rows_max=8)


def test_a_profile_of_another_machine_or_release_does_not_count(tmp_path: Path) -> None:
    for other in (mine(processor="another"), mine(onnxruntime="0.1"), mine(seconds_by_rows={})):
        profiles.write(tmp_path, other)
        assert profiles.read(tmp_path) is None


def test_a_damaged_profile_counts_as_none(tmp_path: Path) -> None:
    profiles.write(tmp_path, mine())
    profiles.path(tmp_path).write_bytes(b"{")
    assert profiles.read(tmp_path) is None


def test_a_profile_is_current_only_for_the_threads_it_was_measured_with() -> None:
    assert not profiles.is_current(None, 1)
    assert profiles.is_current(mine(threads_max=2), 2)
    assert not profiles.is_current(mine(threads_max=2), 1)


def test_threads_are_shared_out_over_the_workers() -> None:
    assert profiles.threads_share(10_000) == 1
    assert profiles.threads_share(1) >= 1
