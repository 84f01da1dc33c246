import pytest

from gateway.state.store import StateStore
from models.staged import ModelKey


@pytest.fixture
def store(tmp_path):
    made = StateStore(tmp_path / "state.db")
    yield made
    made.close()


def test_an_exact_reference_leads_to_what_it_was_staged_as_last(store):
    assert store.staged.find("models:/m/1") is None
    store.staged.remember("models:/m/1", key=ModelKey("m", "1"), digest="a" * 64)
    store.staged.remember("models:/m/1", key=ModelKey("m", "1"), digest="b" * 64)
    assert store.staged.find("models:/m/1") == (ModelKey("m", "1"), "b" * 64)


def test_versions_are_listed_as_numbers(store):
    for version in ("10", "9", "1"):
        store.staged.remember(f"models:/m/{version}", key=ModelKey("m", version), digest=version * 32)
    assert [version for _, version, _, _ in store.staged.all()] == ["1", "9", "10"]
