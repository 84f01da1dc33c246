"""The paired ledger: what each mirror answered on the very rows that production answered, and whether that makes it better.

Everything is computed from the stored pairs. A verdict is given only where labels are exogenous (the truth does not depend on the
answer): otherwise the labels themselves may be production's doing, and only agreement is told.
"""

from typing import Any, Final

import msgspec

from gateway.evidence.paired import Outcomes, Paired, PairedTests
from gateway.evidence.query import Queries, Row, Snapshot, literal, window_us
from gateway.evidence.segments import segment, table_of
from gateway.evidence.truths import hold_first, resolve
from routing.experiments.betting import LossTest
from routing.experiments.mcnemar import McNemar, Verdict

_QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_WORST: Final = 10
_FLIPS_MAX: Final = 50
_BINS: Final = 24
DROPPED_SHARE_MAX: Final = 0.01
"""Of the rows that were drawn for a mirror; above it nothing is decided."""
_VERSIONS_MAX: Final = 20
_PAIR: Final = ("mirror", "model", "version", "live_model", "live_version")

_PAIRS: Final = """
CREATE TEMP TABLE pairs AS
    SELECT sequence AS pair_sequence, prediction_id::UUID AS id, row, epoch_us(received_at) AS unix_us, live_variant, unit, experiment, outcome, lag_us,
        answer_label, answer_score, live_label, live_score, mirror, model, version, live_model, live_version,
        answer_score - live_score AS difference,
        CASE WHEN answer_label = live_label THEN TRUE ELSE plain(answer_label) = plain(live_label) END AS agrees
    FROM shadows
    WHERE endpoint = $1 AND ($2 IS NULL OR mirror = $2) AND ($3 IS NULL OR live_variant = $3)
        AND received_at >= make_timestamptz($4) AND received_at < make_timestamptz($5)
"""
_PAIR_KEY: Final = ("mirror", "model", "version", "id", "row")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the ledger; equal questions of equal tables have equal answers.

    `mirror` None: all. `champion`: only rows that this variant answered, whom mirrors are compared with. `segment_by`: a column of
    `predictions`. The window is [since, until) of arrival, in Unix seconds. `exogenous` and `keys_in_use` as the route and settings say.
    `label_window_s`: what became known later after its prediction does not count; None: everything counts.
    """

    endpoint: str
    mirror: str | None = None
    champion: str | None = None
    segment_by: str | None = None
    since_unix_s: float | None = None
    until_unix_s: float | None = None
    exogenous: bool = False
    keys_in_use: bool = False
    label_window_s: float | None = None
    alpha: float = 0.05


def ledger(queries: Queries, question: Question, tests: PairedTests) -> dict[str, Any]:
    """The ledger of one endpoint, by mirror. Raises ValueError for a `segment_by` that is no column."""
    tables = ("predictions", "shadows", "labels", "sensitive")
    with queries.snapshot(*tables, endpoint=question.endpoint, since_unix_s=question.since_unix_s) as snapshot:
        if question.segment_by is not None:
            table_of(snapshot, question.segment_by)
        window = window_us(question.since_unix_s, question.until_unix_s)
        snapshot.run(_PAIRS, [question.endpoint, question.mirror, question.champion, *window])
        snapshot.keep_one("pairs", _PAIR_KEY, "outcome <> 'recorded', pair_sequence")
        if question.exogenous:
            resolve(snapshot, question.endpoint, since_unix_s=question.since_unix_s, window_s=question.label_window_s)
            hold_first(snapshot, keys_in_use=question.keys_in_use)
        mirrors = snapshot.rows("SELECT DISTINCT mirror FROM pairs ORDER BY mirror")
        return {
            "endpoint": question.endpoint,
            "champion": question.champion,
            "exogenous": question.exogenous,
            "mirrors": [_mirror(snapshot, row["mirror"], question, tests) for row in mirrors],
        }


def _mirror(snapshot: Snapshot, mirror: str, question: Question, tests: PairedTests) -> dict[str, Any]:
    """One mirror: its present model against production's present one, drops by reason, and earlier pairs in short."""
    outcomes = snapshot.rows(
        "SELECT outcome, count(*) AS rows FROM pairs WHERE mirror = ? GROUP BY 1 ORDER BY 1", [mirror]
    )
    dropped = {row["outcome"]: row["rows"] for row in outcomes if row["outcome"] != "recorded"}
    drawn = sum(row["rows"] for row in outcomes)
    versions = snapshot.rows(
        "SELECT mirror, model, version, live_model, live_version, count(*) AS rows, avg(agrees::INT) AS agreement,"
        " min(unix_us) / 1e6 AS since_unix_s, max(unix_us) / 1e6 AS until_unix_s FROM pairs"
        " WHERE mirror = ? AND outcome = 'recorded' GROUP BY ALL ORDER BY until_unix_s DESC, model, version, live_version LIMIT ?",
        [mirror, _VERSIONS_MAX],
    )
    told = {"mirror": mirror, "drawn": drawn, "dropped": dropped, "dropped_share": sum(dropped.values()) / drawn}
    if not versions:
        return {**told, "rows": 0, "agreement": None, "earlier": []}
    present = versions[0]
    is_present = " AND ".join(f"{name} = {literal(present[name])}" for name in _PAIR)
    snapshot.run(
        f"CREATE OR REPLACE TEMP VIEW pair AS SELECT * FROM pairs WHERE outcome = 'recorded' AND {is_present}"  # noqa: S608  # quoted
    )
    return {**told, **_pair(snapshot, present, question, tests), "earlier": versions[1:]}


