"""The Grafana dashboard as code: `python -m deploy.grafana.make` writes runoff.json beside this file, which is what Grafana reads.

A test holds the file to this program, and every expression to the table of metrics in gateway/telemetry/catalogue.py.
"""

import json
from pathlib import Path
from typing import Any, Final

DASHBOARD: Final = Path(__file__).with_name("runoff.json")
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8

Query = tuple[str, str]
"""An expression and its legend."""


def rate(metric: str, by: str, *, where: str = "", window: str = "$__rate_interval") -> str:
    """Counts a second, summed by labels; only the chosen endpoints where the metric has that label."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[{window}]))"


def quantile(share: float, metric: str, by: str) -> str:
    """A quantile of a histogram for the chosen endpoints."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{{{_OF}}}[$__rate_interval])))"


_OF: Final = 'endpoint=~"$endpoint"'
_BY: Final = "endpoint, variant"
_NAMED: Final = "{{endpoint}} {{variant}}"


def panel(
    title: str, unit: str, *queries: Query, text: str = "", width: int = 8, kind: str = "timeseries"
) -> dict[str, Any]:
    """One panel. `unit` is Grafana's name of it; `text` tells what to look for."""
    return {
        "title": title,
        "type": kind,
        "description": text,
        "datasource": _SOURCE,
        "gridPos": {"w": width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0 if unit != "short" else None}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        if kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(queries)
        ],
    }


