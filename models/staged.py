"""A model version made ready to be served: what staging leaves on disk and all that a worker ever reads of a model."""

from pathlib import Path
from typing import Final

import msgspec

from models.errors import ArtifactInvalid
from models.signature import Answer, Signature

MANIFEST: Final = "staged.json"


class ModelKey(msgspec.Struct, frozen=True, order=True):
    """A registered model version: name and version as text ("1" for files and runs). Hashable; the key of catalogs and metrics."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that the ONNX form answers as the original did, on `rows` rows of which `generated_rows` were made from the signature.

    Differences are the largest seen over all rows; `tolerance` is the bound `absolute + relative * |wanted|`.
    """

    rows: int
    generated_rows: int
    labels_equal: bool
    score_difference_max: float
    tolerance_absolute: float
    tolerance_relative: float
    kinds: tuple[str, ...] = ()
    original: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The measured curve of a session on this processor: seconds for one run by rows, and what was chosen from it."""

    processor: str = ""
    onnxruntime: str = ""
    seconds_by_rows: dict[int, float] = msgspec.field(default_factory=dict)
    rows_max: int = 64
    intra_threads: int = 1
    memory_bytes: int = 0


class StagedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest `staged.json`. `digest` is SHA-256 over the source files (sorted relative path, NUL, size, NUL, content).

    `file` is the ONNX file beside the manifest, `file_sha256` its own digest, checked when a worker loads it.
    `samples_file` (npz by input name, object arrays as unicode) holds rows used for warm-up.
    """

    key: ModelKey
    digest: str
    uri: str
    flavor: str
    file: str
    file_sha256: str
    size_bytes: int
    signature: Signature
    answer: Answer
    certificate: Certificate | None = None
    profile: Profile | None = None
    samples_file: str | None = None
    staged_at_unix: float = 0.0

    def write(self, folder: Path) -> None:
        """Writes the manifest into `folder`, last, by rename: a folder with a manifest is whole."""
        temporary = folder / (MANIFEST + ".new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self)))
        temporary.rename(folder / MANIFEST)

    @staticmethod
    def read(folder: Path) -> "StagedModel":
        """Reads the manifest of `folder`; raises ArtifactInvalid when it is missing or does not fit."""
        try:
            return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=StagedModel)
        except (OSError, msgspec.MsgspecError) as error:
            raise ArtifactInvalid(f"{MANIFEST} in artifact {folder.name[:12]} cannot be read: {error}") from error
