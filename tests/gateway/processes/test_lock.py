import os

import pytest

from gateway.processes.lock import StateLock, StateTaken


def test_a_second_gateway_on_one_state_directory_is_refused_by_name(tmp_path):
    held = StateLock(tmp_path / "var")
    with pytest.raises(StateTaken, match=r"another gateway \(process \d+\) runs on .*var; stop it"):
        StateLock(tmp_path / "var")
    held.close()
    StateLock(tmp_path / "var").close()


def test_the_state_directory_is_its_owners_alone(tmp_path):
    StateLock(tmp_path / "var").close()
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var" / "lock").stat().st_mode & 0o777 == 0o600


def test_a_directory_of_ours_that_was_open_to_others_is_closed_and_one_of_somebody_else_is_left(tmp_path, monkeypatch):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o775)
    StateLock(tmp_path / "ours").close()
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "theirs").stat().st_uid + 1)
    StateLock(tmp_path / "theirs").close()
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("ours", "theirs")] == [0o700, 0o775]
