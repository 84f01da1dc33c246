"""From a reference to a model that workers can load: resolve, fetch, verify, convert with its certificate, measure, keep."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from models.artifacts import SOURCE, Artifacts, Incoming, Remembered, digest_of, file_digest
from models.convert import isolation
from models.convert.job import DATA_FILE, MODEL_FILE, SAMPLES_FILE, Request
from models.errors import ArtifactInvalid, RegistryUnavailable, StagingRefused
from models.ref import ModelRef
from models.registry import Registry, ResolvedVersion
from models.staged import StagedModel
from models.tensors import Array, save_rows

Step = Literal["resolving", "fetching", "converting", "tuning", "staged"]
Progress = Callable[[Step], None]
Tune = Callable[[Path, StagedModel, dict[str, Array] | None], object]
"""Measures the model whose files lie in a folder, on recorded rows where there are any, and leaves a profile there. Never raises."""

_RECORDED: Final = "recorded.npz"


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows the isolated converter to open: skops types beyond the libraries' own, pickles by model name pattern."""

    types: tuple[str, ...] = ()
    pickle: tuple[str, ...] = ()


def _quiet(step: Step) -> None:
    """Tells nobody."""


def stage(
    ref: ModelRef,
    registry: Registry,
    artifacts: Artifacts,
    *,
    trust: Trust | None = None,
    recorded: Callable[[], dict[str, Array]] | None = None,
    tune: Tune | None = None,
    now_unix: Callable[[], float] = time.time,
    time_s_max: float = 900.0,
    on_progress: Progress = _quiet,
) -> StagedModel:
    """Makes the version ready, or finds it ready: staging twice does the work once. Blocks for seconds; call it on a thread.

    A pinned reference that was staged before is found without the registry. Files are content-addressed, so that a model which two
    references share is converted once; the answer carries the key and address of the reference asked for.
    `recorded` answers with rows by input name that production has seen, for the certificate and the samples; asked when it converts.
    `tune` measures what was converted, before it is kept; without it the first worker that loads the model does.
    Raises ModelUnknown, RegistryUnavailable, ReferenceInvalid, ArtifactInvalid or StagingRefused.
    """
    trust = trust or Trust()
    on_progress("resolving")
    try:
        resolved = registry.resolve(ref)
    except RegistryUnavailable:
        known = _recalled(str(ref), artifacts) if ref.is_pinned else None
        if known is None:
            raise
        on_progress("staged")
        return known
    known = _recalled(resolved.uri, artifacts, resolved.source)
    if known is not None:
        on_progress("staged")
        return known
    on_progress("fetching")
    with (
        artifacts.fetching(lambda folder: registry.download(resolved, folder)) as incoming,
        artifacts.writing(incoming.digest),
    ):
        staged = artifacts.find(incoming.digest)
        if staged is None:
            on_progress("converting")
            rows = recorded() if recorded else None
            staged = _convert(incoming, resolved, trust, rows, now_unix, time_s_max)
            if tune is not None:
                on_progress("tuning")
                tune(incoming.folder, staged, rows)
            artifacts.admit(incoming, staged)
    remembered = Remembered(key=resolved.key, uri=resolved.uri, source=resolved.source, digest=staged.digest)
    artifacts.remember(resolved.uri, remembered)
    on_progress("staged")
    return _found(remembered, staged)


def _recalled(uri: str, artifacts: Artifacts, source: str | None = None) -> StagedModel | None:
    """What was staged for `uri`; where `source` is given, only if its files still come from there."""
    remembered = artifacts.recall(uri)
    if remembered is None or source not in {None, remembered.source}:
        return None
    staged = artifacts.find(remembered.digest)
    return None if staged is None else _found(remembered, staged)


def _found(remembered: Remembered, staged: StagedModel) -> StagedModel:
    """The manifest under the name asked for: versions with the same files share one."""
    return msgspec.structs.replace(staged, key=remembered.key, uri=remembered.uri)


def _convert(
    incoming: Incoming,
    resolved: ResolvedVersion,
    trust: Trust,
    recorded: dict[str, Array] | None,
    now_unix: Callable[[], float],
    time_s_max: float,
) -> StagedModel:
    """Runs the isolated converter on the fetched files; what it wrote is a plain file or it is refused."""
    folder = incoming.folder
    request = Request(
        source=str(folder / SOURCE),
        into=str(folder),
        name=resolved.key.name,
        trust_types=trust.types,
        trust_pickle=trust.pickle,
        recorded=str(folder / _RECORDED) if recorded else None,
    )
    if recorded:
        save_rows(folder / _RECORDED, recorded)
    result = isolation.convert(request, time_s_max=time_s_max)
    (folder / _RECORDED).unlink(missing_ok=True)
    # The converter may have run a model's own code: what it left behind is looked at as fetched files are.
    if digest_of(folder / SOURCE) != incoming.digest:
        raise ArtifactInvalid(f"files of model '{resolved.uri}' changed while they were converted")
    model = folder / MODEL_FILE
    if model.is_symlink() or not model.is_file():
        raise StagingRefused("conversion_died", "the converter left no ONNX file")
    data = folder / DATA_FILE
    if data.is_symlink() or (data.exists() and not data.is_file()):
        raise StagingRefused("conversion_died", "the converter left weights that are no plain file")
    has_data = data.exists()
    return StagedModel(
        key=resolved.key,
        digest=incoming.digest,
        uri=resolved.uri,
        flavor=result.flavor,
        file=MODEL_FILE,
        file_sha256=file_digest(model),
        size_bytes=model.stat().st_size + (data.stat().st_size if has_data else 0),
        data_file=DATA_FILE if has_data else None,
        data_sha256=file_digest(data) if has_data else "",
        signature=result.signature,
        answer=result.answer,
        certificate=result.certificate,
        samples_file=SAMPLES_FILE if result.has_samples else None,
        keeps_rows_apart=result.keeps_rows_apart,
        staged_at_unix=now_unix(),
    )
