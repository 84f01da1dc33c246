"""One Parquet file, written whole or not at all, with facts about itself in its own metadata."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet


def write_parquet(path: Path, rows: pa.Table, facts: Mapping[str, bytes]) -> None:
    """Writes `rows` under a name of its own and renames it; `facts` go to the schema's metadata. Raises OSError."""
    metadata = {name.encode(): value for name, value in facts.items()}
    draft = path.with_name(path.name + ".new")
    try:
        parquet.write_table(rows.replace_schema_metadata(metadata), draft, compression="zstd")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
