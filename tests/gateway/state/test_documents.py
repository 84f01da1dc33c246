import pytest

from gateway.state.compiled import CompiledRoute
from gateway.state.documents import documents
from gateway.state.revision import Draft
from gateway.state.store import StateStore
from models.signature import Signature


@pytest.fixture
def store(tmp_path):
    opened = StateStore(tmp_path / "state.db")
    yield opened
    opened.close()


def written(store, document, *, is_live=True):
    draft = Draft(endpoint="phishing", action="put", author="ann", reason="test", document=document)
    revision = store.write(draft, check=False)
    if is_live:
        compiled = CompiledRoute(
            endpoint="phishing",
            revision=revision.number,
            document=document or {},
            models={},
            split=b"",
            split_sha256="",
            signature=Signature(inputs=(), outputs=()),
        )
        assert store.activate(revision.number, compiled if document else None)


def test_without_a_database_there_are_none(tmp_path):
    assert documents(tmp_path / "state.db") == {}
    (tmp_path / "state.db").touch()
    assert documents(tmp_path / "state.db") == {}


def test_the_live_document_counts_and_not_the_one_on_its_way(store, tmp_path):
    written(store, {"endpoint": "phishing", "salt": "live"})
    written(store, {"endpoint": "phishing", "salt": "pending"}, is_live=False)
    assert documents(tmp_path / "state.db")["phishing"]["salt"] == "live"


def test_of_a_deleted_endpoint_the_last_one_counts(store, tmp_path):
    written(store, {"endpoint": "phishing", "salt": "last"})
    written(store, None)
    assert documents(tmp_path / "state.db")["phishing"]["salt"] == "last"
