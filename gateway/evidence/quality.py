"""Quality against labels, by variant and mirror, always with its coverage: how many of the rows have a label at all.

Everything is a function of the stored rows: whatever their order, their repetitions and the looks before, it is the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.evidence import intervals
from gateway.evidence.intervals import Intervals, Units
from gateway.evidence.measures import Values, binary, calibration, classification, multiclass, regression
from gateway.evidence.query import Queries, Row, Snapshot, columns_of, literal, quoted, window_us
from gateway.evidence.segments import segment
from gateway.evidence.truths import hold_latest, resolve
from models.answer import text_of
from models.signature import Answer

_IS_DRAWN: Final = "(assigned_by = 'split' OR experiment)"
_LIVE: Final = {
    "answered": "SELECT *, variant AS name FROM predictions",
    # What another answered for a variant is its own, and so of the version that it had in that revision.
    "assigned": f"""
        SELECT p.* REPLACE (
            CASE WHEN p.fallback THEN coalesce(own.model, 'unknown') ELSE p.model END AS model,
            CASE WHEN p.fallback THEN coalesce(own.version, 'unknown') ELSE p.version END AS version
        ), p.assigned AS name
        FROM predictions p LEFT JOIN (
            SELECT revision, assigned, any_value(model) AS model, any_value(version) AS version FROM predictions
            WHERE endpoint = $1 AND variant = assigned GROUP BY ALL
        ) own USING (revision, assigned) WHERE {_IS_DRAWN}
    """,  # noqa: S608  # our own text
}
_ROLES: Final = """
    SELECT 'live' AS role, name, model, version, received_at, prediction_id, row, unit, answer_label, answer_score, {live} AS given,
        NULL::VARCHAR AS live_label
    FROM ({of}) WHERE endpoint = $1 AND variant IS NOT NULL {drawn}
    UNION ALL
    SELECT 'mirror', mirror, model, version, received_at, prediction_id, row, unit, answer_label, answer_score, {mirror}, live_label
    FROM shadows WHERE endpoint = $1 AND outcome = 'recorded' {drawn}
"""
_SUBJECTS: Final = """
CREATE TEMP TABLE subjects AS
    SELECT row_number() OVER (ORDER BY role, name, model, version)::USMALLINT AS who, * FROM (
        SELECT DISTINCT role, name, model, version FROM ({roles})
        WHERE received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3)
    )
"""
# As narrow as can be: there is a row for each of a million predictions. A subject is a number, and hashes stand for units.
_ANSWERED: Final = """
CREATE TEMP TABLE answered AS
    SELECT who, prediction_id::UUID AS id, row, received_at, answer_label, answer_score{given},
        hash(coalesce('u' || unit, 'p' || prediction_id)) AS unit,
        CASE WHEN live_label IS NULL THEN NULL WHEN answer_label = live_label THEN TRUE ELSE plain(answer_label) = plain(live_label) END AS agrees
    FROM ({roles}) a JOIN subjects s
        ON s.role = a.role AND s.name IS NOT DISTINCT FROM a.name AND s.model = a.model AND s.version = a.version
    WHERE received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3)
"""

_JUDGED: Final = """
CREATE TEMP TABLE judged AS
    SELECT who, id, row, unit, l.label_number, answer_score{given}, plain(l.label_text) AS truth, plain(answer_label) AS answer,
        (epoch_us(l.holds_at) - epoch_us(a.received_at)) / 1e6 AS delay_s
    FROM answered a JOIN latest_labels l USING (id, row) WHERE NOT l.retracted
"""
_DELAYS: Final = (0.5, 0.9, 0.99)
_IS: Final = "who = ?"
_WORST: Final = 10
_BINS: Final = 24
_BATCH_ROWS: Final = 1 << 17


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The window is [since, until) of arrival, in Unix seconds; None is open.

    `label_window_s`: what became known later after its prediction does not count (the route's `label.window`); None: everything counts.
    `segment_by`: a column of `predictions`, by whose values everything is told as well.

    `by`: whose an answer is. `assigned`: the variant's that was drawn, also where another answered for it, and without the requests that
    were pinned or ruled to theirs: what variants can be compared by. `answered`: of who answered, all of it.

    `one_in`: one prediction in so many is looked at, drawn by its id, with its mirrors and labels; measures and coverage are those of all.
    """

    endpoint: str
    by: str = "assigned"
    segment_by: str | None = None
    since_unix_s: float | None = None
    until_unix_s: float | None = None
    label_window_s: float | None = None
    one_in: int = 1


