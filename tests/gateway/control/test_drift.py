import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from gateway.control.drift import References
from gateway.evidence.evidence import Evidence
from routing.records import Column
from routing.validate import validate
from tests.kit.spooled import BINARY, START_UNIX_US, Place, predictions, request

NOW = START_UNIX_US / 1e6 + 2 * 86_400 + 600
ROUTE = validate(
    {"endpoint": "phishing", "variants": [{"name": "champion", "model": "models:/phishing/1", "weight": 1}]}
)
TWO_DAYS_MS = 2 * 86_400_000


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def evidence(place):
    return Evidence(place.uri, lambda _: BINARY)


@pytest.fixture
def references(tmp_path, evidence):
    return References(tmp_path / "references", lambda: evidence)


def store(place, first, mean, version="1"):
    x = np.random.default_rng(first).normal(mean, 1, 600).astype("<f4")
    rows = [request(n) for n in range(first, first + 600)]
    block = predictions(rows, [0.5] * 600, inputs=[Column("x", "FP32", (1,), x.tobytes())], version=version)
    place.store(block, writer=f"worker-{first}")


def ask(references, version="1"):
    return references.drift(ROUTE, ("phishing", version), "champion", version, NOW)


def test_a_reference_outlives_the_rows_that_it_was_made_of(place, references, tmp_path):
    assert ask(references) == {}
    store(place, 0, 0.0)
    assert ask(references) == {}
    store(place, TWO_DAYS_MS, 1.0)
    before = ask(references)
    assert before["x"].psi > before["x"].threshold
    DeltaTable(f"{place.uri}/predictions").delete("received_at < '2026-09-23'")
    assert ask(references) == before
    (kept,) = (tmp_path / "references").iterdir()
    assert (kept.name, kept.stat().st_mode & 0o777) == ("phishing.json", 0o600)


def test_another_champion_and_an_ingested_table_are_other_references(place, references):
    store(place, 0, 0.0)
    store(place, TWO_DAYS_MS, 1.0)
    assert ask(references)["x"].psi > 0.1
    assert references.drift(ROUTE, ("phishing", "2"), "champion", "1", NOW) == {}
    sample = pa.table({"x": np.random.default_rng(1).normal(1, 1, 1000)})
    write_deltalake(f"{place.uri}/ingested/reference_phishing", sample)
    assert ask(references)["x"].psi < 0.1
