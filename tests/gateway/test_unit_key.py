from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.unit_key import unit_key


def test_the_key_is_made_once_and_read_ever_after(tmp_path):
    key = unit_key(tmp_path)
    assert len(key) == 32
    assert unit_key(tmp_path) == key
    assert [path.name for path in tmp_path.iterdir()] == ["unit.key"]
    assert (tmp_path / "unit.key").stat().st_mode & 0o777 == 0o600


def test_all_who_ask_at_once_get_the_same_key(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: unit_key(tmp_path), range(32)))) == 1


def test_a_spoiled_key_is_refused_and_not_replaced(tmp_path):
    (tmp_path / "unit.key").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"unit\.key: wanted 32 bytes, got 5"):
        unit_key(tmp_path)
