"""Tables of `runoff ingest` that settings give a retention: old rows go from them, as from the tables of the records."""

import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.schema import INGESTED
from gateway.streams.table import LakeTable
from gateway.streams.upkeep import cutoff


def expire_ingested(uri: str, kept_s: int, now_us: int, vacuum_after_h: int) -> int:
    """Deletes rows of the table at `uri` that were ingested longer ago, and files that nothing of the last `vacuum_after_h` hours needs.

    Answers how many rows that was; a table that is not there has none. Raises CommitFailed. The files that the rows came from stay known:
    what was taken once is not taken again.
    """
    if not LakeTable.exists(uri):
        return 0
    table = LakeTable(uri, INGESTED, ())
    gone = table.drop(pc.field("_ingested_at") < pa.scalar(cutoff(now_us, kept_s)))
    table.compact(vacuum_after_h)
    return gone
