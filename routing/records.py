"""What is remembered: predictions, mirrored rows, shadow answers and labels, as the blocks that travel through the spool.

A block holds what one turn of a worker did with one model for one endpoint, column by column: the requests in order, then their
rows of every input and output end to end. So the cost of a record is one small tuple, and a turn is one encode and one write.
All blocks are MessagePack arrays with a leading tag; fields are only ever added at the end.
"""

from typing import Final

import msgspec

ASSIGNED_BY: Final = ("split", "rule", "pin")
PROTOCOLS: Final = ("v2-rest", "v2-grpc", "mlflow", "tf")


LOOKUPS: Final = ("sent", "found", "stale", "absent", "timeout", "failed")
"""What became of a feature's value: the caller sent it, the store had it; or the default stands in its place: too old there, not
there, no answer in time, no answer at all."""


class Column(msgspec.Struct, frozen=True, array_like=True):
    """All rows of one tensor of a block.

    `data`: little-endian C-order bytes of shape (rows, *tail); for BYTES a list of str, row by row. None: not recorded.
    """

    name: str
    datatype: str
    tail: tuple[int, ...]
    data: bytes | list[str] | None


class RequestRow(msgspec.Struct, frozen=True, array_like=True):
    """One answered assignment. Times are microseconds; `received_unix_us` is the wall clock at arrival.

    `arm` indexes the block's `variants`: `assigned` was drawn, `answered` replied (−1: none did). `rule` is the rule's name.
    `unit` is the keyed hash (32 hex digits) or the raw text, None if the route has no unit or it was missing; `unit_missing` says the latter.
    `status` is the REST status in every protocol, `code` the stable error code of a failure.
    `propensity` is the assigned arm's exact share, None for pins and rules outside experiments.
    """

    prediction_id: bytes
    rows: int
    received_unix_us: int
    assigned: int
    answered: int
    assigned_by: int
    bucket: int
    propensity: float | None
    protocol: int
    status: int
    queue_us: int
    compute_us: int
    total_us: int
    batch_rows: int
    unit: str | None = None
    unit_missing: bool = False
    request_id: str | None = None
    rule: str | None = None
    code: str | None = None
    trace_id: bytes | None = None
    mirrors: int = 0
    experiment: bool = True


class KeyColumn(msgspec.Struct, frozen=True, array_like=True):
    """The values of one join key by which features were looked up, or of an attribute; None in rows of requests that came without it."""

    name: str
    datatype: str
    values: list[int | str | float | bool | None]


