"""Two gateways whose mirrors lead to each other: what one cannot know when the route is written ends when the rows come back."""

import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, infer_call, route, rpc_request

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

REQUESTS = 20
ROWS = [[1.0, 2.0, 3.0, 4.0]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two gateways and two models."""
    folder = tmp_path_factory.mktemp("cycles")
    models = files.binary(folder / "model.onnx"), files.binary(folder / "local.onnx", 1, 2, 3, 4)
    with Gateway(folder / "one") as one, Gateway(folder / "other") as other:
        yield one, other, *models


@pytest.mark.parametrize("protocol", ["v2", "v2-grpc", "mlflow"])
def test_rows_go_to_the_other_gateway_and_back_and_there_they_end(pair, protocol):
    one, other, model, candidate = pair
    endpoint = f"line-{protocol}"
    for here, there in ((one, other), (other, one)):
        url = f"http://{there.rpc}" if protocol == "v2-grpc" else there.rest
        away = {"name": "away", "remote": {"url": url, "model": endpoint, "protocol": protocol}}
        local = {"name": "beside", "model": candidate}
        here.apply(route(endpoint, ("champion", model, 1)) | {"mirrors": [away, local]})

    def counted(gateway, mirror, outcome):
        return gateway.metric("runoff_mirrored_total", endpoint=endpoint, variant=mirror, outcome=outcome)

    def came(gateway):
        return gateway.metric("runoff_requests_total", endpoint=endpoint)

    for _ in range(REQUESTS):
        one.infer(endpoint, ROWS)
    with one.channel() as channel:
        for _ in range(REQUESTS):
            infer_call(channel)(rpc_request(endpoint, ROWS), timeout=20)
    # Callers' own rows go to the other gateway (several may share a call), come back from there, and are answered, but not sent round again.
    eventually(lambda: counted(one, "away", "recorded") == 2 * REQUESTS, 30)
    eventually(lambda: 0 < came(other) == counted(other, "away", "recorded"), 30)
    eventually(lambda: counted(one, "away", "cycle") == came(one) - 2 * REQUESTS > 0, 30)
    assert came(one) - 2 * REQUESTS <= came(other) <= 2 * REQUESTS
    assert counted(other, "away", "cycle") == 0
    eventually(lambda: counted(one, "beside", "recorded") == came(one), 30)  # what runs here takes nobody round
    dropped = one.metric("runoff_mirror_dropped_total", endpoint=endpoint, variant="away", reason="cycle")
    assert dropped == counted(one, "away", "cycle")
    (told,) = [event for event in one.happened("mirror_cycle") if event["endpoint"] == endpoint]
    assert (told["mirror"], len(told["came_through"].split(","))) == ("away", 2)
