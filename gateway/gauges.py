"""The gauges of what a worker serves: revisions, weights, and the models that it holds."""

from collections.abc import Iterable, Mapping

from gateway.live import ServedEndpoint
from gateway.telemetry.counters import CounterPage
from models.catalog import LoadedModel
from models.staged import ModelKey


class RouteGauges:
    """What a worker shows of its routes and models on the scrape."""

    def __init__(self, page: CounterPage) -> None:
        self._page = page
        self._weights: dict[tuple[str, str], int] = {}
        self._models: dict[int, float] = {}

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

    def models(self, loaded: Iterable[LoadedModel], states: Mapping[ModelKey, str]) -> None:
        """The memory of what is `loaded`, wanted or not, and the `states` of what is wanted; all else leaves the scrape."""
        shown: dict[int, float] = {}
        every = dict(states)
        for model in loaded:
            key = model.staged.key
            every[key] = "warm"
            shown[self._page.gauge("runoff_model_memory_bytes", _labels(key))] = float(_memory_bytes(model))
        for key, state in every.items():
            shown[self._page.gauge("runoff_model_state", {**_labels(key), "state": state})] = 1.0
        for slot, value in (dict.fromkeys(self._models, float("nan")) | shown).items():
            self._page.floats[slot] = value
        self._models = shown


def _labels(key: ModelKey) -> dict[str, str]:
    return {"model": key.name, "version": key.version}


def _memory_bytes(model: LoadedModel) -> int:
    """As measured when it was staged, else the size of its file."""
    profile = model.staged.profile
    return profile.memory_bytes if profile is not None and profile.memory_bytes else model.staged.size_bytes
