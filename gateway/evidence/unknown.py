"""Which labels of a table are not in the lake yet: the table is asked whole each time, so that nothing has to be remembered of it."""

from typing import Final, NamedTuple

import pyarrow as pa

from gateway.evidence.query import Queries

_KEY: Final = ("prediction_id", "request_id", "endpoint", '"row"')
_SAME_ROW: Final = " AND ".join(f"l.{name} IS NOT DISTINCT FROM t.{name}" for name in _KEY)

# A label without a row was stored under row 0 by older releases.
_NEW: Final = """
    CREATE TEMP TABLE news AS SELECT * FROM told t WHERE NOT EXISTS (
        SELECT 1 FROM labels l WHERE l.prediction_id IS NOT DISTINCT FROM t.prediction_id
            AND l.request_id IS NOT DISTINCT FROM t.request_id AND l.endpoint IS NOT DISTINCT FROM t.endpoint
            AND (l.row IS NOT DISTINCT FROM t.row OR (t.row IS NULL AND l.row = 0))
            AND l.label_text IS NOT DISTINCT FROM t.label_text AND (l."at" IS NOT DISTINCT FROM t."at" OR t."at" IS NULL)
    )
"""
_RECORDED: Final = """
    SELECT place FROM news n
    WHERE EXISTS (SELECT 1 FROM predictions p WHERE p.prediction_id = n.prediction_id AND p.received_at >= make_timestamptz($1))
        OR EXISTS (SELECT 1 FROM shadows s WHERE s.prediction_id = n.prediction_id AND s.received_at >= make_timestamptz($1))
        OR EXISTS (
            SELECT 1 FROM predictions p
            WHERE p.endpoint = n.endpoint AND p.request_id = n.request_id AND p.received_at >= make_timestamptz($1)
        )
    ORDER BY place
"""
_BACK: Final = f"""
    WITH mine AS (
        SELECT t.place, t.label_text AS told, l.label_text, l.sequence, coalesce(
            l."at", min(CASE WHEN l."at" IS NULL THEN l.received_at END) OVER (PARTITION BY t.place, l.label_text)
        ) AS holds_at
        FROM told t JOIN labels l ON {_SAME_ROW} WHERE t."at" IS NULL AND t.place NOT IN (SELECT place FROM news)
    )
    SELECT place FROM mine
    QUALIFY row_number() OVER (PARTITION BY place ORDER BY holds_at DESC, label_text DESC NULLS LAST, sequence) = 1
        AND label_text IS DISTINCT FROM told
    ORDER BY place
"""  # noqa: S608  # our own names


class Unknown(NamedTuple):
    """Places of labels. `new`: no stored one says the same. `back`: one does, but another holds, and these have no moment of their own."""

    new: list[int]
    back: list[int]


def unknown(queries: Queries, labels: pa.Table, since_unix_us: int) -> Unknown:
    """What of `labels` (as the table of that name has them) the lake lacks. Raises CommitFailed.

    Labels of predictions that the lake does not hold are neither: they are not recorded, not there yet, past their retention or
    forgotten, and a table that still has them must not bring them back. Nor must it those of predictions from before `since_unix_us`,
    which may stay longer than their labels.
    """
    with queries.snapshot("labels", "predictions", "shadows") as snapshot:
        told = labels.select(["prediction_id", "request_id", "endpoint", "row", "label_text", "at"])
        snapshot.take("told", told.append_column("place", pa.array(range(told.num_rows), pa.int64())))
        snapshot.run(_NEW)
        is_any_new = snapshot.rows("SELECT count(*) AS n FROM news")[0]["n"]
        new, back = snapshot.rows(_RECORDED, [since_unix_us]) if is_any_new else [], snapshot.rows(_BACK)
    return Unknown([row["place"] for row in new], [row["place"] for row in back])
