"""What happened, in numbers: every one a query to the lake."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.demo.estimates import Estimate, Weighted, difference, weighted, wilson
from gateway.demo.lake import Lake
from gateway.demo.models import CANDIDATE, RECIPES
from gateway.demo.watch import Evidence
from routing.experiments.beta_binomial import log_e_value_above
from routing.experiments.mcnemar import McNemar, Verdict
from routing.experiments.pairing import Entry, PairedRow, Pairing, is_right

if TYPE_CHECKING:
    import pandas as pd

ARMS: Final[tuple[str, ...]] = tuple(recipe.alias for recipe in RECIPES)
ALPHA: Final = 0.05
_BINS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One model's quality on the flights whose truth came.

    `accuracy` and `log_loss` are weighted to all flights of July (by 1 / propensity), so that arms can be compared though the split
    moved; the others are over just the flights that it was shown. `expected_late` is the mean of its probabilities, `actual_late` the
    share that was late.
    """

    name: str
    rows: int
    labelled: int
    accuracy: Estimate
    plain_accuracy: float
    log_loss: Estimate
    auc: float
    expected_late: float
    actual_late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Candidate against champion, on the flights that the champion answered, in the order in which the truth came.

    The one question that is put before the first flight, so that the 5% stand for one verdict and not for several.

    `steps` has one row an entered flight: n, day, and the evidence as it then stood, log10_better and log10_worse (`state` holds the
    most there ever was, which is what decides). `decided_at` is n at the verdict, None without one.
    """

    state: McNemar
    steps: "pd.DataFrame"
    decided_at: int | None
    decided_day: int | None
    days_ahead: int
    days_behind: int
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim about two counts that must be equal."""

    claim: str
    here: int
    there: int

    @property
    def holds(self) -> bool:
        return self.here == self.there


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that the report shows. Frames are described where they are made.

    `accuracy` and `log_loss` are differences: of the first arm of the key less the second.
    """

    arms: dict[str, Arm]
    accuracy: dict[tuple[str, str], Estimate]
    log_loss: dict[tuple[str, str], Estimate]
    paired: Paired | None
    checks: list[Check]
    summary: dict[str, Any]
    protocols: "pd.DataFrame"
    split: "pd.DataFrame"
    agreement: "pd.DataFrame"
    daily: "pd.DataFrame"
    calibration: "pd.DataFrame"
    latency: "pd.DataFrame"


def find(lake: Lake, evidence: Evidence) -> Findings:
    """Reads everything. Arms that have no labelled flight are left out. `evidence` is the gateway's own, to be checked against ours."""
    arms, right, loss = _arms(lake)
    pairs = [("challenger", "champion"), (CANDIDATE, "champion"), (CANDIDATE, "challenger")]
    known = [pair for pair in pairs if arms.keys() >= set(pair)]
    paired = _paired(lake) if {"champion", CANDIDATE} <= arms.keys() else None
    return Findings(
        arms=arms,
        accuracy={(one, other): difference(right[one], right[other]) for one, other in known},
        log_loss={(one, other): difference(loss[one], loss[other]) for one, other in known},
        paired=paired,
        checks=_checks(lake) + (_same_test(paired, evidence) if paired else []),
        summary=_summary(lake),
        protocols=_protocols(lake),
        split=_split(lake),
        agreement=_agreement(lake),
        daily=_daily(lake),
        calibration=_calibration(lake),
        latency=_latency(lake),
    )


# ---------------------------------------------------------------- quality