def quality(queries: Queries, question: Question, answers: Callable[[str], Answer | None]) -> dict[str, Any]:
    """Measures of every variant and mirror, each model version for itself. What cannot be measured is None.

    The newest label of a row holds, a retracted one counts as none. Labels and answers are compared in their plain form.
    Raises ValueError for a `segment_by` that is no column, and for a `by` that is neither.
    """
    if question.by not in _LIVE:
        raise ValueError(f"by: wanted assigned or answered, got {question.by!r}")
    bounds = [question.endpoint, *window_us(question.since_unix_s, question.until_unix_s)]
    # By assignment the versions of a revision may have been told before the window.
    since = question.since_unix_s if question.by == "answered" else None
    tables = ("predictions", "shadows", "labels", "sensitive")
    with queries.snapshot(*tables, endpoint=question.endpoint, since_unix_s=since) as snapshot:
        answer = _answer(snapshot, question.endpoint, answers)
        given = {table: _given(snapshot, table, answer) for table in ("predictions", "shadows")}
        drawn = f"AND hash(prediction_id) % {question.one_in} = 0" if question.one_in > 1 else ""
        more = ", given" if any(given.values()) else ""
        live, mirror = (given[table] or "NULL::DOUBLE[]" for table in ("predictions", "shadows"))
        roles = _ROLES.format(of=_LIVE[question.by], live=live, mirror=mirror, drawn=drawn)
        snapshot.run(_SUBJECTS.format(roles=roles), bounds)
        snapshot.run(_ANSWERED.format(roles=roles, given=more), bounds)
        snapshot.keep_one("answered", ("who", "id", "row"), "answer_label, answer_score")
        window_s = question.label_window_s
        resolve(snapshot, question.endpoint, since_unix_s=question.since_unix_s, window_s=window_s, drawn=drawn)
        hold_latest(snapshot)
        unused = snapshot.rows(
            "SELECT fault, count(*) AS labels FROM resolved WHERE fault IS NOT NULL AND id IN (SELECT id FROM answered)"
            " GROUP BY 1 ORDER BY 1"
        )
        snapshot.run("DROP TABLE resolved")
        snapshot.run(_JUDGED.format(given=more))
        kind = _kind(snapshot, answer)
        positive = _positive(snapshot, answer) if kind == "classification" else None
        form = Form(kind, positive, answer.classes if answer is not None and kind == "classification" else None)
        subjects = snapshot.rows(
            "SELECT who, role, name, model, version, count(*) AS n, epoch_us(max(received_at)) / 1e6 AS last_unix_s, avg(agrees::INT) AS agreement"
            " FROM answered JOIN subjects USING (who) GROUP BY ALL ORDER BY who"
        )
        delays = {
            row["who"]: row["delays"]
            for row in snapshot.rows(
                f"SELECT who, quantile_cont(delay_s, [{', '.join(map(str, _DELAYS))}]) AS delays FROM judged GROUP BY 1"  # noqa: S608  # numbers
            )
        }
        failed = _counts(snapshot, "assigned", f"(variant IS NULL OR fallback) {drawn}", bounds)
        left_out = (
            _counts(snapshot, "assigned_by", f"variant IS NOT NULL AND NOT {_IS_DRAWN} {drawn}", bounds)
            if question.by == "assigned"
            else {}
        )
        told = [
            _subject(snapshot, subject, form) | {"label_delay_s": _delay(delays.get(subject["who"]))}
            for subject in subjects
        ]
        if question.segment_by is not None:
            segment(snapshot, question.endpoint, question.segment_by, "answered")
            for subject, one in zip(subjects, told, strict=True):
                one["segments"] = _segments(snapshot, subject["who"], form)
        return {
            "endpoint": question.endpoint,
            "kind": kind,
            "positive": None if positive is None else _shown(positive, answer),
            "by": question.by,
            "failed": failed,
            "left_out": left_out,
            "labels_unused": {row["fault"]: row["labels"] for row in unused},
            "label_window_s": question.label_window_s,
            "segment_by": question.segment_by,
            "subjects": told,
        }


def _counts(snapshot: Snapshot, name: str, where: str, bounds: Sequence[object]) -> dict[str, int]:
    """Rows of the predictions in the window for which `where` holds, by a column's values."""
    found = snapshot.rows(
        f"SELECT {name} AS name, count(*) AS rows FROM predictions WHERE endpoint = $1 AND ({where}) AND {name} IS NOT NULL"  # noqa: S608  # our own text
        " AND received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3) GROUP BY 1 ORDER BY 1",
        bounds,
    )
    return {row["name"]: row["rows"] for row in found}


