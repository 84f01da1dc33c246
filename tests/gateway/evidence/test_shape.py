import time

import numpy as np

from gateway.evidence.query import Queries
from gateway.evidence.shape import shape_of_traffic
from models.staged import Traffic
from routing.records import Column
from tests.kit.spooled import Place, predictions, request


def test_requests_count_once_by_their_rows(tmp_path):
    place = Place(tmp_path)
    now_us = int(time.time() * 1e6)
    sizes = [1, 1, 3]
    requests = [request(n, received_unix_us=now_us + n, rows=rows) for n, rows in enumerate(sizes)]
    inputs = [Column("x", "FP32", (1,), np.zeros(sum(sizes), "<f4").tobytes())]
    place.store(predictions(requests, [0.5] * sum(sizes), inputs=inputs))
    found = shape_of_traffic(Queries(place.uri), "phishing")
    assert found == Traffic(endpoint="phishing", requests=3, rows_p50=1, rows_p95=3, rows_max=3)


def test_an_endpoint_without_requests_has_no_shape(tmp_path):
    assert shape_of_traffic(Queries(str(tmp_path)), "phishing") is None
