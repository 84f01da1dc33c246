"""Fixtures of the staging rooms: one registry a session, since importing MLflow and making its database takes seconds."""

import os
from pathlib import Path

import pytest

from models.registry.mlflow import MlflowRegistry
from tests.kit import registered


@pytest.fixture(scope="session")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "true")
    return registered.log_all(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def registry(registry_uri: str) -> MlflowRegistry:
    return MlflowRegistry(registry_uri)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a model's files."""
    made = tmp_path / "model"
    made.mkdir()
    return made