class PredictionBlock(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Requests of one endpoint and revision that one model ran (or failed) in one turn of one worker.

    `inputs` has Σ rows rows. `outputs` is empty when the requests failed. `inputs_digest` holds one hex digest a request where
    inputs are recorded as `hash` or exceed `inputs_bytes_max` (then the columns' `data` is None).
    Of an endpoint with features: `keys`, and by input `lookups` (UINT8, indexes of LOOKUPS) and `ages_s` (FP64, NaN: not known), Σ rows rows.
    """

    endpoint: str
    revision: int
    variants: tuple[str, ...]
    model: str
    version: str
    digest: str
    requests: list[RequestRow]
    inputs: list[Column]
    outputs: list[Column]
    inputs_digest: list[str] | None = None
    fallback_of: str | None = None
    keys: list[KeyColumn] = []
    lookups: list[Column] = []
    ages_s: list[Column] = []


class SensitiveBlock(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Sensitive attributes of some predictions of one endpoint, apart from their records: Σ rows rows in each column.

    `attributes` were inputs, `looked_up` came from the feature store for the record alone.
    """

    endpoint: str
    prediction_ids: list[bytes]
    rows: list[int]
    received_unix_us: list[int]
    attributes: list[Column]
    looked_up: list[KeyColumn] = []


class MirrorBlock(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """Rows drawn for at least one mirror, whole, with what production answered; read once by the shadow process, never kept.

    In each RequestRow `mirrors` is the bit mask of the drawn mirrors, by position in `mirror_names`. `live_outputs` are the
    outputs of the model that answered, in its own order. `chains` has one entry a request: what other gateways' mirrors sent along
    with it (`X-Runoff-Mirrored`), None for a caller's own; empty where all are.
    """

    endpoint: str
    revision: int
    variants: tuple[str, ...]
    model: str
    version: str
    mirror_names: tuple[str, ...]
    requests: list[RequestRow]
    inputs: list[Column]
    live_outputs: list[Column]
    chains: list[str | None] = []


class ShadowRow(msgspec.Struct, frozen=True, array_like=True):
    """One request as a mirror saw it. `outcome` is `recorded`, or the reason it failed: the live answer is the block's column."""

    prediction_id: bytes
    rows: int
    received_unix_us: int
    live_variant: int
    unit: str | None
    experiment: bool
    outcome: str
    compute_us: int
    batch_rows: int
    lag_us: int


class ShadowBlock(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """What one mirror answered for requests of one MirrorBlock.

    `labels`, `scores` are the mirror's answer row by row, `live_labels`, `live_scores` production's, read by each model's `Answer`
    (labels as text, scores as float or None). `source_writer`, `source_sequence`: the mirror frame it came from, which is also
    the shadow's read offset after a restart.
    """

    endpoint: str
    revision: int
    variants: tuple[str, ...]
    mirror: str
    model: str
    version: str
    live_model: str
    live_version: str
    requests: list[ShadowRow]
    labels: list[str | None]
    scores: list[float | None]
    live_labels: list[str | None]
    live_scores: list[float | None]
    outputs: list[Column]
    source_writer: str
    source_sequence: int
    dropped: dict[str, int] = {}


class LabelRow(msgspec.Struct, frozen=True, array_like=True):
    """One label as it was received. `at_unix_us`: when the truth became known; None means the first receipt holds.

    Exactly one of `prediction_id` and (`endpoint`, `request_id`) is set; `row` is None when the request had one row.
    `label` None retracts. `keyed` says that it came with a key.
    """

    prediction_id: bytes | None
    endpoint: str | None
    request_id: str | None
    row: int | None
    label: float | int | str | bool | list[float | int | str | bool] | None
    at_unix_us: int | None
    received_unix_us: int
    attributes: dict[str, str | float | int | bool | None] | None = None
    keyed: bool = False


LABELS_MAX: Final = 10_000
"""Of one request, and of what is read of a file or table at once."""


class LabelBlock(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """Labels that one request posted, in its order."""

    labels: list[LabelRow]


class SensitiveLabelBlock(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The sensitive attributes of labels of one request, apart from these: rows that have nothing else of a label but what it is about."""

    labels: list[LabelRow]


class MinuteRow(msgspec.Struct, frozen=True, array_like=True):
    """What one worker counted in one minute for one endpoint, variant, model version and protocol.

    `latency_buckets` counts by the bounds of `runoff_request_duration_seconds` (the last is above all bounds).
    """

    endpoint: str
    variant: str
    model: str
    version: str
    minute_unix_s: int
    requests: int
    errors: int
    rows: int
    latency_sum_s: float
    latency_buckets: list[int]


class MetricBlock(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """A worker's closed minutes; sent once each, through the same spool, so that they reach the lake exactly once."""

    minutes: list[MinuteRow]


class QualityRow(msgspec.Struct, frozen=True, array_like=True):
    """How right a variant (role `live`) or mirror was in the time up to a minute, by the names of its measures.

    `drift`: population stability index by input, against the endpoint's reference.
    """

    endpoint: str
    role: str
    variant: str
    model: str
    version: str
    minute_unix_s: int
    labelled: int
    measures: dict[str, float]
    drift: dict[str, float] = {}


class QualityBlock(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """What control found in one look at the stored records; through a spool too, so that it reaches the lake exactly once."""

    rows: list[QualityRow]


Block = (
    PredictionBlock
    | SensitiveBlock
    | MirrorBlock
    | ShadowBlock
    | LabelBlock
    | SensitiveLabelBlock
    | MetricBlock
    | QualityBlock
)
"""Everything that can stand in a spool frame."""
