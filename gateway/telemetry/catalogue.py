"""Every metric there is: one table, from which the counter pages, the exposition, the dashboard and the alert rules are checked."""

from types import MappingProxyType
from typing import Final, Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]

DURATION_BOUNDS_S: Final = (
    0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of every duration histogram, seconds. `MinuteRow.latency_buckets` counts by them too: change both or none."""
ROWS_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)

RECORD_OUTCOMES: Final = ("assigned", "recorded", "sampled_out", "dropped", "failed", "lost")
"""`assigned` counts requests that were given a variant. Each of them ends in exactly one of the others; what a dead worker
assigned and never ended is added by the supervisor as `lost`."""


class Metric(msgspec.Struct, frozen=True):
    """One metric. `help` says what it is and what to do when it is bad. `merge`: how gauges of several processes become one.

    `bounds` are a histogram's upper bounds, ascending, in the metric's own unit, without infinity.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()
    merge: Merge = "sum"

    @property
    def scale(self) -> int:
        """How many cell units make one unit of the metric: cells of times are microseconds, all others are plain integers."""
        return 1_000_000 if self.name.endswith(("_seconds", "_seconds_total")) else 1

    @property
    def cells(self) -> int:
        """Cells that one series takes: a histogram has one a bucket, one above all bounds, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


def _counter(name: str, labels: tuple[str, ...], help_: str) -> Metric:
    return Metric(name, "counter", labels, help_)


def _gauge(name: str, labels: tuple[str, ...], help_: str, merge: Merge = "sum") -> Metric:
    return Metric(name, "gauge", labels, help_, merge=merge)


def _histogram(name: str, labels: tuple[str, ...], help_: str, bounds: tuple[float, ...] = DURATION_BOUNDS_S) -> Metric:
    return Metric(name, "histogram", labels, help_, bounds=bounds)


_ALL: Final = (
    # the data path
    _counter(
        "runoff_requests_total",
        ("endpoint", "variant", "model", "version", "protocol", "code"),
        "Answered assignments by who answered and the REST status in every protocol. Many 5xx on one version: roll back.",
    ),
    _histogram(
        "runoff_request_duration_seconds",
        ("endpoint", "variant", "model", "version", "protocol"),
        "From the last byte of a request to its reply. High: compare with the queue and compute durations below.",
    ),
    _histogram(
        "runoff_queue_duration_seconds",
        ("endpoint", "variant"),
        "How long a request waited for its batch to run. High: too much load for the workers, or a slow model beside a fast one.",
    ),
    _histogram(
        "runoff_compute_duration_seconds",
        ("endpoint", "variant", "role"),
        "How long one batch ran in the model. High: run `runoff tune`, or look at what this version needs more than the last.",
    ),
    _histogram(
        "runoff_batch_rows",
        ("endpoint", "variant", "role"),
        "Rows that ran together. Always 1 under load: the model cannot batch; see its tuning profile.",
        ROWS_BOUNDS,
    ),
    _gauge(
        "runoff_inflight",
        ("endpoint",),
        "Requests between decode and reply. Near limits.concurrency_max times workers: callers will see 429 soon.",
    ),
    _gauge(
        "runoff_connections",
        ("protocol",),
        "Open client connections by door (grpc: not with `grpc_door = grpcio`). At limits.connections_max times workers: new ones wait "
        "in the kernel, unheard, until others end. More workers, a higher bound, or callers that keep fewer.",
    ),
    _counter(
        "runoff_refused_total",
        ("endpoint", "reason"),
        "Requests refused before a variant was assigned (endpoint empty when unknown). The reason names the bound or the fault.",
    ),
    _counter(
        "runoff_cancelled_total",
        ("endpoint",),
        "Requests whose caller left before the answer. Rising: callers' time-outs are shorter than the answers take.",
    ),
    _counter(
        "runoff_fallbacks_total",
        ("endpoint", "variant"),
        "Requests that the champion answered because the assigned variant failed. Rising: that variant is not fit to go on.",
    ),
    _counter(
        "runoff_units_missing_total",
        ("endpoint",),
        "Requests without the unit that the route asks for; they are drawn alone and stay outside experiments. Mend the callers.",
    ),
    _counter(
        "runoff_request_ids_dropped_total",
        (),
        "Request ids that were longer than 128 characters or held others than [A-Za-z0-9._:-]. Labels by such an id cannot join.",
    ),
    # features
    _counter(
        "runoff_feature_values_total",
        ("endpoint", "outcome"),
        "Feature values looked up for requests: found, or replaced by their default because they were stale, absent, or the store did not "
        "answer (timeout, failed). The records say which feature: group by lookup_<input>.",
    ),
    _histogram(
        "runoff_feature_lookup_duration_seconds",
        ("endpoint",),
        "How long requests waited for the feature store. Near features.timeout_ms: the online store is slow, and defaults are served.",
    ),
    # mirrors
    _counter(
        "runoff_mirrored_total",
        ("endpoint", "variant", "outcome"),
        "Requests drawn for a mirror (its name is the variant), by outcome. Drops: the shadow is too slow; lower `sample`. `cycle`: "
        "mirrors of several gateways lead to each other.",
    ),
    _counter(
        "runoff_mirror_dropped_total",
        ("endpoint", "variant", "reason", "size"),
        "Drawn requests that a mirror did not answer, by reason and size of their inputs. `governor`: lower `sample`, or give the shadow "
        "more (shadow.memory_bytes_max, shadow.cpu_share_max); only `larger`: set body_bytes_max.",
    ),
    _gauge(
        "runoff_mirror_lag_seconds",
        ("endpoint", "variant"),
        "Age of the newest row that a mirror answered. Above 60: rows are dropped unread; lower `sample` or give it a processor.",
        "max",
    ),
    _gauge(
        "runoff_mirror_agreement_ratio",
        ("endpoint", "variant"),
        "Share of recent rows where the mirror answered as production did. Low: read `runoff ledger` before promoting.",
        "max",
    ),
    _counter(
        "runoff_mirror_expired_bytes_total",
        (),
        "Bytes of mirrored rows that were deleted after a minute because no shadow process had read them. Any: it is down or far behind.",
    ),
    # records, labels, sinks
    _counter(
        "runoff_records_total",
        ("outcome",),
        "Assigned requests and what became of their records. `failed` or `dropped`: the spool is full or its disk is. "
        "`lost`: a worker died; see its log.",
    ),
    _gauge(
        "runoff_spool_bytes",
        ("spool",),
        "Bytes waiting in the spool: records, disk or mirror. Rising: a sink is down; see runoff_sink_lag_seconds.",
    ),
    _counter(
        "runoff_inputs_too_large_total",
        ("endpoint",),
        "Requests whose inputs were recorded as digest and shape, being above record.inputs_bytes_max. They cannot be replayed.",
    ),
    _gauge(
        "runoff_sink_lag_seconds",
        ("sink",),
        "Age of the oldest record that a sink has not stored. Rising: the sink is down or slow; nothing is lost before the spool is full.",
        "max",
    ),
    _counter(
        "runoff_sink_rows_total",
        ("sink", "outcome"),
        "Rows that a sink stored, put aside, or let go as too old. Any in `dead_letter`: `runoff dead-letters` says why, they will not come back alone. "
        "Any in `too_large`: above the broker's bound on a message; raise it, or record fewer inputs.",
    ),
    _counter(
        "runoff_labels_total",
        ("outcome",),
        "Labels by outcome: accepted, rejected; two minutes later joined; orphaned: its prediction was not recorded here, or is gone; "
        "row_missing: the request had several rows and the label names none; row_unknown: the request had fewer. Mend who sends the latter two.",
    ),
    # evidence
    _gauge(
        "runoff_quality",
        ("endpoint", "variant", "role", "metric"),
        "A quality measure over the label window. It is read together with its label coverage: `runoff ledger`.",
        "max",
    ),
    _gauge(
        "runoff_drift",
        ("endpoint", "variant", "feature", "statistic"),
        "Distance of recent inputs or answers from the reference. High: look at that feature's source before blaming the model.",
        "max",
    ),
    _gauge(
        "runoff_experiment_evalue",
        ("endpoint", "variant"),
        "Evidence against `no difference` (natural logarithm of the e-value), valid however often it is read.",
        "max",
    ),
    _gauge(
        "runoff_experiment_verdict",
        ("endpoint", "variant", "verdict"),
        "1 for the verdict that holds. `sample_ratio_mismatch`: no result counts until its cause is found.",
        "max",
    ),
    # models and routes
    _gauge(
        "runoff_model_state",
        ("model", "version", "state"),
        "How many processes have this version `warm`, `loading` (or waiting for it), or could not load it: `failed`, of workers only. "
        "`runoff status` shows the problem; a live revision is tried again every 10 s.",
    ),
    _gauge(
        "runoff_model_memory_bytes",
        ("model", "version"),
        "Memory of a loaded version over all processes. Near the machine's: fewer pins, fewer workers, or fewer mirrors.",
    ),
    _gauge(
        "runoff_endpoint_ready",
        ("endpoint",),
        "1 when the live revision of this endpoint is warm in a listening worker. 0: `runoff status` shows why.",
        "max",
    ),
    _gauge(
        "runoff_route_weight",
        ("endpoint", "variant"),
        "Share of units that the live split gives to a variant. Other than expected: `runoff history` shows who changed it.",
        "max",
    ),
    _gauge(
        "runoff_revision",
        ("endpoint",),
        "Number of the live revision. Workers that differ for more than a second: look at runoff_eventloop_lag_seconds.",
        "max",
    ),
    # processes
    _gauge(
        "runoff_process_up",
        ("process",),
        "1 while a process of the gateway runs and beats. 0: it is being restarted; its log says why it ended.",
        "max",
    ),
    _counter(
        "runoff_process_restarts_total",
        ("process",),
        "Restarts after a crash or a hang. Rising: the log line `process_exited` has the signal or the status.",
    ),
    _gauge(
        "runoff_process_resident_bytes",
        ("process",),
        "Resident memory. Rising without end: a leak; a restart of that process is safe at any time.",
        "max",
    ),
    _gauge(
        "runoff_eventloop_lag_seconds",
        ("process",),
        "How late the event loop woke in the last second. Above 0.05: something blocks the loop; batches of big models run on it.",
        "max",
    ),
    _gauge(
        "runoff_build_info",
        ("version", "python"),
        "Always 1; the labels tell what runs. Two at once: a roll-out is under way, or it stopped half way.",
        "max",
    ),
    # telemetry about itself
    _counter(
        "runoff_telemetry_series_overflow_total",
        (),
        "Series that found no room in a process's page and were counted under `other`. Rising: too many versions or codes live.",
    ),
    _counter(
        "runoff_spans_total",
        ("outcome",),
        "Trace spans exported or dropped. Dropped: the collector is down or slow; requests are not affected.",
    ),
    _counter(
        "runoff_log_lines_dropped_total",
        (),
        "Log lines above the bound of repeated events. The first of each were written.",
    ),
)  # fmt: skip

METRICS: Final = MappingProxyType({metric.name: metric for metric in _ALL})
"""By name, in the order in which they are shown."""
