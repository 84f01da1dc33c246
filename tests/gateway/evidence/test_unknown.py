from gateway.evidence.query import Queries
from gateway.evidence.unknown import unknown
from gateway.streams.labels import rows
from tests.kit.spooled import Place, label, labels


def test_labels_are_unknown_until_one_that_says_the_same_is_stored(tmp_path):
    place = Place(tmp_path)
    told = [
        label(0, 1),
        label(0, 0),
        label(0, 1, row=1),
        label(1, 1, at_unix_us=5),
        label(None, 1, endpoint="phishing", request_id="r"),
        label(None, 1, endpoint="spam", request_id="r"),
        label(2, None),
    ]
    asked = lambda: unknown(Queries(place.uri), rows([labels(*told)]))
    assert asked() == list(range(7)), "also while there is no lake"
    place.store(labels(label(0, 1, received=9), label(1, 1), told[4], told[6]))
    assert asked() == [1, 2, 3, 5]