def _arms(lake: Lake) -> tuple[dict[str, Arm], dict[str, Weighted], dict[str, Weighted]]:
    """The arms; and their accuracy and log loss, with what is needed to compare them."""
    shown = lake.frame("SELECT arm, count(*) AS n FROM answers GROUP BY arm").set_index("arm")["n"]
    plain = lake.frame("""
        WITH ranked AS (
            SELECT *, rank() OVER (PARTITION BY arm ORDER BY score) + (count(*) OVER (PARTITION BY arm, score) - 1) / 2 AS place
            FROM answers WHERE late IS NOT NULL
        )
        SELECT arm, count(*) AS labelled, avg(CAST(is_right AS INT)) AS accuracy, avg(score) AS expected, avg(late) AS actual,
               (sum(place) FILTER (late = 1) - sum(late) * (sum(late) + 1) / 2) / (sum(late) * sum(1 - late)) AS auc
        FROM ranked GROUP BY arm
    """).set_index("arm")
    arms, right, loss = {}, {}, {}
    for name in (name for name in ARMS if name in plain.index):
        rows = lake.frame(
            """
            SELECT CAST(is_right AS DOUBLE) AS is_right, greatest(least(score, 1 - 1e-9), 1e-9) AS p,
                   -late * ln(p) - (1 - late) * ln(1 - p) AS loss, weight, unit
            FROM answers WHERE arm = $arm AND late IS NOT NULL
            """,
            {"arm": name},
        )
        weights, units = rows["weight"].to_numpy(float), rows["unit"].to_numpy(object)
        right[name] = weighted(rows["is_right"].to_numpy(float), weights, units)
        loss[name] = weighted(rows["loss"].to_numpy(float), weights, units)
        of = plain.loc[name]
        arms[name] = Arm(
            name=name,
            rows=int(shown[name]),
            labelled=int(of["labelled"]),
            accuracy=right[name].interval(),
            plain_accuracy=float(of["accuracy"]),
            log_loss=loss[name].interval(),
            auc=float(of["auc"]),
            expected_late=float(of["expected"]),
            actual_late=float(of["actual"]),
        )
    return arms, right, loss


def _daily(lake: Lake) -> "pd.DataFrame":
    """Columns arm, day, n, accuracy, low, high (Wilson)."""
    rows = lake.frame("""
        SELECT arm, day, count(*) AS n, CAST(sum(CAST(is_right AS INT)) AS INT) AS right_n
        FROM answers WHERE late IS NOT NULL GROUP BY arm, day ORDER BY arm, day
    """)
    return _with_intervals(rows, "accuracy")


def _calibration(lake: Lake) -> "pd.DataFrame":
    """Columns arm, bin, expected (mean probability), n, actual, low, high: tenths of each arm's flights by probability."""
    rows = lake.frame(
        """
        WITH binned AS (
            SELECT arm, score, late, ntile($bins) OVER (PARTITION BY arm ORDER BY score) AS bin
            FROM answers WHERE late IS NOT NULL
        )
        SELECT arm, bin, avg(score) AS expected, count(*) AS n, CAST(sum(late) AS INT) AS right_n
        FROM binned GROUP BY arm, bin ORDER BY arm, bin
        """,
        {"bins": _BINS},
    )
    return _with_intervals(rows, "actual")


def _with_intervals(rows: "pd.DataFrame", name: str) -> "pd.DataFrame":
    found = [wilson(int(right), int(n)) for right, n in zip(rows["right_n"], rows["n"], strict=True)]
    return rows.assign(
        **{name: [one.value for one in found], "low": [one.low for one in found], "high": [one.high for one in found]}
    )


# ---------------------------------------------------------------- the candidate against who answered


