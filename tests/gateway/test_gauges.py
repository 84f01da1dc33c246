import pytest

from gateway.gauges import RouteGauges
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear


@pytest.fixture
async def plane(tmp_path):
    plane = Plane(tmp_path)
    yield plane
    plane.close()


async def test_revisions_and_weights_stand_on_the_scrape_until_their_endpoint_is_gone(plane):
    gauges = RouteGauges(plane.page)
    models = {
        "champion": stage_linear(plane.artifacts, version="1"),
        "challenger": stage_linear(plane.artifacts, version="2"),
    }
    weights = [{"name": name, "model": models[name].uri, "weight": 1.0} for name in models]
    served = plane.serve(models, variants=weights)
    gauges.show({"line": served}, gone=set())
    assert plane.totals().value("runoff_revision", endpoint="line") == served.revision
    shares = [plane.totals().value("runoff_route_weight", endpoint="line", variant=name) for name in models]
    assert shares == list(served.table.shares)
    alone = plane.serve({"champion": models["champion"]})
    gauges.show({"line": alone}, gone=set())
    assert plane.totals().value("runoff_route_weight", endpoint="line", variant="champion") == 1.0
    assert not plane.totals().value("runoff_route_weight", endpoint="line", variant="challenger")
    gauges.show({}, gone={"line"})
    assert not plane.totals().value("runoff_revision", endpoint="line")


async def test_a_model_is_warm_with_its_memory_until_it_is_dropped(plane):
    gauges = RouteGauges(plane.page)
    model = plane.catalog.load(stage_linear(plane.artifacts, version="3").digest)
    name = {"model": model.staged.key.name, "version": "3"}
    gauges.models([model], {})
    assert plane.totals().value("runoff_model_state", **name, state="warm") == 1
    assert plane.totals().value("runoff_model_memory_bytes", **name) > 0
    gauges.models([], {model.staged.key: "failed"})
    assert not plane.totals().value("runoff_model_state", **name, state="warm")
    assert not plane.totals().value("runoff_model_memory_bytes", **name)
    assert plane.totals().value("runoff_model_state", **name, state="failed") == 1