def _pair(snapshot: Snapshot, present: Row, question: Question, tests: PairedTests) -> dict[str, Any]:
    quantiles = ", ".join(map(str, _QUANTILES))
    difference = snapshot.rows(
        f"SELECT count(difference) AS rows, avg(difference) AS mean, avg(abs(difference)) AS mean_absolute,"  # noqa: S608  # numbers
        f" quantile_cont(difference, [{quantiles}]) AS found, quantile_cont(lag_us, [0.5, 0.99]) AS lags FROM pair"
    )[0]
    found = difference["found"] or [None] * len(_QUANTILES)
    return {
        **present,
        "against": {"model": present["live_model"], "version": present["live_version"]},
        "flips": snapshot.rows(
            "SELECT live_label AS live, answer_label AS mirror, count(*) AS rows FROM pair WHERE NOT agrees"
            " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT ?",
            [_FLIPS_MAX],
        ),
        "score_difference": {
            "rows": difference["rows"],
            "mean": difference["mean"],
            "mean_absolute": difference["mean_absolute"],
            "quantiles": {str(at): value for at, value in zip(_QUANTILES, found, strict=True)},
        },
        "lag_s": {"p50": difference["lags"][0] / 1e6, "p99": difference["lags"][1] / 1e6},
        "worst": snapshot.rows(
            "SELECT id::VARCHAR AS prediction_id, row, live_label, answer_label AS mirror_label, live_score, answer_score AS mirror_score FROM pair"
            " WHERE NOT coalesce(agrees, TRUE) OR difference <> 0"
            " ORDER BY coalesce(abs(difference), -1) DESC, id, row LIMIT ?",
            [_WORST],
        ),
        "over_time": _over_time(snapshot, present),
        "segments": None if question.segment_by is None else _segments(snapshot, question),
        "evidence": _evidence(snapshot, present, question, tests),
    }


def _over_time(snapshot: Snapshot, present: Row) -> list[Row]:
    """Agreement in at most 24 equal spans of the time that the pair has stood."""
    first = present["since_unix_s"]
    span_s = max(1.0, (present["until_unix_s"] - first) / _BINS)
    return snapshot.rows(
        "SELECT $1 + $2 * least(floor((unix_us / 1e6 - $1) / $2), $3 - 1) AS unix_s, count(*) AS rows, avg(agrees::INT) AS agreement,"
        " avg(abs(difference)) AS mean_absolute_difference FROM pair GROUP BY 1 ORDER BY 1",
        [first, span_s, _BINS],
    )