ROWS: Final[dict[str, list[dict[str, Any]]]] = {
    "Now": [
        panel(
            "Endpoints not ready", "short", ("count(runoff_endpoint_ready == 0) or vector(0)", ""), width=4, kind="stat"
        ),
        panel("Processes down", "short", ("count(runoff_process_up == 0) or vector(0)", ""), width=4, kind="stat"),
        panel("Requests", "reqps", ("sum(rate(runoff_requests_total[$__rate_interval]))", ""), width=4, kind="stat"),
        panel(
            "Server errors",
            "percentunit",
            (
                'sum(rate(runoff_requests_total{code=~"5.."}[$__rate_interval])) / sum(rate(runoff_requests_total[$__rate_interval]))',
                "",
            ),
            width=4,
            kind="stat",
        ),
        panel(
            "Records lost in a day",
            "short",
            ('sum(increase(runoff_records_total{outcome="lost"}[1d])) or vector(0)', ""),
            width=4,
            kind="stat",
        ),
        panel("Release", "short", ("runoff_build_info", "{{version}} on Python {{python}}"), width=4, kind="stat"),
    ],
    "Traffic": [
        panel("Requests by variant", "reqps", (rate("runoff_requests_total", _BY, where=_OF), _NAMED)),
        panel(
            "Errors by code",
            "reqps",
            (rate("runoff_requests_total", f"{_BY}, code", where=f'{_OF}, code!~"2.."'), f"{_NAMED} {{{{code}}}}"),
            text="A code that one version has and the others do not: roll that version back.",
        ),
        panel(
            "Refused",
            "reqps",
            (
                rate("runoff_refused_total", "endpoint, reason", where='endpoint=~"$endpoint|"'),
                "{{endpoint}} {{reason}}",
            ),
            text="Refused before a variant was assigned; the reason names the bound.",
        ),
        panel("Weights in force", "percentunit", (f"runoff_route_weight{{{_OF}}}", _NAMED)),
        panel("Live revision", "short", (f"runoff_revision{{{_OF}}}", "{{endpoint}}")),
        panel(
            "Callers that left, fallbacks, missing units",
            "reqps",
            (rate("runoff_cancelled_total", "endpoint", where=_OF), "{{endpoint}} cancelled"),
            (rate("runoff_fallbacks_total", _BY, where=_OF), f"{_NAMED} fell back"),
            (rate("runoff_units_missing_total", "endpoint", where=_OF), "{{endpoint}} without unit"),
            (rate("runoff_request_ids_dropped_total", "job"), "request ids dropped"),
        ),
    ],
    "Features": [
        panel(
            "Feature values by what became of them",
            "short",
            (rate("runoff_feature_values_total", "endpoint, outcome", where=_OF), "{{endpoint}} {{outcome}}"),
            text="Other than found: the route's default was served.",
        ),
        panel(
            "Wait for the feature store",
            "s",
            (quantile(0.5, "runoff_feature_lookup_duration_seconds", "endpoint"), "{{endpoint}} p50"),
            (quantile(0.99, "runoff_feature_lookup_duration_seconds", "endpoint"), "{{endpoint}} p99"),
        ),
    ],
    "Latency": [
        panel(
            "Request duration",
            "s",
            (quantile(0.5, "runoff_request_duration_seconds", _BY), f"{_NAMED} p50"),
            (quantile(0.99, "runoff_request_duration_seconds", _BY), f"{_NAMED} p99"),
            text="High: see whether the wait or the model beside it is high too.",
        ),
        panel("Wait for a batch, p99", "s", (quantile(0.99, "runoff_queue_duration_seconds", _BY), _NAMED)),
        panel(
            "Time in the model, p99",
            "s",
            (quantile(0.99, "runoff_compute_duration_seconds", f"{_BY}, role"), f"{_NAMED} {{{{role}}}}"),
        ),
        panel(
            "Rows a batch, mean",
            "short",
            (
                f"{rate('runoff_batch_rows_sum', _BY, where=_OF)} / {rate('runoff_batch_rows_count', _BY, where=_OF)}",
                _NAMED,
            ),
        ),
        panel(
            "In flight",
            "short",
            (f"runoff_inflight{{{_OF}}}", "{{endpoint}}"),
            ("runoff_connections", "{{protocol}} connections"),
        ),
        panel(
            "Event loop lag",
            "s",
            ("runoff_eventloop_lag_seconds", "{{process}}"),
            text="Above 0.05 s something blocks the loop.",
        ),
    ],
    "Shadows and evidence": [
        panel(
            "Mirrored",
            "reqps",
            (rate("runoff_mirrored_total", f"{_BY}, outcome", where=_OF), f"{_NAMED} {{{{outcome}}}}"),
        ),
        panel(
            "Mirror rows dropped, by size",
            "reqps",
            (
                rate("runoff_mirror_dropped_total", f"{_BY}, reason, size", where=_OF),
                f"{_NAMED} {{{{reason}}}} {{{{size}}}}",
            ),
        ),
        panel(
            "Mirror lag",
            "s",
            (f"runoff_mirror_lag_seconds{{{_OF}}}", _NAMED),
            text="Above 60 s rows are dropped unread.",
        ),
        panel("Agreement with production", "percentunit", (f"runoff_mirror_agreement_ratio{{{_OF}}}", _NAMED)),
        panel("Quality", "short", (f"runoff_quality{{{_OF}}}", f"{_NAMED} {{{{role}}}} {{{{metric}}}}")),
        panel(
            "Evidence (log e-value) and verdict",
            "short",
            (f"runoff_experiment_evalue{{{_OF}}}", _NAMED),
            (f"runoff_experiment_verdict{{{_OF}}} == 1", f"{_NAMED} {{{{verdict}}}}"),
        ),
        panel("Drift", "short", (f"runoff_drift{{{_OF}}}", "{{endpoint}} {{feature}} {{statistic}}")),
    ],
    "Records and labels": [
        panel("Records", "reqps", (rate("runoff_records_total", "outcome"), "{{outcome}}")),
        panel(
            "Waiting in the spool",
            "bytes",
            ("runoff_spool_bytes", "{{spool}}"),
            ("increase(runoff_mirror_expired_bytes_total[$__rate_interval])", "mirrored, deleted unread"),
        ),
        panel(
            "Sink lag",
            "s",
            ("runoff_sink_lag_seconds", "{{sink}}"),
            text="Rising: the sink is down. Nothing is lost before the spool is full.",
        ),
        panel("Rows stored", "rowsps", (rate("runoff_sink_rows_total", "sink, outcome"), "{{sink}} {{outcome}}")),
        panel("Labels", "reqps", (rate("runoff_labels_total", "outcome"), "{{outcome}}")),
        panel(
            "Inputs too large to record",
            "reqps",
            (rate("runoff_inputs_too_large_total", "endpoint", where=_OF), "{{endpoint}}"),
        ),
    ],
    "Processes and models": [
        panel("Resident memory", "bytes", ("runoff_process_resident_bytes", "{{process}}")),
        panel(
            "Restarts in an hour",
            "short",
            ("sum by (process) (increase(runoff_process_restarts_total[1h]))", "{{process}}"),
        ),
        panel("Models by state", "short", ("runoff_model_state", "{{model}}/{{version}} {{state}}")),
        panel("Memory of models", "bytes", ("runoff_model_memory_bytes", "{{model}}/{{version}}")),
        panel("Trace spans", "short", (rate("runoff_spans_total", "outcome"), "{{outcome}}")),
        panel(
            "Telemetry's own bounds",
            "short",
            ("sum(increase(runoff_telemetry_series_overflow_total[1h]))", "series counted as other in an hour"),
            ("sum(increase(runoff_log_lines_dropped_total[1h]))", "log lines dropped in an hour"),
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The whole dashboard, in Grafana's JSON model (schema version 39, Grafana 10 and later)."""
    return {
        "uid": "runoff",
        "title": "Runoff",
        "tags": ["runoff", "model serving"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": "endpoint",
                    "type": "query",
                    "label": "Endpoint",
                    "datasource": _SOURCE,
                    "query": {"query": "label_values(runoff_revision, endpoint)", "refId": "endpoint"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": _laid_out(),
    }


def _laid_out() -> list[dict[str, Any]]:
    """Rows from top to bottom, their panels from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
                "panels": [],
            }
        )
        y += 1
        x = 0
        for item in row:
            width = item["gridPos"]["w"]
            if x + width > _WIDTH:
                x, y = 0, y + _HEIGHT
            panels.append({**item, "id": len(panels) + 1, "gridPos": {**item["gridPos"], "x": x, "y": y}})
            x += width
        y += _HEIGHT
    return panels


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text(), encoding="utf-8")
