import pytest

from gateway.instance import instance_id


def test_the_id_is_made_once_and_differs_from_others(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert instance_id(one) == instance_id(one) != instance_id(other)
    assert [path.name for path in one.iterdir()] == ["instance.id"]


def test_a_spoiled_id_is_refused_and_not_replaced(tmp_path):
    (tmp_path / "instance.id").write_text("mine")
    with pytest.raises(ValueError, match=r"instance\.id: wanted 16 hex digits, got 'mine'"):
        instance_id(tmp_path)