def _segments(snapshot: Snapshot, question: Question) -> list[Row]:
    segment(snapshot, question.endpoint, question.segment_by or "", "pair")
    return snapshot.rows(
        "SELECT segment, count(*) AS rows, avg(agrees::INT) AS agreement, avg(difference) AS mean_difference"
        " FROM pair JOIN segments USING (id, row) GROUP BY segment, place ORDER BY place"
    )


def _evidence(snapshot: Snapshot, present: Row, question: Question, tests: PairedTests) -> dict[str, Any]:
    """The sequential test on labelled pairs: each unit once, with its first eligible labelled row.

    The order is that in which control had both the pair and its label, so that nothing is ever put in before what was seen already.
    """
    if not question.exogenous:
        return {
            "verdict": "agreement_only",
            "because": "label.exogenous is not set: the truth may depend on the answer",
        }
    return _unless_dropped(snapshot, present, _tested(snapshot, present, question, tests).told())


def _unless_dropped(snapshot: Snapshot, present: Row, told: dict[str, Any]) -> dict[str, Any]:
    """No verdict where too much that was drawn has no answer: drops under load favour easy traffic (research A3.6).

    Counted since this pair of versions stands, so that a version before it that failed is not held against it.
    """
    (found,) = snapshot.rows(
        "SELECT avg((outcome <> 'recorded')::INT) AS share FROM pairs WHERE mirror = ? AND unix_us BETWEEN ? AND ?",
        [present["mirror"], round(present["since_unix_s"] * 1e6), round(present["until_unix_s"] * 1e6)],
    )
    if found["share"] <= DROPPED_SHARE_MAX or told["verdict"] == Verdict.INCONCLUSIVE:
        return told
    because = (
        f"{told['verdict']} on what was answered, but {found['share']:.1%} of what was drawn meanwhile was dropped"
    )
    return {**told, "verdict": Verdict.INCONCLUSIVE.value, "because": f"{because} (at most {DROPPED_SHARE_MAX:.0%})"}


def _tested(snapshot: Snapshot, present: Row, question: Question, tests: PairedTests) -> Paired:
    key = (question.endpoint, question.champion, *(present[name] for name in _PAIR), question.keys_in_use)
    key = (*key, question.since_unix_s, question.until_unix_s)
    if snapshot.rows("SELECT count(live_label) = 0 AND count(live_score) > 0 AS is_regression FROM pair")[0][
        "is_regression"
    ]:
        found = _first_of_units(
            snapshot,
            live="abs(label_number - live_score)",
            mirror="abs(label_number - answer_score)",
            where="label_number IS NOT NULL AND live_score IS NOT NULL AND answer_score IS NOT NULL",
        )
        return tests.test(key, LossTest(alpha=question.alpha), found)
    found = _first_of_units(
        snapshot,
        live="label_text = live_label OR plain(label_text) = plain(live_label)",
        mirror="label_text = answer_label OR plain(label_text) = plain(answer_label)",
        where="live_label IS NOT NULL AND answer_label IS NOT NULL",
    )
    return tests.test(key, McNemar(alpha=question.alpha), found)


def _first_of_units(snapshot: Snapshot, *, live: str, mirror: str, where: str) -> Outcomes:
    """Place in the order, and what SQL tells of production and mirror, of each unit's first eligible row."""
    found = snapshot.arrays(
        f"SELECT greatest(pair_sequence, sequence) AS place, {live} AS live, {mirror} AS mirror"  # noqa: S608  # our own text
        f" FROM pair JOIN first_labels USING (id, row) WHERE experiment AND {where}"
        " QUALIFY row_number() OVER (PARTITION BY coalesce('u' || unit, 'p' || id::VARCHAR) ORDER BY place, id, row) = 1"
        " ORDER BY place, id, row"
    )
    return Outcomes(found["place"], found["live"], found["mirror"])
