"""How labels come to their predictions, as SQL over the tables of the lake: for evidence, and for the feature store's readers.

The one definition of what a label by request id is about, and of when a label became known.
"""

from typing import Final

COLUMNS: Final = ("row", "label_text", "label_number", '"at"', "received_at", "keyed", "retracted", "attributes")
"""What a resolved label has beside its `sequence` and the prediction's `id`."""

_PLAIN: Final = ", ".join(COLUMNS)
_OF_LABEL: Final = ", ".join(f"l.{name}" for name in COLUMNS)

RESOLVED: Final = f"""
    SELECT sequence, prediction_id::UUID AS id, {_PLAIN}
    FROM labels WHERE prediction_id IS NOT NULL {{narrow_id}}
    UNION ALL
    SELECT greatest(l.sequence, p.sequence), p.prediction_id::UUID, {_OF_LABEL}
    FROM labels l JOIN (
        SELECT prediction_id, request_id, min(sequence) AS sequence FROM predictions
        WHERE endpoint = $1 AND request_id IS NOT NULL {{narrow_id}} GROUP BY ALL
    ) p ON l.request_id = p.request_id
    WHERE l.prediction_id IS NULL AND l.endpoint = $1
"""  # noqa: S608  # our own names
"""Every label that may be about the endpoint ($1), one by request id once for each prediction that has it. `sequence` is the number with
which label and prediction were both there. `narrow_id` may add a condition on `prediction_id`."""

KNOWN_AT: Final = (
    'coalesce("at", min(CASE WHEN "at" IS NULL THEN received_at END) OVER (PARTITION BY id, row, label_text))'
)
"""When a label became known: as it says, else the first receipt of that content, so that delivering an old one again changes nothing."""