class Form(NamedTuple):
    """What is measured: `positive` in its plain form, None where no single class is meant; `classes` in the order of the scores."""

    kind: str
    positive: str | None
    classes: tuple[object, ...] | None


def _subject(snapshot: Snapshot, subject: Row, form: Form) -> Row:
    who = [subject["who"]]
    return {
        **{name: value for name, value in subject.items() if name != "who"},
        **_measured(snapshot, form, subject["n"], _IS, who),
        "over_time": _over_time(snapshot, form, who),
        "worst": _worst(snapshot, form, who),
    }


def _segments(snapshot: Snapshot, who: int, form: Form) -> list[Row]:
    """The same measures by value of the column; rows without the prediction's own record stand under None."""
    found = snapshot.rows(
        f"SELECT segment, count(*) AS n FROM answered LEFT JOIN segments USING (id, row) WHERE {_IS}"  # noqa: S608  # our own text
        " GROUP BY 1 ORDER BY min(place), 1",
        [who],
    )
    where = f"{_IS} AND segment IS NOT DISTINCT FROM ?"
    return [
        {"segment": one["segment"], "n": one["n"]}
        | _measured(
            snapshot, form, one["n"], where, [who, one["segment"]], source="judged LEFT JOIN segments USING (id, row)"
        )
        for one in found
    ]


def _measured(
    snapshot: Snapshot, form: Form, rows: int, where: str, values: list[Any], *, source: str = "judged"
) -> Row:
    """Labelled rows of those chosen by `where`, their measures and how sure these are."""
    if form.kind == "regression":
        found = snapshot.arrays(
            f"SELECT label_number AS truth, answer_score AS score, unit FROM {source} WHERE {where}"  # noqa: S608  # our own text
            " AND label_number IS NOT NULL AND answer_score IS NOT NULL",
            values,
        )
        labelled, measures = len(found["truth"]), regression(found["truth"], found["score"])
        sure = intervals.of_regression(found["truth"], found["score"], Units(found["unit"])) if labelled else {}
    else:
        labelled, measures, sure = _classes(snapshot, form, where, values, source)
    return {
        "labelled": labelled,
        "coverage": labelled / rows,
        **measures,
        "intervals": {name: one for name, one in sure.items() if one is not None},
    }


def _classes(
    snapshot: Snapshot, form: Form, where: str, values: list[Any], source: str
) -> tuple[int, dict[str, Any], Intervals]:
    known = f"FROM {source} WHERE {where} AND truth IS NOT NULL AND answer IS NOT NULL"
    pairs = snapshot.rows(
        f"SELECT truth, answer, count(*) AS rows {known} GROUP BY 1, 2 ORDER BY 1, 2", values
    )  # our own text
    labelled = sum(pair["rows"] for pair in pairs)
    measures: dict[str, Any] = classification(
        {(pair["truth"], pair["answer"]): pair["rows"] for pair in pairs}, form.positive
    )
    sure: Intervals = {}
    if labelled:
        names = sorted({pair[side] for pair in pairs for side in ("truth", "answer")})
        truths, answers, unit = _coded(snapshot, f"SELECT truth, answer, unit {known}", values, names)
        positive = names.index(form.positive) if form.positive in names else None
        sure = intervals.of_classes(truths, answers, positive, Units(unit))
    if form.positive is not None:
        scored = snapshot.arrays(
            f"SELECT (truth = ?)::INT AS truth, answer_score AS score, unit FROM {source} WHERE {where} AND truth IS NOT NULL AND answer_score IS NOT NULL",  # noqa: S608
            [form.positive, *values],
        )
        measures |= binary(scored["truth"], scored["score"]) | calibration(scored["truth"], scored["score"])
        sure |= intervals.of_probabilities(scored["truth"], scored["score"], Units(scored["unit"]))
    elif form.classes:
        came_true, matrix, unit = _matrix(snapshot, form.classes, where, values, source)
        measures |= multiclass(came_true, matrix)
        if len(came_true):
            units = Units(unit)
            chosen = matrix[np.arange(len(matrix)), came_true]
            sure["log_loss"] = intervals.of_mean(-np.log(np.clip(chosen, 1e-15, 1.0)), units)
            sure["auc"] = intervals.of_areas(came_true, matrix, units)
            measures |= calibration(matrix.argmax(axis=1) == came_true, matrix.max(axis=1))
    return labelled, measures, sure


