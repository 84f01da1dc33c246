"""The one room of MLflow: a registry in SQLite without any server, or behind a real MLflow server, by the same calls."""

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from models.errors import ModelUnknown, ReferenceInvalid, RegistryUnavailable
from models.ref import ModelRef
from models.registry import ResolvedVersion
from models.staged import ModelKey

_PAGE: Final = 1000
_UNKNOWN: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE", "RESOURCE_NOT_FOUND"})
"""MLflow's codes for what is not there; a missing alias is its INVALID_PARAMETER_VALUE."""

_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""MLflow reads these from the environment only. Its own seven retries would hold a caller for minutes."""

T = TypeVar("T")


class MlflowRegistry:
    """Blocking; use it from one thread at a time. Importing MLflow takes seconds, so that only making one of these does it.

    A SQLite database that does not exist is created here, once, also when several processes start together.
    """

    def __init__(self, registry_uri: str, tracking_uri: str | None = None) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._tracking_uri = tracking_uri or registry_uri
        with contextlib.ExitStack() as making:
            for uri in sorted({registry_uri, self._tracking_uri}):
                making.enter_context(_created(uri))
            self._client: Any = _asked(
                lambda: MlflowClient(tracking_uri=self._tracking_uri, registry_uri=registry_uri), "the registry"
            )
            if _database_of(registry_uri) is not None:
                _asked(lambda: self._client.search_registered_models(max_results=1), "the registry")

    def resolve(self, ref: ModelRef) -> ResolvedVersion:
        """What the reference means now. Raises ModelUnknown, RegistryUnavailable, or ReferenceInvalid for files."""
        match ref.kind:
            case "version":
                return self._version(ref, lambda: self._client.get_model_version(ref.name, ref.detail))
            case "alias":
                return self._version(ref, lambda: self._client.get_model_version_by_alias(ref.name, ref.detail))
            case "model_id":
                found = _asked(lambda: self._client.get_logged_model(ref.name), f"model '{ref}'")
                return ResolvedVersion(key=ModelKey(ref.name, "1"), uri=str(ref), source=str(found.artifact_location))
            case "run":
                source = _asked(lambda: self._run_source(ref), f"model '{ref}'")
                return ResolvedVersion(
                    key=ModelKey(f"{ref.name}-{ref.detail.rpartition('/')[2]}", "1"), uri=str(ref), source=source
                )
            case "file":
                raise ReferenceInvalid(f"model '{ref}': wanted a model of the registry")

    def aliases(self) -> dict[tuple[str, str], str]:
        """(model, alias) → version, of all models.

        Moving an alias touches no timestamp in MLflow, so that only comparing this map finds it.
        """
        found: dict[tuple[str, str], str] = {}
        token: str | None = None
        while True:
            ask = functools.partial(self._client.search_registered_models, max_results=_PAGE, page_token=token)
            page = _asked(ask, "the registry")
            for model in page:
                found.update({(model.name, alias): str(version) for alias, version in dict(model.aliases).items()})
            token = page.token
            if not token:
                return found

    def alias(self, name: str, alias: str) -> str | None:
        """The version that one alias names; None where there is no such alias, or no such model."""
        try:
            return str(
                _asked(lambda: self._client.get_model_version_by_alias(name, alias), f"model '{name}@{alias}'").version
            )
        except ModelUnknown:
            return None

    def versions(self, name: str) -> list[str]:
        """All versions of a registered model, newest first. Raises ModelUnknown when there is no such model."""
        _asked(lambda: self._client.get_registered_model(name), f"model '{name}'")
        quoted = name.replace("'", "''")
        found = _asked(
            lambda: self._client.search_model_versions(f"name='{quoted}'", max_results=_PAGE), f"model '{name}'"
        )
        return sorted((str(version.version) for version in found), key=int, reverse=True)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        _asked(
            lambda: self._client.set_registered_model_alias(name, alias, version), f"model '{name}' version {version}"
        )

    def download(self, resolved: ResolvedVersion, folder: Path) -> None:
        """Copies the version's files into `folder`."""
        from mlflow.artifacts import download_artifacts

        _asked(
            lambda: download_artifacts(
                artifact_uri=resolved.source, dst_path=str(folder), tracking_uri=self._tracking_uri
            ),
            f"files of model '{resolved.uri}'",
        )
        _flatten(folder)

    def _version(self, ref: ModelRef, ask: Callable[[], Any]) -> ResolvedVersion:
        found = _asked(ask, f"model '{ref}'")
        name, version = str(found.name), str(found.version)
        source = _asked(lambda: self._client.get_model_version_download_uri(name, version), f"model '{ref}'")
        aliases = tuple(sorted(str(alias) for alias in found.aliases or ()))
        return ResolvedVersion(
            key=ModelKey(name, version), uri=f"models:/{name}/{version}", source=str(source), aliases=aliases
        )

    def _run_source(self, ref: ModelRef) -> str:
        """Where a run's model is: below the run's artifacts, or (since MLflow 3) a logged model of that name among its outputs."""
        run = self._client.get_run(ref.name)
        for output in getattr(run.outputs, "model_outputs", None) or ():
            model = self._client.get_logged_model(output.model_id)
            if model.name == ref.detail:
                return str(model.artifact_location)
        return f"{run.info.artifact_uri}/{ref.detail}"


def _asked(ask: Callable[[], T], what: str) -> T:
    """Runs a call into MLflow and names its trouble. `what` stands at the start of the message."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _UNKNOWN:
            raise ModelUnknown(f"{what}: {_first_line(error)}") from error
        raise RegistryUnavailable(f"{what}: the registry does not answer: {_trouble(error)}") from error
    except (RequestException, SQLAlchemyError, OSError) as error:
        raise RegistryUnavailable(f"{what}: the registry does not answer: {_trouble(error)}") from error


def _trouble(error: Exception) -> str:
    """Why there was no answer: of what HTTP could not do the kind and the server, without the request and the retries; else its first line."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import RequestException, Timeout

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RequestException):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return _first_line(error) if str(error) else type(error).__name__
    where = urlsplit(str(cause.request.url)) if cause.request is not None else None
    at = f" at {where.scheme}://{where.hostname}:{where.port}" if where is not None and where.port else ""
    kind = "it takes too long" if isinstance(cause, Timeout) else "nobody" if isinstance(cause, NoConnection) else ""
    return f"{kind or type(cause).__name__}{at}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _flatten(folder: Path) -> None:
    """Some stores copy into a folder of the artifact's own name below the destination: its content moves up."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        inner = entries[0].rename(folder / ".moving")
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()


@contextlib.contextmanager
def _created(uri: str) -> Iterator[None]:
    """Makes the folder of a SQLite database and holds a lock while the database is not there: its creation is no transaction."""
    path = _database_of(uri)
    if path is None or path.exists():
        yield
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _database_of(uri: str) -> Path | None:
    """The file of a `sqlite:///` address; None for all others."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path.removeprefix("/"))) if parts.scheme == "sqlite" and parts.path.strip("/") else None
