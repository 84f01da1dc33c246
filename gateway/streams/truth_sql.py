"""How labels come to their predictions, as SQL over the tables of the lake: for evidence, and for the feature store's readers.

The one definition of what a label by request id is about, of which row it means, and of when it became known.
"""

from typing import Final

COLUMNS: Final = ("label_text", "label_number", '"at"', "received_at", "keyed", "retracted", "attributes")
"""What a resolved label has beside its `sequence`, the prediction's `id`, the `row` and its `fault`."""

_OF_LABEL: Final = ", ".join(f"l.{name}" for name in COLUMNS)
_ROW: Final = """coalesce(l.row, CASE WHEN coalesce(p."rows", 1) = 1 THEN 0 END) AS row,
        CASE WHEN l.row IS NULL AND p."rows" > 1 THEN 'row_missing' WHEN l.row >= p."rows" THEN 'row_unknown' END AS fault"""

# Most requests have one row and most labels name none: neither is looked up here.
_SIZES: Final = """
    SELECT prediction_id, max("rows") AS "rows" FROM (
        SELECT prediction_id, "rows" FROM {sized} WHERE endpoint = $1 AND "rows" > 1 AND "row" = 0 {narrow_id}
        UNION ALL
        SELECT prediction_id, "rows" FROM {sized} SEMI JOIN (SELECT prediction_id FROM labels WHERE "row" > 0) USING (prediction_id)
        WHERE endpoint = $1 AND "rows" = 1 {narrow_id}
    ) GROUP BY 1
"""

RESOLVED: Final = f"""
    SELECT l.sequence, prediction_id::UUID AS id, {_ROW}, {_OF_LABEL}
    FROM labels l LEFT JOIN ({_SIZES}) p USING (prediction_id)
    WHERE prediction_id IS NOT NULL {{narrow_id}}
    UNION ALL
    SELECT greatest(l.sequence, p.sequence), p.prediction_id::UUID, {_ROW}, {_OF_LABEL}
    FROM labels l JOIN (
        SELECT prediction_id, request_id, "rows", min(sequence) AS sequence FROM predictions
        WHERE endpoint = $1 AND request_id IS NOT NULL {{narrow_id}} GROUP BY ALL
    ) p ON l.request_id = p.request_id
    WHERE l.prediction_id IS NULL AND l.endpoint = $1
"""  # noqa: S608  # our own names
"""Every label that may be about the endpoint ($1), one by request id once for each prediction that has it. `sequence` is the number with
which label and prediction were both there. A label without a row is of row 0 where the request had one row.

`fault` says why a label is of no row, and must not be used: `row_missing`, the request had several and it names none (`row` is null);
`row_unknown`, the request had fewer. `narrow_id` may add a condition on `prediction_id`; `sized` is where the rows of a request stand:
`predictions`, or `EVERYWHERE` where `shadows` can be asked too.
"""

EVERYWHERE: Final = """(
    SELECT prediction_id, endpoint, "row", "rows" FROM predictions UNION ALL SELECT prediction_id, endpoint, "row", "rows" FROM shadows
)"""
"""A request whose record is not sampled may be known by its mirrored rows alone."""

KNOWN_AT: Final = (
    'coalesce("at", min(CASE WHEN "at" IS NULL THEN received_at END) OVER (PARTITION BY id, row, label_text))'
)
"""When a label became known: as it says, else the first receipt of that content, so that delivering an old one again changes nothing."""
