"""A large model's weights lie in a file of their own: whole, refused when changed, and one copy for all workers where that is asked for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import profiles
from models.artifacts import Artifacts
from models.catalog import Catalog
from models.convert.job import DATA_BYTES_MIN
from models.errors import ArtifactInvalid
from models.ref import parse_ref
from models.registry.local import LocalRegistry
from models.staged import Ask, StagedModel
from models.staging import stage
from models.tuning.process import measure

WIDTH = 4200
"""Squared floats just above the bound."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = np.random.default_rng(0).normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    assert weights.nbytes > DATA_BYTES_MIN
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    return path


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def staged(source: Path, artifacts: Artifacts) -> StagedModel:
    return stage(parse_ref(source.as_uri()), LocalRegistry(), artifacts)


def test_weights_are_beside_the_model_and_answers_are_the_same(
    staged: StagedModel, source: Path, artifacts: Artifacts
) -> None:
    folder = artifacts.path(staged.digest)
    assert staged.data_file is not None
    assert (folder / staged.file).stat().st_size < 10_000
    assert staged.size_bytes > DATA_BYTES_MIN
    x = np.random.default_rng(1).normal(0, 1, (3, WIDTH)).astype(np.float32)
    wanted = x @ numpy_helper.to_array(onnx.load(source).graph.initializer[0])
    (got,) = Catalog(artifacts.folder).load(staged.digest).run([x])
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_workers_share_the_weights_where_that_is_asked_for(staged: StagedModel, artifacts: Artifacts) -> None:
    folder = artifacts.path(staged.digest)
    own = measure(folder, staged, budget_s=0.3)
    shared = measure(folder, staged, ask=Ask(share_weights=True), budget_s=0.3)
    assert (own.setting.shares_weights, shared.setting.shares_weights) == (False, True)
    assert shared.memory_bytes < own.memory_bytes / 4
    assert own.memory_bytes > DATA_BYTES_MIN * 0.9
    profiles.write(folder, shared)
    x = np.ones((2, WIDTH), np.float32)
    (got,) = Catalog(artifacts.folder).load(staged.digest).run([x])
    profiles.write(folder, own)
    (wanted,) = Catalog(artifacts.folder).load(staged.digest).run([x])
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_weights_with_another_digest_are_refused(staged: StagedModel, artifacts: Artifacts) -> None:
    assert staged.data_file is not None
    path = artifacts.path(staged.digest) / staged.data_file
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes((first[0] ^ 1,)))
    with pytest.raises(ArtifactInvalid, match=r"model\.onnx\.data does not have the digest of its manifest"):
        Catalog(artifacts.folder).load(staged.digest)
