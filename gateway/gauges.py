"""The gauges of what a worker serves: revisions, weights, and the models that it holds."""

from gateway.live import ServedEndpoint
from gateway.telemetry.counters import CounterPage
from models.catalog import LoadedModel


class RouteGauges:
    """What a worker shows of its routes and models on the scrape."""

    def __init__(self, page: CounterPage) -> None:
        self._page = page
        self._weights: dict[tuple[str, str], int] = {}

    def show(self, endpoints: dict[str, ServedEndpoint], gone: set[str]) -> None:
        """The live revision and the exact share of every variant; endpoints that are gone leave the scrape."""
        floats = self._page.floats
        for (endpoint, _), slot in self._weights.items():
            if endpoint in gone or endpoint in endpoints:
                floats[slot] = float("nan")
        for name in gone:
            floats[self._page.gauge("runoff_revision", {"endpoint": name})] = float("nan")
        for name, served in endpoints.items():
            floats[self._page.gauge("runoff_revision", {"endpoint": name})] = served.revision
            for variant, share in zip(served.table.names, served.table.shares, strict=True):
                labels = {"endpoint": name, "variant": variant}
                slot = self._weights[name, variant] = self._page.gauge("runoff_route_weight", labels)
                floats[slot] = share

    def loaded(self, model: LoadedModel) -> None:
        self._model(model, 1.0, float(_memory_bytes(model)))

    def dropped(self, model: LoadedModel) -> None:
        self._model(model, float("nan"), float("nan"))

    def _model(self, model: LoadedModel, count: float, size_bytes: float) -> None:
        labels = {"model": model.staged.key.name, "version": model.staged.key.version}
        self._page.floats[self._page.gauge("runoff_model_state", {**labels, "state": "warm"})] = count
        self._page.floats[self._page.gauge("runoff_model_memory_bytes", labels)] = size_bytes


def _memory_bytes(model: LoadedModel) -> int:
    """As measured when it was staged, else the size of its file."""
    profile = model.staged.profile
    return profile.memory_bytes if profile is not None and profile.memory_bytes else model.staged.size_bytes
