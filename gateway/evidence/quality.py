"""Quality against labels, by variant and mirror, always with its coverage: how many of the rows have a label at all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.evidence.measures import binary, classification, log_loss, regression
from gateway.evidence.query import Queries, Row, Snapshot, literal, quoted
from gateway.evidence.truths import hold_latest, resolve
from models.answer import text_of
from models.signature import Answer

_EVER_US: Final = 4_102_444_800_000_000  # 2100

_ANSWERED: Final = """
CREATE TEMP TABLE answered AS
    SELECT 'live' AS role, variant AS name, model, version, prediction_id::UUID AS id, row, received_at, answer_label, answer_score, {live} AS given
    FROM predictions WHERE endpoint = $1 AND variant IS NOT NULL
        AND received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3)
    UNION ALL
    SELECT 'mirror', mirror, model, version, prediction_id::UUID, row, received_at, answer_label, answer_score, {mirror}
    FROM shadows WHERE endpoint = $1 AND outcome = 'recorded'
        AND received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3)
"""

_JUDGED: Final = """
CREATE TEMP TABLE judged AS
    SELECT role, name, model, version, l.label_number, l.label_text, answer_label, answer_score, given,
        (epoch_us(l.holds_at) - epoch_us(a.received_at)) / 1e6 AS delay_s
    FROM answered a JOIN latest_labels l USING (id, row) WHERE NOT l.retracted
"""
_COUNTED: Final = """
CREATE TEMP TABLE counted AS
    SELECT role, name, model, version, plain(label_text) AS truth, plain(answer_label) AS answer, rows FROM (
        SELECT role, name, model, version, label_text, answer_label, count(*) AS rows FROM judged
        WHERE label_text IS NOT NULL AND answer_label IS NOT NULL GROUP BY ALL
    )
"""
_TRUE: Final = "SELECT label_text FROM (SELECT DISTINCT label_text FROM judged) WHERE plain(label_text) = ?"
_DELAYS: Final = (0.5, 0.9, 0.99)
_WHO: Final = ("role", "name", "model", "version")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The window is [since, until) of arrival, in Unix seconds; None is open.

    `label_window_s`: what became known later after its prediction does not count (the route's `label.window`); None: everything counts.
    """

    endpoint: str
    since_unix_s: float | None = None
    until_unix_s: float | None = None
    label_window_s: float | None = None


def quality(queries: Queries, question: Question, answers: Callable[[str], Answer | None]) -> dict[str, Any]:
    """Measures of every variant (who answered) and mirror, each model version for itself. What cannot be measured is None.

    The newest label of a row holds, a retracted one counts as none. Labels and answers are compared in their plain form.
    """
    since_us = int((question.since_unix_s or 0) * 1e6)
    until_us = _EVER_US if question.until_unix_s is None else int(question.until_unix_s * 1e6)
    with queries.snapshot("predictions", "shadows", "labels") as snapshot:
        answer = _answer(snapshot, question.endpoint, answers)
        given = {table: _given(snapshot, table, answer) for table in ("predictions", "shadows")}
        sql = _ANSWERED.format(live=given["predictions"], mirror=given["shadows"])
        snapshot.run(sql, [question.endpoint, since_us, until_us])
        snapshot.keep_one("answered", (*_WHO, "id", "row"), "answer_label, answer_score")
        resolve(snapshot, question.endpoint, since_unix_s=question.since_unix_s, window_s=question.label_window_s)
        hold_latest(snapshot)
        snapshot.run(_JUDGED)
        snapshot.run(_COUNTED)
        kind = _kind(snapshot, answer)
        positive = _positive(snapshot, answer) if kind == "classification" else None
        subjects = snapshot.rows(
            "SELECT role, name, model, version, count(*) AS n, epoch_us(max(received_at)) / 1e6 AS last_unix_s"
            " FROM answered GROUP BY ALL ORDER BY role, name, model, version"
        )
        delays = {
            tuple(row[name] for name in _WHO): row["delays"]
            for row in snapshot.rows(
                f"SELECT role, name, model, version, quantile_cont(delay_s, [{', '.join(map(str, _DELAYS))}]) AS delays"  # noqa: S608  # numbers
                " FROM judged GROUP BY ALL"
            )
        }
        failed = snapshot.rows(
            "SELECT assigned AS name, count(*) AS rows FROM predictions WHERE endpoint = $1 AND (variant IS NULL OR fallback)"
            " AND received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3) GROUP BY 1 ORDER BY 1",
            [question.endpoint, since_us, until_us],
        )
        return {
            "endpoint": question.endpoint,
            "kind": kind,
            "positive": None if positive is None else _shown(positive, answer),
            "failed": {row["name"]: row["rows"] for row in failed if row["name"] is not None},
            "label_window_s": question.label_window_s,
            "subjects": [
                _subject(snapshot, subject, kind, positive, answer) | {"label_delay_s": _delay(subject, delays)}
                for subject in subjects
            ],
        }


