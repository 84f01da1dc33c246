"""Rows by the value of a recorded column: by the values where it has few, by its quarters where it is a number with many, else by the most frequent."""

from typing import Final

from gateway.evidence.query import Snapshot, quoted

_KINDS_MAX: Final = 20


def is_sensitive(column: str) -> bool:
    """Whether a column is one of the table `sensitive`, which is for readers with the scope for it."""
    return column.startswith("attribute_")


def table_of(snapshot: Snapshot, column: str) -> str:
    """The table that has a column to part rows by. Raises ValueError."""
    table = "sensitive" if is_sensitive(column) else "predictions"
    if column not in snapshot.columns(table):
        raise ValueError(
            f"segment_by: no column {column!r} in the {'attributes kept apart' if table == 'sensitive' else table}"
        )
    return table


def segment(snapshot: Snapshot, endpoint: str, column: str, of: str) -> None:
    """Makes `segments` (id, row, segment as text, place in the order to show) of the rows that the table `of` names by id and row.

    Raises ValueError where `column` is neither of the predictions nor a sensitive attribute.
    """
    table = table_of(snapshot, column)
    snapshot.run(
        f"CREATE OR REPLACE TEMP TABLE parted AS SELECT DISTINCT ON (s.prediction_id, s.row) s.prediction_id::UUID AS id, s.row, s.{quoted(column)} AS value"  # noqa: S608  # a known column, quoted
        f" FROM {table} s WHERE s.endpoint = ? AND (s.prediction_id::UUID, s.row) IN (SELECT (id, row) FROM {of})",
        [endpoint],
    )
    kind = snapshot.rows(
        "SELECT count(DISTINCT value) AS kinds, count(try_cast(value::VARCHAR AS DOUBLE)) = count(value) AS is_number FROM parted"
    )[0]
    if kind["kinds"] > _KINDS_MAX and kind["is_number"]:
        found = """
            SELECT id, row, quarter AS place, min(value) OVER of_quarter || ' to ' || max(value) OVER of_quarter AS segment
            FROM (SELECT *, ntile(4) OVER (ORDER BY value, id, row) AS quarter FROM parted WHERE value IS NOT NULL)
            WINDOW of_quarter AS (PARTITION BY quarter)
        """
    else:
        found = f"""
            SELECT id, row, place, value::VARCHAR AS segment FROM parted JOIN (
                SELECT value, row_number() OVER (ORDER BY count(*) DESC, value) AS place FROM parted GROUP BY 1
            ) USING (value) WHERE place <= {_KINDS_MAX}
        """  # noqa: S608  # a number of ours
    snapshot.run(f"CREATE OR REPLACE TEMP TABLE segments AS {found}")
