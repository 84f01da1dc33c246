import pytest

from tests.kit.registry import Registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """An embedded MLflow registry: versions 1 to 4 of one model; version 5 takes other inputs."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    for slope in (1.0, 2.0, 3.0, 4.0):
        made.register(slope)
    made.register(1.0, columns=3)
    return made
