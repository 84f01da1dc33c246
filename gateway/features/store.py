"""A feature store as the features process asks it: what a service consists of, and the values of rows. One room of Feast."""

from pathlib import Path
from typing import Any, Final

from feast import FeatureStore
from feast.errors import FeatureServiceNotFoundException
from feast.feature_service import FeatureService
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.repo_config import load_repo_config

from gateway.features.frames import Feature, FoundColumn, Key
from gateway.features.lane import ServiceAbsent

_DATATYPES: Final = {
    "BOOL": "BOOL",
    "INT32": "INT32",
    "INT64": "INT64",
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "STRING": "BYTES",
}
"""Feast's types → the wire's; what is not here (bytes, times, maps, images) no model's input is."""
_READ: Final = frozenset(kind.lower() for kind in _DATATYPES)
_KEY_KINDS: Final = ("INT32", "INT64", "STRING")


class Store:
    """`lane.Services` over the repository at `repo`."""

    def __init__(self, repo: str) -> None:
        self._store = FeatureStore(repo)
        self._services: dict[str, FeatureService] = {}

    def describe(self, service: str) -> tuple[tuple[Key, ...], tuple[Feature, ...], tuple[str, ...]]:
        """Join keys, features and what on-demand views want of a request, by the registry as it is now. Raises ServiceAbsent."""
        self._store.refresh_registry()
        self._services.pop(service, None)
        found = self._service(service)
        keys: dict[str, Key] = {}
        features: list[Feature] = []
        requested: list[str] = []
        for projection in found.feature_view_projections:
            view = self._view(projection.name)
            for field in getattr(view, "entity_columns", ()):
                if field.name == "__dummy_id":  # Feast's own, of a view without entities
                    continue
                name = projection.join_key_map.get(field.name, field.name)
                kind = field.dtype.to_value_type().name
                keys[name] = Key(name, _DATATYPES[kind] if kind in _KEY_KINDS else None, kind)
            for source in getattr(view, "source_request_sources", {}).values():
                requested += [field.name for field in source.schema]
            for source in getattr(view, "source_feature_view_projections", {}).values():
                for key in self._view(source.name).entity_columns:
                    kind = key.dtype.to_value_type().name
                    keys.setdefault(key.name, Key(key.name, _DATATYPES[kind] if kind in _KEY_KINDS else None, kind))
            is_online = bool(getattr(view, "online", True))
            features += [
                _feature(projection.name_to_use(), field, is_online=is_online) for field in projection.features
            ]
        return tuple(keys.values()), tuple(features), tuple(requested)

    def read(self, service: str, keys: dict[str, list[Any]]) -> dict[str, FoundColumn]:
        """Every feature of the service, by its full name, for rows that are given by their join keys."""
        asked = set(keys)
        proto = self._store.get_online_features(self._service(service), entity_rows=keys, full_feature_names=True).proto
        names = proto.metadata.feature_names.val
        return {name: _column(vector) for name, vector in zip(names, proto.results, strict=True) if name not in asked}

    def _service(self, name: str) -> FeatureService:
        found = self._services.get(name)
        if found is None:
            try:
                found = self._services[name] = self._store.get_feature_service(name)
            except FeatureServiceNotFoundException:
                names = sorted(one.name for one in self._store.list_feature_services())
                raise ServiceAbsent(", ".join(names) or "none at all") from None
        return found

    def _view(self, name: str) -> Any:
        return next(view for view in self._store.list_all_feature_views() if view.name == name)


def _feature(view: str, field: Any, *, is_online: bool) -> Feature:
    kind = field.dtype.to_value_type().name
    inner = kind.removesuffix("_LIST")
    return Feature(
        field.name, f"{view}__{field.name}", view, _DATATYPES.get(inner), inner != kind, kind, is_online=is_online
    )


def _column(vector: Any) -> FoundColumn:
    """A vector of Feast's as plain values. Feast itself lets rows through that are older than the view's ttl: age is judged later."""
    return FoundColumn(
        [
            _value(value) if status == FieldStatus.PRESENT else None
            for value, status in zip(vector.values, vector.statuses, strict=True)
        ],
        [stamp.seconds + stamp.nanos / 1e9 for stamp in vector.event_timestamps],
    )


def _value(value: Any) -> Any:
    """None also for the kinds that no input has: a service is read whole, and theirs (maps, sets, structs) have no form on the wire."""
    kind = value.WhichOneof("val")
    if kind is None or kind.removesuffix("_val").removesuffix("_list") not in _READ:
        return None
    found = getattr(value, kind)
    return list(found.val) if kind.endswith("_list_val") else found


def import_stores(repo: str) -> None:
    """Imports what a repository's stores consist of, and connects to none of them. Raises whatever Feast and its configuration raise."""
    config = load_repo_config(Path(repo), Path(repo) / "feature_store.yaml")
    for found in (config.registry, config.online_store, config.offline_store):
        assert found is not None
