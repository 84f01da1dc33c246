"""Labels brought to the rows they are about: which one holds now, and which one a test met first."""

from gateway.evidence.query import Snapshot
from gateway.streams.arrow import id_floor
from gateway.streams.truth_sql import EVERYWHERE, KNOWN_AT, RESOLVED

_RESOLVED = f"""
CREATE TEMP TABLE resolved AS
SELECT * FROM ({RESOLVED}) WHERE $2 IS NULL OR epoch_us(coalesce("at", received_at)) - unix_us_of(id) <= $2
"""  # noqa: S608  # our own names

# Most rows have one label: those are not sorted.
_LATEST = f"""
CREATE TEMP TABLE latest_labels AS
    WITH often AS (SELECT id, row FROM resolved WHERE fault IS NULL GROUP BY ALL HAVING count(*) > 1)
    SELECT *, coalesce("at", received_at) AS holds_at FROM resolved ANTI JOIN often USING (id, row) WHERE fault IS NULL
    UNION ALL
    SELECT * FROM (SELECT *, {KNOWN_AT} AS holds_at FROM resolved SEMI JOIN often USING (id, row) WHERE fault IS NULL)
    QUALIFY row_number() OVER (PARTITION BY id, row ORDER BY holds_at DESC, label_text DESC NULLS LAST, sequence) = 1
"""  # noqa: S608  # our own names

_FIRST = """
CREATE TEMP TABLE first_labels AS
    SELECT id, row, min(sequence) AS sequence, arg_min(label_text, sequence) AS label_text,
        arg_min({'number': label_number}, sequence).number AS label_number -- in a struct, or nulls would be passed over
    FROM resolved WHERE fault IS NULL AND NOT retracted AND label_text IS NOT NULL AND (keyed OR NOT $1)
    GROUP BY id, row
"""


def resolve(
    snapshot: Snapshot,
    endpoint: str,
    *,
    prediction_id: str | None = None,
    since_unix_s: float | None = None,
    window_s: float | None = None,
    drawn: str = "",
) -> None:
    """Makes `resolved`: every label that may be about the endpoint, with its prediction's `id`; a label by request id once for each
    prediction that has it. `sequence` is the number with which label and prediction were both there.

    With `prediction_id` only that one's; with `since_unix_s` only of predictions from then on (others may be there all the same);
    with `window_s` only what became known so soon after its prediction (the route's `label.window`); with `drawn`, a condition on
    `prediction_id`, only of those predictions. Labels with a `fault` are of no row:
    they are there to be counted.
    """
    narrow, values = "", [endpoint, None if window_s is None else int(window_s * 1e6)]
    if prediction_id is not None:
        narrow, values = "AND prediction_id = $3", [*values, prediction_id]
    elif since_unix_s is not None and since_unix_s > 0:
        narrow, values = "AND prediction_id >= $3", [*values, id_floor(since_unix_s)]
    snapshot.run(
        _RESOLVED.format(
            narrow_id=f"{narrow} {drawn}", sized=EVERYWHERE if "shadows" in snapshot.versions else "predictions"
        ),
        values,
    )


def hold_latest(snapshot: Snapshot) -> None:
    """Makes `latest_labels` of `resolved`: the label that holds for each row, which may be a retraction.

    The newest `at` holds, ties by content. A label without `at` counts from the first receipt of that content, so that delivering an
    old one again does not undo a correction.
    """
    snapshot.run(_LATEST)


def hold_first(snapshot: Snapshot, *, keys_in_use: bool) -> None:
    """Makes `first_labels` of `resolved`: the first committed label of each row that may enter a test, with its sequence."""
    snapshot.run(_FIRST, [keys_in_use])