def _paired(lake: Lake) -> Paired:
    """Feeds the gateway's own sequential test, one flight after another; each aircraft-day enters once."""
    rows = lake.rows("""
        SELECT prediction_id, unit, experiment, unit_missing, late, answer_label, shadow_label, day
        FROM july WHERE variant = 'champion' AND status = 200 AND is_shadowed AND late IS NOT NULL ORDER BY known_sequence, prediction_id
    """)
    pairing, state = Pairing(keys_in_use=False), McNemar(alpha=ALPHA)
    steps: list[tuple[float, ...]] = []
    decided: tuple[int, int] | None = None
    leads: dict[int, int] = {}
    better = worse = 0.0
    for prediction_id, unit, experiment, unit_missing, late, champion, candidate, day in rows:
        champion_is_right, candidate_is_right = is_right(late, champion), is_right(late, candidate)
        leads[day] = leads.get(day, 0) + candidate_is_right - champion_is_right
        row = PairedRow(
            prediction_id=prediction_id.encode(),
            unit=unit,
            experiment=experiment,
            unit_missing=unit_missing,
            label=late,
            champion_label=champion,
            candidate_label=candidate,
        )
        if pairing.admit(row) is not Entry.ENTERED:
            continue
        state = state.observe(champion_is_right=champion_is_right, candidate_is_right=candidate_is_right)
        if champion_is_right != candidate_is_right:
            better = log_e_value_above(state.wins, state.losses, a=state.a, b=state.b) / math.log(10)
            worse = log_e_value_above(state.losses, state.wins, a=state.b, b=state.a) / math.log(10)
        steps.append((state.rows, day, better, worse))
        if decided is None and state.verdict is not Verdict.INCONCLUSIVE:
            decided = (state.rows, day)
    return Paired(
        state=state,
        steps=_frame(steps, ("n", "day", "log10_better", "log10_worse")),
        decided_at=decided[0] if decided else None,
        decided_day=decided[1] if decided else None,
        days_ahead=sum(lead > 0 for lead in leads.values()),
        days_behind=sum(lead < 0 for lead in leads.values()),
        days=len(leads),
    )


def _agreement(lake: Lake) -> "pd.DataFrame":
    """Columns live (who answered), day, n, agreement."""
    return lake.frame("""
        SELECT variant AS live, day, count(*) AS n, avg(CAST(answer_label = shadow_label AS INT)) AS agreement
        FROM july WHERE status = 200 AND is_shadowed GROUP BY live, day ORDER BY live, day
    """)


# ---------------------------------------------------------------- traffic


def _summary(lake: Lake) -> dict[str, Any]:
    """Single numbers about the traffic."""
    return lake.row("""
        SELECT count(*) AS asked, count(*) FILTER (status = 200) AS answered, count(*) FILTER (status <> 200) AS failed,
               count(*) FILTER (unit_missing) AS unit_missing, count(*) FILTER (fallback) AS fallbacks,
               count(DISTINCT unit) AS units, count(late) AS labelled, avg(late) AS late_share,
               count(*) FILTER (is_shadowed) AS shadowed, avg(CAST(answer_label = shadow_label AS INT)) AS agreement,
               count(*) FILTER (answer_label <> shadow_label) AS disagreements,
               quantile_cont(total_us, 0.5) / 1e3 AS p50_ms, quantile_cont(total_us, 0.99) / 1e3 AS p99_ms,
               quantile_cont(shadow_lag_us, 0.5) / 1e3 AS lag_p50_ms, quantile_cont(shadow_lag_us, 0.99) / 1e3 AS lag_p99_ms,
               epoch(max(received_at) - min(received_at)) AS seconds, max(day) AS days, avg(batch_rows) AS batch_rows
        FROM july
    """)


def _protocols(lake: Lake) -> "pd.DataFrame":
    """Columns protocol, n, p50_ms, p99_ms inside the gateway, client_p50_ms, client_p99_ms as the applications saw it."""
    return lake.frame("""
        SELECT * FROM (
            SELECT protocol, count(*) AS n, quantile_cont(total_us, 0.5) / 1e3 AS p50_ms, quantile_cont(total_us, 0.99) / 1e3 AS p99_ms
            FROM july GROUP BY protocol
        ) JOIN (
            SELECT protocol, quantile_cont(latency_us, 0.5) / 1e3 AS client_p50_ms, quantile_cont(latency_us, 0.99) / 1e3 AS client_p99_ms
            FROM client_answers GROUP BY protocol
        ) USING (protocol) ORDER BY n DESC
    """)


