"""What a route may write where it names a model: a registry version, an alias, a logged model, a run's model, or a local folder or file."""

import re
from pathlib import PurePosixPath
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from models.errors import ReferenceInvalid

_TEXT_MAX: Final = 2048
_NAME: Final = re.compile(r"[^/:\x00-\x1f\x7f]{1,256}")
_ALIAS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}")
_MODEL_ID: Final = re.compile(r"m-[A-Za-z0-9]{1,64}")
_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class ModelRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A parsed reference; `str()` gives its one canonical spelling. Hashable.

    `name`: the registered model (`version`, `alias`), the id of the logged model (`model_id`) or of the run (`run`), the path
    as written (`file`; relative ones start at the working directory of the gateway).
    `detail`: the version in decimal, the alias, or the path below the run's artifacts; empty for `model_id` and `file`.
    """

    kind: Literal["version", "alias", "model_id", "run", "file"]
    name: str
    detail: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "version":
                return f"models:/{self.name}/{self.detail}"
            case "alias":
                return f"models:/{self.name}@{self.detail}"
            case "model_id":
                return f"models:/{self.name}"
            case "run":
                return f"runs:/{self.name}/{self.detail}"
            case "file":
                return f"file://{quote(self.name)}" if self.name.startswith("/") else f"./{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the reference means the same model for ever: all but aliases, which move, and files, which are edited."""
        return self.kind not in {"alias", "file"}


def parse_ref(text: str) -> ModelRef:
    """Reads a reference. Raises ReferenceInvalid, whose message carries the remedy, for what is not understood or not allowed.

    `latest` and stages are refused: both change their meaning without a trace, an alias changes it on purpose.
    """
    if not text or len(text) > _TEXT_MAX or any(character < " " or character == "\x7f" for character in text):
        raise ReferenceInvalid(
            f"model reference: wanted 1 to {_TEXT_MAX} printable characters, got {len(text)} characters"
        )
    if text.startswith("models:"):
        return _registered(text)
    if text.startswith("runs:"):
        return _run(text)
    if text.startswith("file:"):
        return _file_uri(text)
    if _SCHEME.match(text):
        raise ReferenceInvalid(
            f"model '{text}': wanted models:/name/3, models:/name@alias, models:/m-<id>, runs:/<run id>/<path> or a local folder or "
            "file; register the model in MLflow to serve it from any other storage"
        )
    return _path(text)


def _registered(text: str) -> ModelRef:
    if not text.startswith("models:/") or text.startswith("models://"):
        raise ReferenceInvalid(f"model '{text}': wanted models:/name/3 or models:/name@alias, with one slash")
    rest = text.removeprefix("models:/")
    if "/" in rest:
        name, version = rest.split("/", 1)
        _check_name(text, name)
        if not (version.isascii() and version.isdigit() and len(version) <= 18 and int(version) > 0):
            raise _moving(text, name, version)
        return ModelRef(kind="version", name=name, detail=str(int(version)))
    if "@" in rest:
        name, alias = rest.rsplit("@", 1)
        _check_name(text, name)
        if alias.lower() == "latest":
            raise _moving(text, name, alias)
        if not _ALIAS.fullmatch(alias):
            raise ReferenceInvalid(
                f"model '{text}': wanted an alias of letters, digits, '_', '-' and '.', got {alias!r}"
            )
        return ModelRef(kind="alias", name=name, detail=alias)
    if _MODEL_ID.fullmatch(rest):
        return ModelRef(kind="model_id", name=rest)
    raise ReferenceInvalid(
        f"model '{text}': no version and no alias; write models:/{rest}@champion or models:/{rest}/1"
    )


def _check_name(text: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ReferenceInvalid(
            f"model '{text}': wanted a registered model's name of 1 to 256 characters without '/' and ':'"
        )


def _moving(text: str, name: str, version: str) -> ReferenceInvalid:
    """The refusal of `latest`, of stages and of whatever else stands where a version number should."""
    return ReferenceInvalid(
        f"model '{text}': '{version}' is not a version number, and 'latest' and stages are not served; give the version an alias with "
        f'MlflowClient().set_registered_model_alias("{name}", "champion", <version>) and write models:/{name}@champion'
    )


def _run(text: str) -> ModelRef:
    run, _, path = text.removeprefix("runs:/").partition("/")
    parts = PurePosixPath(path).parts
    if (
        not text.startswith("runs:/")
        or not _RUN_ID.fullmatch(run)
        or not parts
        or ".." in parts
        or path.startswith("/")
    ):
        raise ReferenceInvalid(f"model '{text}': wanted runs:/<run id>/<path of the model below the run's artifacts>")
    return ModelRef(kind="run", name=run, detail="/".join(parts))


def _file_uri(text: str) -> ModelRef:
    parts = urlsplit(text)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        raise ReferenceInvalid(
            f"model '{text}': wanted file:///absolute/path on this machine, without query and fragment"
        )
    return _path(unquote(parts.path))


def _path(text: str) -> ModelRef:
    path = PurePosixPath(text)
    if "/" not in text and path.suffix != ".onnx":
        raise ReferenceInvalid(
            f"model '{text}': write models:/{text}@champion for a registered model, ./{text} for a folder"
        )
    if "\x00" in text or str(path) in {"", ".", "/"}:
        raise ReferenceInvalid(f"model '{text}': wanted the path of a model folder or of an .onnx file")
    return ModelRef(kind="file", name=str(path))
