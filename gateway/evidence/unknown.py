"""Which labels of a table are not in the lake yet: the table is asked whole each time, so that nothing has to be remembered of it."""

import pyarrow as pa

from gateway.evidence.query import Queries

_UNKNOWN = """
    SELECT place FROM (SELECT row_number() OVER () - 1 AS place, * FROM told) t WHERE NOT EXISTS (
        SELECT 1 FROM labels l WHERE l.prediction_id IS NOT DISTINCT FROM t.prediction_id
            AND l.request_id IS NOT DISTINCT FROM t.request_id AND l.endpoint IS NOT DISTINCT FROM t.endpoint
            AND l.row = t.row AND l.label_text IS NOT DISTINCT FROM t.label_text AND l."at" IS NOT DISTINCT FROM t."at"
    ) ORDER BY place
"""


def unknown(queries: Queries, labels: pa.Table) -> list[int]:
    """The places of those rows of `labels` (as the table of that name has them) that no stored label equals. Raises CommitFailed."""
    with queries.snapshot("labels") as snapshot:
        snapshot.take("told", labels.select(["prediction_id", "request_id", "endpoint", "row", "label_text", "at"]))
        return [row["place"] for row in snapshot.rows(_UNKNOWN)]