def _coded(snapshot: Snapshot, sql: str, values: list[Any], names: Sequence[str]) -> tuple[Any, Any, Any]:
    """Truth and answer as places in `names`, and the unit: a number a row in place of a text that is an object of its own."""
    known = pa.array(names, pa.string())
    parts = [
        (
            *(pc.index_in(batch[side].cast(pa.string()), value_set=known).to_numpy() for side in ("truth", "answer")),
            batch["unit"].to_numpy(),
        )
        for batch in snapshot.batches(sql, values, rows=_BATCH_ROWS)
    ]
    truths, answers, unit = (np.concatenate(column) for column in zip(*parts, strict=True))
    return truths, answers, unit


def _matrix(
    snapshot: Snapshot, classes: tuple[object, ...], where: str, values: list[Any], source: str
) -> tuple[Any, Values, Any]:
    """Which class came true, the probabilities of all (rows, classes), and the unit, of rows that have all of these."""
    names = ", ".join(f"plain({literal(text_of(label))})" for label in classes)
    found = snapshot.batches(
        f"SELECT list_position([{names}], truth) - 1 AS truth, given, unit FROM {source} WHERE {where}"  # noqa: S608  # literals
        f" AND len(given) = {len(classes)} AND list_contains([{names}], truth)",
        values,
        rows=_BATCH_ROWS,
    ).read_all()
    matrix = found["given"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return found["truth"].to_numpy(), matrix.reshape(-1, len(classes)), found["unit"].to_numpy()


def _over_time(snapshot: Snapshot, form: Form, who: list[Any]) -> list[Row]:
    """Rows, labels and the plainest measure in at most 24 equal spans of the subject's time."""
    name, value = (
        ("mae", "abs(label_number - answer_score)")
        if form.kind == "regression"
        else ("accuracy", "(truth = answer)::INT")
    )
    return snapshot.rows(
        f"""
        WITH mine AS (SELECT id, row, epoch_us(received_at) / 1e6 AS unix_s FROM answered WHERE {_IS}),
        span AS (SELECT min(unix_s) AS first, greatest(1.0, (max(unix_s) - min(unix_s)) / {_BINS}) AS width FROM mine),
        told AS (SELECT id, row, {value} AS value FROM judged WHERE {_IS})
        SELECT first + width * least(floor((unix_s - first) / width), {_BINS - 1}) AS unix_s, count(*) AS n,
            count(value) AS labelled, avg(value) AS {name}
        FROM mine CROSS JOIN span LEFT JOIN told USING (id, row) GROUP BY 1 ORDER BY 1
        """,  # noqa: S608  # our own text
        [*who, *who],
    )


def _worst(snapshot: Snapshot, form: Form, who: list[Any]) -> list[Row]:
    """The rows that were most wrong: by distance, or wrong with the greatest score of what did not come true."""
    if form.kind == "regression":
        wrong, by = "abs(label_number - answer_score) > 0", "abs(label_number - answer_score)"
    else:
        likely = "coalesce(answer_score, 0)"
        by = likely if form.positive is None else f"abs((truth = {literal(form.positive)})::INT - {likely})"
        wrong = "truth <> answer"
    return snapshot.rows(
        f"WITH worst AS (SELECT who, id, row, {by} AS distance FROM judged WHERE {_IS} AND {wrong}"  # noqa: S608  # our own text
        f" ORDER BY distance DESC, id, row LIMIT {_WORST})"
        " SELECT id::VARCHAR AS prediction_id, row, label_text AS label, answer_label, answer_score, distance"
        " FROM worst JOIN answered USING (who, id, row) JOIN latest_labels USING (id, row) ORDER BY distance DESC, id, row",
        who,
    )


def _delay(found: Sequence[float] | None) -> dict[str, float] | None:
    """How long after its prediction a label became known; None without labels."""
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
    """The probabilities of several classes as a list, where they were stored as one output of that form, of whichever type; else nothing."""
    names = (
        columns_of(snapshot, table, "output", answer.score_output) if answer is not None and answer.score_output else []
    )
    if answer is None or not answer.classes or len(answer.classes) < 3 or not names:
        return ""
    return f"coalesce({', '.join(f'try_cast({quoted(name)} AS DOUBLE[])' for name in names)})"


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
    found = snapshot.rows("SELECT DISTINCT unnest([truth, answer]) AS label FROM judged ORDER BY 1 DESC")
    labels = [row["label"] for row in found if row["label"] is not None]
    return labels[0] if 0 < len(labels) <= 2 else None


def _shown(positive: str, answer: Answer | None) -> str:
    """The positive class by the model's own name for it."""
    return text_of(answer.classes[-1]) if answer is not None and answer.classes else positive
