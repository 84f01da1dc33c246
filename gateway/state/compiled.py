"""A revision as processes use it: the route document, the model versions that control resolved, and the split as a table."""

from typing import Any, Literal

import msgspec

from models.signature import Signature, TensorSpec
from models.staged import ModelKey
from routing.split import BUCKETS


class CompiledModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference of the document was resolved to. Workers load `variant` and `pin`, the shadow process `mirror`.

    `digest` is empty for a version that somebody asked for by number and that is not staged yet.
    """

    key: ModelKey
    digest: str
    uri: str
    role: Literal["variant", "mirror", "pin"] = "variant"


class FeatureInput(msgspec.Struct, frozen=True):
    """An input of the endpoint that a feature fills: `full` is its name in the service (`view__feature`)."""

    name: str
    full: str
    is_list: bool = False


class FeatureAttribute(msgspec.Struct, frozen=True):
    """A feature that no model sees: looked up by the same keys, and kept apart with the sensitive attributes."""

    name: str
    full: str
    datatype: str


class CompiledFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature service was found to be when the revision was made: join keys as callers send them, and the inputs it fills."""

    service: str
    keys: tuple[TensorSpec, ...]
    inputs: tuple[FeatureInput, ...]
    attributes: tuple[FeatureAttribute, ...] = ()


class CompiledRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint at one revision.

    `document` is the normalised route document. `models` is keyed by the name of the variant or mirror; remote mirrors have none.
    `split` has one arm index (position in the document's variants) for each of the 65,536 buckets; a process that finds another digest
    than `split_sha256` (hex) refuses the revision. `pins` are versions kept warm beside the variants'.
    """

    endpoint: str
    revision: int
    document: dict[str, Any]
    models: dict[str, CompiledModel]
    split: bytes
    split_sha256: str
    signature: Signature
    pins: list[CompiledModel] = []
    features: CompiledFeatures | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Exact shares of the split, by variant."""
        variants = enumerate(self.document["variants"])
        return {variant["name"]: self.split.count(place) / BUCKETS for place, variant in variants}


class Unread(msgspec.Struct, frozen=True):
    """A revision whose compiled form this release cannot read, and why."""

    revision: int
    problem: str


class RouteState(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker should hold for one endpoint: serve `live`, warm `pending` (its models are staged), keep `previous` warm.

    Where another release has written what is live or pending, that stands in `unread_live` or `unread_pending` instead.
    """

    endpoint: str
    live: CompiledRoute | None = None
    pending: CompiledRoute | None = None
    previous: CompiledRoute | None = None
    unread_live: Unread | None = None
    unread_pending: Unread | None = None


def pin_name(pin: CompiledModel) -> str:
    """How resolutions name a pin; no variant or mirror can be called so."""
    return f"@{pin.key.version}"
