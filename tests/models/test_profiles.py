"""A profile counts for the machine that it was measured on, and a damaged one counts as none."""

from pathlib import Path

import msgspec
import pytest

from models import profiles
from models.runtime.onnx import VERSION
from models.staged import Ask, Profile, Setting


def made(**fields: object) -> Profile:
    plain = Profile(processor=profiles.processor(), onnxruntime=VERSION, seconds_by_rows={1: 1e-5})
    return msgspec.structs.replace(plain, **fields)


def test_what_is_written_is_read_on_the_same_machine(tmp_path: Path) -> None:
    profiles.write(tmp_path, made(rows_max=8))
    assert profiles.read(tmp_path) == made(rows_max=8)


def test_another_processor_or_onnxruntime_has_no_say(tmp_path: Path) -> None:
    for other in (made(processor="another"), made(onnxruntime="0.1"), made(seconds_by_rows={})):
        profiles.write(tmp_path, other)
        assert profiles.read(tmp_path) is None


def test_a_damaged_profile_is_none(tmp_path: Path) -> None:
    profiles.write(tmp_path, made())
    whole = profiles.path(tmp_path).read_bytes()
    for damaged in (b"{", whole.replace(VERSION.encode(), b"\xff"), b'{"skipped":' + b"[" * 100_000):
        profiles.path(tmp_path).write_bytes(damaged)
        assert profiles.read(tmp_path) is None
        assert profiles.newest(tmp_path) is None


@pytest.mark.parametrize(
    "wrong",
    [{"rows_max": 0}, {"setting": Setting(runs=0)}, {"setting": Setting(threads=-1)}]
    + [{"seconds_by_rows": curve} for curve in ({0: 1.0}, {-5: 1.0, 1: 1.0}, {1: -1.0}, {10**30: 1.0})],
    ids=repr,
)
def test_a_profile_with_numbers_that_can_be_no_ones_is_none(tmp_path: Path, wrong: dict[str, object]) -> None:
    profiles.write(tmp_path, made(**wrong))
    assert profiles.read(tmp_path) is None


def test_the_file_name_holds_processor_and_onnxruntime_and_no_separator(tmp_path: Path) -> None:
    name = profiles.path(tmp_path).name
    assert name.endswith(f"-{VERSION}.json")
    assert "/" not in name
    assert " " not in name


def test_a_profile_for_another_number_of_threads_is_not_current() -> None:
    assert profiles.is_current(made(threads_max=2), 2)
    assert not profiles.is_current(made(threads_max=2), 1)
    assert not profiles.is_current(None, 1)


def test_what_was_asked_for_on_another_machine_is_still_known(tmp_path: Path) -> None:
    profiles.write(tmp_path, made(tuned_at_unix=1.0))
    elsewhere = made(processor="another", ask=Ask(target_s=0.002, int8=True), tuned_at_unix=2.0)
    (tmp_path / profiles.FOLDER / "another-1.0.json").write_bytes(msgspec.json.encode(elsewhere))
    assert profiles.newest(tmp_path) == elsewhere


def test_a_stamp_is_nought_until_there_is_a_profile(tmp_path: Path) -> None:
    assert profiles.stamp(tmp_path) == 0
    profiles.write(tmp_path, made())
    assert profiles.stamp(tmp_path) > 0


def test_threads_are_shared_out_over_workers_and_never_below_one() -> None:
    cores = profiles.threads_share(1)
    assert profiles.threads_share(cores) == 1
    assert profiles.threads_share(cores * 4) == 1
