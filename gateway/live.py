"""The live table of a worker: every endpoint at its live revision, with its variants' loaded models, thought through once per change."""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.errors import EndpointUnknown, VersionUnknown
from gateway.features.served import Lookup, ServedFeatures
from gateway.state.compiled import CompiledModel, CompiledRoute
from models.batching import Part, to_array
from models.catalog import Catalog, LoadedModel
from models.compatibility import differences
from models.errors import NotWarm
from models.signature import Signature
from models.tensors import Array
from routing.conditions import columns_read
from routing.table import EndpointTable
from routing.traffic import MIRRORED_HEADER, Route
from routing.validate import validate


class Arm:
    """One variant, or one pinned version, as this process serves it.

    `select` picks the model's inputs out of the endpoint's (None: all of them, in this order); `index` is its place in the
    endpoint's `variant_names`, which records use.
    """

    __slots__ = ("fallback", "has_free_tails", "index", "model", "name", "select", "series", "template")

    def __init__(self, index: int, name: str, model: LoadedModel, signature: Signature, *, fallback: bool) -> None:
        places = {spec.name: place for place, spec in enumerate(signature.inputs)}
        select = tuple(places[spec.name] for spec in model.staged.signature.inputs)
        self.index = index
        self.name = name
        self.model = model
        self.select = None if select == tuple(range(len(signature.inputs))) else select
        self.fallback = fallback
        self.series: dict[int, object] = {}
        self.has_free_tails = any(dim < 0 for spec in model.staged.signature.outputs for dim in spec.shape[1:])
        self.template: object | None = None


class ServedEndpoint:
    """One endpoint at one revision. Immutable but for `inflight`, which admission counts."""

    __slots__ = (
        "_places",
        "_reads",
        "arms",
        "body_bytes_max",
        "champion",
        "features",
        "header_names",
        "inflight",
        "is_plain",
        "kept",
        "mirror_names",
        "mirrors_running",
        "name",
        "pins",
        "revision",
        "route",
        "signature",
        "table",
        "timeout_ns",
        "unit_header",
        "variant_names",
        "variant_places",
    )

    def __init__(
        self, compiled: CompiledRoute, catalog: Catalog, table: EndpointTable, kept: Sequence[CompiledModel] = ()
    ) -> None:
        """`table`: what `table_of` answered for this revision; `kept`: what is held for a rollback, reached as pins are where it fits.

        Raises NotWarm when a model of the revision is not loaded here.
        """
        route = table.route
        self.name = compiled.endpoint
        self.revision = compiled.revision
        self.route: Route = route
        self.table = table
        self.is_plain = self.table.is_plain
        self.body_bytes_max = route.limits.body_bytes_max
        self.unit_header = self.table.unit_header
        self.signature = compiled.signature
        self.features = ServedFeatures.of(self.name, compiled.features, route.features, compiled.signature)
        self.arms = [
            Arm(place, variant.name, _warm(catalog, compiled, variant.name), self.signature, fallback=variant.fallback)
            for place, variant in enumerate(route.variants)
        ]
        self.champion = next(arm for arm in self.arms if arm.name == route.champion)
        self.pins: dict[str, Arm] = {}
        for arm in (self.champion, *self.arms):
            self.pins.setdefault(arm.model.staged.key.version, arm)
        self.kept = frozenset(model.digest for model in kept)
        for pin in (*compiled.pins, *kept):
            model = catalog.get(pin.digest, pin.key)
            if model is None or pin.key.version in self.pins:
                continue
            if pin.role == "pin" or not differences(self.signature, self.champion.model.staged.answer, model.staged):
                arm = Arm(len(self.arms), f"pin-{pin.key.version}", model, self.signature, fallback=False)
                self.arms.append(arm)
                self.pins[pin.key.version] = arm
        self.variant_names = tuple(arm.name for arm in self.arms)
        self.variant_places = {arm.name: arm for arm in self.arms[: len(route.variants)]}
        self.mirror_names = tuple(mirror.name for mirror in route.mirrors)
        self.mirrors_running = (1 << len(route.mirrors)) - 1
        names = {condition.name for rule in route.rules for condition in rule.when if condition.source == "header"}
        if route.unit.kind == "header":
            names.add(route.unit.name)
        if any(mirror.remote is not None for mirror in route.mirrors):
            names.add(MIRRORED_HEADER)
        self.header_names = frozenset(name.encode() for name in names)
        read = columns_read(route)
        self._reads = bool(read)
        self._places = tuple((place, spec) for place, spec in enumerate(self.signature.inputs) if spec.name in read)
        self.timeout_ns = int(route.limits.timeout_s * 1e9)
        self.inflight = 0

    def columns(self, inputs: Sequence[Part], lookup: Lookup | None = None) -> Mapping[str, Array]:
        """The input columns and join keys that unit and rules read; empty where they read none."""
        if not self._reads:
            return _NO_COLUMN
        found = {spec.name: to_array(inputs[place], spec) for place, spec in self._places}
        return found if lookup is None else {**lookup.keys, **found}

    def mirrors_drawn(self, prediction_id: bytes) -> int:
        """The mirrors that see this prediction, as a bit mask; those whose `until` has passed see nothing more."""
        return self.table.mirrors_drawn(prediction_id) & self.mirrors_running

    @property
    def models(self) -> list[LoadedModel]:
        """The models that answer for this endpoint."""
        return [arm.model for arm in self.arms]


class LiveTable(msgspec.Struct, frozen=True):
    """What one request sees, from room 4 to the end. A change makes a new table; nobody edits one."""

    endpoints: dict[str, ServedEndpoint] = {}
    default: str | None = None
    cold: dict[str, tuple[str, ...]] = {}
    """The endpoints that are live and not served here, with the versions of their variants: not loaded yet, or they cannot be."""

    def endpoint(self, name: str) -> ServedEndpoint:
        """Raises EndpointUnknown, or NotWarm."""
        found = self.endpoints.get(name)
        if found is None:
            if name in self.cold:
                raise NotWarm(f"model '{name}' is not warm here: its live revision is not loaded in this worker")
            raise EndpointUnknown(f"unknown model '{name}': no endpoint of this name is served here")
        return found

    def arm_of_version(self, endpoint: ServedEndpoint, version: str) -> Arm:
        """The arm that serves a version named in the path; raises VersionUnknown."""
        arm = endpoint.pins.get(version)
        if arm is None:
            warm = ", ".join(sorted(endpoint.pins))
            raise VersionUnknown(f"unknown version '{version}' of model '{endpoint.name}': warm versions are {warm}")
        return arm


def table_of(compiled: CompiledRoute) -> EndpointTable:
    """The revision's document and its split, ready to deal. A document of many rules takes milliseconds: work for a thread.

    Raises RouteInvalid for a document that this release refuses, SplitMismatch for a damaged split.
    """
    return EndpointTable.stored(validate(compiled.document), compiled.revision, compiled.split, compiled.split_sha256)


_NO_COLUMN: Mapping[str, Array] = {}


def _warm(catalog: Catalog, compiled: CompiledRoute, name: str) -> LoadedModel:
    model = catalog.get(compiled.models[name].digest, compiled.models[name].key)
    if model is None:
        raise NotWarm(f"{compiled.endpoint} revision {compiled.revision}: {compiled.models[name].key} is not loaded")
    return model
