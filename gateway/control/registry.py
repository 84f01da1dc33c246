"""Where control meets models: the registry that a reference belongs to, staging with what the operator trusts, aliases that move.

Everything here blocks and runs on control's threads. MLflow is imported with the first reference that needs it, and each thread has a
client of its own, because one must not be used by two at a time.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from gateway.control.preparation import Exact, Rows
from gateway.settings import Settings
from gateway.state.revision import AliasMove
from gateway.telemetry.log import EventLog
from models import profiles
from models.artifacts import Artifacts
from models.ref import ModelRef
from models.registry import Registry
from models.registry.local import LocalRegistry
from models.registry.mlflow import MlflowRegistry
from models.staged import StagedModel
from models.staging import Trust, stage
from models.tensors import Array
from models.tuning.job import TuningFailed
from models.tuning.process import measure

log = EventLog(__name__)


class Registries:
    """The registries of one gateway: MLflow's at `registry_uri`, and the folders and files of this machine. Thread-safe."""

    def __init__(self, settings: Settings, artifacts: Artifacts) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._trust = Trust(types=settings.trust_types, pickle=settings.trust_pickle)
        self._local = LocalRegistry(Path.cwd())
        self._threads_max = profiles.threads_share(settings.workers)
        self._own = threading.local()

    def stage(self, ref: ModelRef, recorded: Callable[[], Rows]) -> StagedModel:
        """Makes what a reference means now ready to be served. Raises the errors of `models.errors`."""
        return stage(ref, self._of(ref), self._artifacts, trust=self._trust, recorded=recorded, tune=self._tune)

    def resolve(self, ref: ModelRef) -> Exact:
        """The version that a reference means now. Raises the errors of `models.errors`."""
        found = self._of(ref).resolve(ref)
        return Exact(key=found.key, uri=found.uri)

    def aliases(self) -> dict[tuple[str, str], str]:
        """(registered model, alias) → version, of all of them in one question. Raises RegistryUnavailable."""
        return self._mlflow().aliases()

    def named(self, move: AliasMove) -> str:
        """The version that the alias names now; empty: none. Raises RegistryUnavailable."""
        return self._mlflow().alias(move.name, move.alias) or ""

    def move(self, move: AliasMove) -> None:
        """Writes an alias. Raises RegistryUnavailable (try again) or ModelUnknown."""
        self._mlflow().set_alias(move.name, move.alias, move.version)

    def _tune(self, folder: Path, staged: StagedModel, recorded: dict[str, Array] | None) -> None:
        """Measures a model that was just converted. A model without a profile is served all the same."""
        try:
            measure(folder, staged, threads_max=self._threads_max, recorded=recorded)
        except (TuningFailed, OSError) as error:
            log.warning("model_not_tuned", model=str(staged.key), problem=str(error))

    def _of(self, ref: ModelRef) -> Registry:
        return self._local if ref.kind == "file" else self._mlflow()

    def _mlflow(self) -> MlflowRegistry:
        registry: MlflowRegistry | None = getattr(self._own, "mlflow", None)
        if registry is None:
            registry = MlflowRegistry(self._settings.registry_uri, self._settings.tracking_uri)
            self._own.mlflow = registry
        return registry
