"""What may go wrong in `models`, as one tree of plain exceptions; `gateway/errors.py` is the only place that turns them into statuses.

ModelsError
├── InputInvalid          the caller's input does not fit the signature; the caller can mend it
├── ModelFailed           the model raised or answered something unusable for a valid input
├── NotWarm               the model is not loaded here (never loaded on request)
├── ReferenceInvalid      a model reference that cannot be understood or is not allowed
├── ModelUnknown          the registry answers, and has no such model, version or alias
├── RegistryUnavailable   the registry does not answer; what is warm goes on
├── ArtifactInvalid       files that fail verification (digest, symlink, external data, size)
└── StagingRefused        a version that cannot be served: conversion, parity, compatibility, warm-up
"""


class ModelsError(Exception):
    """Root of everything that `models` raises on purpose."""


class InputInvalid(ModelsError):
    """An input does not fit the signature. The message names the input, what was wanted and what was got, never a value."""


class ModelFailed(ModelsError):
    """The model raised, or its answer has not one row for each input row."""


class NotWarm(ModelsError):
    """No loaded session for this model here; the data path never loads one."""


class ReferenceInvalid(ModelsError):
    """A model reference that cannot be understood or that is refused; the message carries the remedy."""


class ModelUnknown(ModelsError):
    """The registry answered and has no such model, version or alias."""


class RegistryUnavailable(ModelsError):
    """The registry did not answer in time; the caller may try again later."""


class ArtifactInvalid(ModelsError):
    """Downloaded files failed verification."""


class StagingRefused(ModelsError):
    """A model version cannot be served as asked.

    `code` is stable (`parity_failed`, `conversion_failed`, `pickle_untrusted`, `signature_missing`, …), `remedy` says what the
    owner of the model can do about it.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