def _split(lake: Lake) -> "pd.DataFrame":
    """Columns since (start of a half day of July), variant, share of the flights drawn by the split."""
    return lake.frame("""
        SELECT time_bucket(INTERVAL 12 HOUR, due) AS since, assigned AS variant, count(*) AS n,
               count(*) / sum(count(*)) OVER (PARTITION BY time_bucket(INTERVAL 12 HOUR, due)) AS share
        FROM july WHERE assigned_by = 'split' GROUP BY since, assigned ORDER BY since, assigned
    """)


def _latency(lake: Lake) -> "pd.DataFrame":
    """Columns protocol, gateway_ms (from the last byte in to the reply), client_ms (as the application measured); one row a request."""
    return lake.frame("""
        SELECT p.protocol, p.total_us / 1e3 AS gateway_ms, c.latency_us / 1e3 AS client_ms
        FROM july p JOIN client_answers c USING (prediction_id)
    """)


# ---------------------------------------------------------------- the applications' log against the lake


def _checks(lake: Lake) -> list[Check]:
    both = lake.row("""
        SELECT (SELECT count(*) FROM client_answers WHERE status = 200) AS client_answers,
               (SELECT count(*) FROM july WHERE status = 200) AS lake_answers,
               (SELECT count(*) FROM client_answers WHERE status = 200 AND variant = 'challenger') AS client_challenger,
               (SELECT count(*) FROM july WHERE status = 200 AND variant = 'challenger') AS lake_challenger,
               (SELECT count(DISTINCT prediction_id) FROM july) AS ids,
               (SELECT count(*) FROM july) AS records,
               (SELECT count(*) FROM client_answers c JOIN july p USING (prediction_id)
                WHERE c.status = 200 AND c.request_id = p.request_id AND c.variant = p.variant AND c.revision = p.revision
                  AND c.protocol = p.protocol AND CAST(c.label AS VARCHAR) = p.answer_label) AS same_answers,
               (SELECT count(*) FROM client_labels WHERE posted = 1) AS client_labels,
               (SELECT count(*) FROM lake_labels) AS lake_labels,
               (SELECT count(*) FROM client_labels c JOIN july p USING (prediction_id) WHERE c.posted = 1 AND c.label = p.late) AS same_labels,
               (SELECT count(*) FROM july WHERE is_shadowed) AS shadowed,
               (SELECT count(*) FROM lake_shadows) AS shadow_rows
    """)
    counted: Sequence[tuple[str, str, str]] = (
        ("answers the applications received, and successful predictions in the lake", "client_answers", "lake_answers"),
        ("of these by the challenger", "client_challenger", "lake_challenger"),
        ("answers received, and records with the same id, flight, protocol, variant, revision and label", "client_answers", "same_answers"),
        ("records of predictions, and different prediction ids among them", "records", "ids"),
        ("labels the world posted, and labels in the lake", "client_labels", "lake_labels"),
        ("labels posted, and predictions that carry exactly this label", "client_labels", "same_labels"),
        ("rows of the candidate, and predictions that they belong to", "shadow_rows", "shadowed"),
    )  # fmt: skip
    return [Check(claim=claim, here=int(both[here]), there=int(both[there])) for claim, here, there in counted]


def _same_test(paired: Paired, evidence: Evidence) -> list[Check]:
    state = paired.state
    return [
        Check(
            claim="units in the paired test: by this report from the lake, by the gateway's ledger",
            here=state.rows,
            there=evidence.units,
        ),
        Check(claim="of these only the candidate right", here=state.wins, there=evidence.wins),
        Check(claim="of these only the champion right", here=state.losses, there=evidence.losses),
    ]


def _frame(rows: Sequence[tuple[float, ...]], columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(np.array(rows, float).reshape(-1, len(columns)), columns=list(columns))
