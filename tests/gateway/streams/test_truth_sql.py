import duckdb
import pytest
from deltalake import DeltaTable

from gateway.streams.truth_sql import KNOWN_AT, RESOLVED
from tests.kit.spooled import START_UNIX_US, Place, label, labels, predictions, request


@pytest.fixture
def ask(tmp_path):
    place = Place(tmp_path)

    def asked(*blocks):
        place.store(*blocks)
        with duckdb.connect() as connection:
            for name in ("predictions", "labels"):
                connection.register(name, DeltaTable(f"{place.uri}/{name}").to_pyarrow_dataset())
            told = RESOLVED.format(narrow_id="", sized="predictions")
            sql = f"SELECT row, label_text, epoch_us({KNOWN_AT}) FROM ({told}) ORDER BY sequence"
            return connection.execute(sql, ["phishing"]).fetchall()

    return asked


def test_a_label_by_request_id_is_about_each_prediction_that_has_it(ask):
    rows = [request(0, request_id="r"), request(1, request_id="r"), request(2, request_id="other")]
    found = ask(predictions(rows, [0.5] * 3), labels(label(None, 1, endpoint="phishing", request_id="r")))
    assert len(found) == 2


def test_a_label_is_known_from_its_own_moment_or_from_the_first_receipt_of_its_content(ask):
    at = START_UNIX_US + 5
    found = ask(
        labels(label(0, 1, received=10), label(0, 1, received=99)),
        labels(label(1, 1, received=10, at_unix_us=at)),
    )
    assert [known for _, _, known in found] == [START_UNIX_US + 10_000_000] * 2 + [at]