def _subject(snapshot: Snapshot, subject: Row, kind: str, positive: str | None, answer: Answer | None) -> Row:
    who = [subject[name] for name in _WHO]
    where = "WHERE role = ? AND name = ? AND model = ? AND version = ?"
    if kind == "regression":
        found = snapshot.arrays(
            f"SELECT label_number AS truth, answer_score AS score FROM judged {where}"  # noqa: S608  # our own text
            " AND label_number IS NOT NULL AND answer_score IS NOT NULL",
            who,
        )
        return _told(subject, len(found["truth"]), regression(found["truth"], found["score"]))
    counts = snapshot.rows(f"SELECT truth, answer, sum(rows)::BIGINT AS rows FROM counted {where} GROUP BY 1, 2", who)  # noqa: S608
    confusion = {(row["truth"], row["answer"]): row["rows"] for row in counts}
    measures = classification(confusion, positive)
    if positive is not None:
        found = snapshot.arrays(
            f"SELECT (label_text IN ({_TRUE}))::INT AS truth, answer_score AS score FROM judged {where} AND label_text IS NOT NULL AND answer_score IS NOT NULL",  # noqa: S608
            [positive, *who],
        )
        measures |= binary(found["truth"], found["score"])
    elif answer is not None and answer.classes:
        classes = ", ".join(f"plain({literal(text_of(label))})" for label in answer.classes)
        found = snapshot.arrays(
            f"SELECT list_extract(given, list_position([{classes}], plain(label_text)))::DOUBLE AS given FROM judged {where}"  # noqa: S608
            f" AND len(given) = {len(answer.classes)} AND list_contains([{classes}], plain(label_text))",
            who,
        )
        measures |= {"log_loss": log_loss(found["given"]), "brier": None, "auc": None}
    return _told(subject, sum(confusion.values()), measures)


def _told(subject: Row, labelled: int, measures: dict[str, float | None]) -> Row:
    return {**subject, "labelled": labelled, "coverage": labelled / subject["n"], **measures}


def _delay(subject: Row, delays: Mapping[tuple[str, ...], Sequence[float]]) -> dict[str, float] | None:
    """How long after its prediction a label became known; None without labels."""
    found = delays.get(tuple(subject[name] for name in _WHO))
    return None if found is None else {f"p{at * 100:g}": value for at, value in zip(_DELAYS, found, strict=True)}


def _answer(snapshot: Snapshot, endpoint: str, answers: Callable[[str], Answer | None]) -> Answer | None:
    """How the endpoint's newest answers are read; its mirrors' are read alike, or they would have been refused."""
    found = snapshot.rows(
        "SELECT arg_max(digest, received_at) AS digest FROM predictions WHERE endpoint = ? AND variant IS NOT NULL",
        [endpoint],
    )
    digest = found[0]["digest"]
    return None if digest is None else answers(digest)


def _given(snapshot: Snapshot, table: str, answer: Answer | None) -> str:
    """The probabilities of several classes as a list, where they were stored as one output of that form."""
    column = f"output_{answer.score_output}" if answer is not None and answer.score_output else ""
    if answer is None or not answer.classes or len(answer.classes) < 3 or column not in snapshot.columns(table):
        return "NULL::DOUBLE[]"
    return f"{quoted(column)}::DOUBLE[]"


def _kind(snapshot: Snapshot, answer: Answer | None) -> str:
    if answer is not None and answer.kind != "other":
        return answer.kind
    has_labels = snapshot.rows("SELECT count(answer_label) > 0 AS has FROM answered")[0]["has"]
    return "classification" if has_labels else "regression"


def _positive(snapshot: Snapshot, answer: Answer | None) -> str | None:
    """The class whose probability is the score: the last of two; without a manifest the greater of two that occur."""
    if answer is not None and answer.classes:
        names = [text_of(label) for label in answer.classes]
        last = snapshot.rows("SELECT plain(?) AS label", [names[-1]])[0]["label"]
        return str(last) if len(names) == 2 else None
    found = snapshot.rows("SELECT DISTINCT unnest([truth, answer]) AS label FROM counted ORDER BY 1 DESC")
    labels = [row["label"] for row in found if row["label"] is not None]
    return labels[0] if 0 < len(labels) <= 2 else None


def _shown(positive: str, answer: Answer | None) -> str:
    """The positive class by the model's own name for it."""
    return text_of(answer.classes[-1]) if answer is not None and answer.classes else positive
