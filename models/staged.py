"""A model version made ready to be served: what staging leaves on disk and all that a worker ever reads of a model."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from models.errors import ArtifactInvalid
from models.files import UNREADABLE, replace_file
from models.signature import Answer, Signature

MANIFEST: Final = "staged.json"

Count = Annotated[int, Meta(ge=1, le=1 << 31)]
"""Threads, runs or rows of a profile, within what a machine can count."""
Seconds = Annotated[float, Meta(ge=0)]


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


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How a session is opened and used: threads within a run, runs at once, memory arena, graph optimisation, and which file.

    `form` int8 is the file's twin with dynamically quantised weights: its scale is taken over a whole run, so it never shares one
    between callers. Spinning is no choice: sessions share their cores with event loops. `shares_weights`: they stay in the pages of the
    model's data file, which all workers have in common, so that ONNX Runtime does not repack them.
    """

    threads: Count = 1
    runs: Count = 1
    arena: bool = True
    optimisation: Literal["all", "extended", "basic"] = "all"
    form: Literal["plain", "int8"] = "plain"
    shares_weights: bool = False


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What tuning is to reach, and what it may take. `target_s`: the longest that one run may last.

    `int8` allows the quantised form, where its labels are equal and its scores within `score_tolerance` (absolute and relative).
    `share_weights` wants one copy of a large model's weights for all workers, at the cost of slower runs.
    """

    target_s: float = 0.05
    int8: bool = False
    score_tolerance: float = 0.01
    share_weights: bool = False


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Recorded requests by their rows; `inputs` is how many recorded rows the runs were made of."""

    endpoint: str
    requests: int
    rows_p50: int
    rows_p95: int
    rows_max: int
    inputs: int = 0


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One setting that was measured: its best batch, seconds of a run of it, and rows a second, both as measured beside each other."""

    setting: Setting
    rows: int
    seconds: float
    rows_per_s: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What tuning measured on one kind of processor with one ONNX Runtime, and what it chose. One file each beside the manifest.

    `seconds_by_rows` is the curve of the chosen setting: the least seconds of a run. `threads_max` is what a session could have then.
    `memory_bytes`: what one session adds to its process. `certificate` is that of the int8 form, where it was made and held.
    `twin_file`, `twin_sha256`: the int8 file beside the profile. `skipped` says what was not measured, and why.
    """

    processor: str = ""
    onnxruntime: str = ""
    threads_max: int = 1
    setting: Setting = Setting()
    seconds_by_rows: dict[Count, Seconds] = msgspec.field(default_factory=dict)
    rows_max: Count = 64
    memory_bytes: int = 0
    load_s: float = 0.0
    ask: Ask = Ask()
    target_met: bool = True
    traffic: Traffic | None = None
    trials: tuple[Trial, ...] = ()
    skipped: tuple[str, ...] = ()
    certificate: Certificate | None = None
    twin_file: str = ""
    twin_sha256: str = ""
    tuned_at_unix: float = 0.0
    took_s: float = 0.0


class StagedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest `staged.json`. `digest` is SHA-256 over the source files (sorted relative path, NUL, size, NUL, content).

    `file` is the ONNX file beside the manifest, `file_sha256` its own digest, checked when a worker loads it.
    `data_file` holds the weights of a large model, in `data_sha256`'s bytes, beside it.
    `samples_file` (npz by input name, object arrays as unicode) holds rows used for warm-up.
    `keeps_rows_apart`: what a row is answered does not hang on the rows beside it, so that callers may share a run.
    `profile` is filled in by who reads it for this machine (`models.profiles`): the manifest itself is the same everywhere.
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
    data_file: str | None = None
    data_sha256: str = ""
    certificate: Certificate | None = None
    profile: Profile | None = None
    samples_file: str | None = None
    keeps_rows_apart: bool = True
    staged_at_unix: float = 0.0

    def write(self, folder: Path) -> None:
        """Writes the manifest into `folder`, last, by rename: a folder with a manifest is whole."""
        replace_file(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(self)), durable=True)

    @staticmethod
    def read(folder: Path) -> "StagedModel":
        """Reads the manifest of `folder`; raises ArtifactInvalid when it is missing or does not fit."""
        try:
            return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=StagedModel)
        except UNREADABLE as error:
            raise ArtifactInvalid(f"{MANIFEST} in artifact {folder.name[:12]} cannot be read: {error}") from error
