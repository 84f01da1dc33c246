"""From a reference to a folder that a worker can load, with real MLflow, real converters and the real isolated process."""

import concurrent.futures
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from models import profiles
from models.artifacts import Artifacts
from models.catalog import Catalog
from models.errors import ArtifactInvalid, ModelUnknown, RegistryUnavailable, StagingRefused
from models.ref import ModelRef, parse_ref
from models.registry import ResolvedVersion
from models.registry.local import LocalRegistry
from models.registry.mlflow import MlflowRegistry
from models.staged import ModelKey, StagedModel
from models.staging import Step, Trust, stage
from models.tuning.process import measure
from tests.kit import registered


class Gone:
    """A registry that does not answer: the other real side of the seam, as control meets it in an outage."""

    def resolve(self, ref: ModelRef) -> ResolvedVersion:
        raise RegistryUnavailable(f"model '{ref}': the registry does not answer")

    def download(self, resolved: ResolvedVersion, folder: Path) -> None:
        raise RegistryUnavailable("the registry does not answer")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("artifacts"))


def run(artifacts: Artifacts, staged: StagedModel, feeds: dict[str, Any]) -> list[Any]:
    path = artifacts.path(staged.digest) / staged.file
    return list(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds))


def test_a_pipeline_with_text_columns_answers_as_the_original(registry: MlflowRegistry, artifacts: Artifacts) -> None:
    staged = stage(parse_ref("models:/pipeline/1"), registry, artifacts)

    assert staged.key == ModelKey("pipeline", "1")
    assert [str(spec) for spec in staged.signature.inputs] == [
        "age: INT64 [-1, 1]",
        "income: FP64 [-1, 1]",
        "city: BYTES [-1, 1]",
    ]
    assert staged.signature.columns
    assert staged.answer.classes == ("no", "yes")
    assert staged.certificate is not None
    assert staged.certificate.rows >= 1000
    rows = registered.people()
    label, probabilities = run(artifacts, staged, {name: rows[[name]].to_numpy() for name in rows})
    assert label.tolist() == registered.pipeline().predict(rows).tolist()
    assert np.allclose(probabilities, registered.pipeline().predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("name", ["boosted", "light"])
def test_boosted_trees_answer_labels_and_probabilities_alike(
    registry: MlflowRegistry, artifacts: Artifacts, name: str
) -> None:
    staged = stage(parse_ref(f"models:/{name}/1"), registry, artifacts)

    assert [str(spec) for spec in staged.signature.outputs] == ["label: INT64 [-1]", "probabilities: FP32 [-1, 2]"]
    assert staged.answer.scoring_outputs == ("label",)
    assert staged.certificate is not None
    assert any(kind.startswith("thresholds") for kind in staged.certificate.kinds)
    rows = registered.numbers()
    label, probabilities = run(artifacts, staged, {column: rows[[column]].to_numpy() for column in rows})
    assert probabilities.argmax(axis=1).tolist() == label.tolist()
    assert (label == registered.is_yes()).mean() > 0.6


@pytest.mark.parametrize("name", ["pipeline", "boosted", "light"])
def test_what_is_scored_is_what_mlflow_itself_would_predict(
    registry: MlflowRegistry, registry_uri: str, artifacts: Artifacts, name: str
) -> None:
    import mlflow

    staged = stage(parse_ref(f"models:/{name}/1"), registry, artifacts)
    mlflow.set_registry_uri(registry_uri)
    rows = registered.people() if name == "pipeline" else registered.numbers()
    wanted = mlflow.pyfunc.load_model(registry.resolve(parse_ref(f"models:/{name}/1")).source).predict(rows)

    outputs = run(artifacts, staged, {column: rows[[column]].to_numpy() for column in rows})

    by_name = dict(zip((spec.name for spec in staged.signature.outputs), outputs, strict=True))
    assert staged.answer.scoring_form == "list"
    assert by_name[staged.answer.scoring_outputs[0]].tolist() == wanted.tolist()


def test_an_onnx_model_is_served_as_logged_and_needs_no_certificate(
    registry: MlflowRegistry, artifacts: Artifacts
) -> None:
    staged = stage(parse_ref("models:/doubled/1"), registry, artifacts)

    assert staged.flavor == "onnx"
    assert staged.certificate is None
    assert [str(spec) for spec in staged.signature.inputs] == ["x: FP32 [-1, 2]"]
    assert staged.answer.scoring_form == "columns"
    assert run(artifacts, staged, {"x": np.ones((3, 2), np.float32)})[0].tolist() == [[2.0, 2.0]] * 3


def test_a_model_exported_for_one_row_serves_any_number_where_its_signature_says_so(tmp_path: Path) -> None:
    """What a default export writes: the batch of its example, fixed."""
    import mlflow

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1])],
        [onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    signature = mlflow.models.infer_signature(x, x[:, :1])
    mlflow.onnx.save_model(made, tmp_path / "one", signature=signature)
    artifacts = Artifacts(tmp_path / "artifacts")

    staged = stage(parse_ref((tmp_path / "one").as_uri()), LocalRegistry(), artifacts, tune=measured)

    assert staged.signature.is_batched
    (sums,) = Catalog(artifacts.folder).load(staged.digest).run([x])
    np.testing.assert_array_equal(sums[:, 0], x.sum(axis=1))


def measured(folder: Path, staged: StagedModel, recorded: Any) -> None:
    measure(folder, staged, recorded=recorded, budget_s=0.2)


def test_samples_for_warming_up_are_read_without_pickle_and_run(registry: MlflowRegistry, artifacts: Artifacts) -> None:
    staged = stage(parse_ref("models:/pipeline/1"), registry, artifacts)

    assert staged.samples_file is not None
    with np.load(artifacts.path(staged.digest) / staged.samples_file, allow_pickle=False) as samples:
        feeds = {
            name: samples[name].astype(object) if samples[name].dtype.kind == "U" else samples[name] for name in samples
        }
    assert len(run(artifacts, staged, feeds)[0]) == len(feeds["age"]) > 10


def test_staging_twice_does_the_work_once_and_an_alias_finds_its_version(
    registry: MlflowRegistry, artifacts: Artifacts
) -> None:
    registry.set_alias("boosted", "champion", "1")
    first = stage(parse_ref("models:/boosted/1"), registry, artifacts)
    steps: list[Step] = []

    second = stage(parse_ref("models:/boosted@champion"), registry, artifacts, on_progress=steps.append)

    assert second == first
    assert steps == ["resolving", "staged"]


def test_a_pinned_version_that_was_staged_is_found_while_the_registry_is_down(
    registry: MlflowRegistry, artifacts: Artifacts
) -> None:
    staged = stage(parse_ref("models:/boosted/1"), registry, artifacts)

    assert stage(parse_ref("models:/boosted/1"), Gone(), artifacts) == staged
    with pytest.raises(RegistryUnavailable):
        stage(parse_ref("models:/boosted@champion"), Gone(), artifacts)
    with pytest.raises(RegistryUnavailable):
        stage(parse_ref("models:/boosted/2"), Gone(), artifacts)


def test_what_the_registry_does_not_have_is_unknown(registry: MlflowRegistry, artifacts: Artifacts) -> None:
    with pytest.raises(ModelUnknown, match="models:/pipeline/99"):
        stage(parse_ref("models:/pipeline/99"), registry, artifacts)


def test_an_edited_file_is_another_model_and_the_same_content_is_converted_once(
    tmp_path: Path, artifacts: Artifacts
) -> None:
    path = tmp_path / "twice.onnx"
    path.write_bytes(registered.doubled().SerializeToString())
    copy = tmp_path / "copy" / "twice.onnx"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    local = LocalRegistry(tmp_path)

    first = stage(parse_ref("./twice.onnx"), local, artifacts)
    steps: list[Step] = []
    same = stage(parse_ref("./copy/twice.onnx"), local, artifacts, on_progress=steps.append)
    path.write_bytes(registered.doubled("other").SerializeToString())
    edited = stage(parse_ref("./twice.onnx"), local, artifacts)

    assert same.digest == first.digest
    assert same.uri == "./copy/twice.onnx"
    assert "converting" not in steps
    assert edited.digest != first.digest
    assert edited.key != first.key


def test_two_that_stage_the_same_files_at_once_convert_them_once(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(registered.doubled().SerializeToString())
    artifacts, local = Artifacts(tmp_path / "artifacts"), LocalRegistry(tmp_path)
    steps: list[Step] = []

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        tasks = [
            pool.submit(stage, parse_ref("./m.onnx"), local, artifacts, on_progress=steps.append) for _ in range(2)
        ]
        first, second = (task.result() for task in tasks)

    assert first == second
    assert steps.count("converting") == 1


def test_a_model_is_measured_before_it_is_kept_and_its_profile_comes_with_it(
    registry: MlflowRegistry, tmp_path: Path
) -> None:
    artifacts = Artifacts(tmp_path)
    steps: list[Step] = []

    def tune(folder: Path, staged: StagedModel, recorded: Any) -> None:
        assert not artifacts.path(staged.digest).exists()
        measure(folder, staged, recorded=recorded, budget_s=0.3)

    staged = stage(parse_ref("models:/boosted/1"), registry, artifacts, tune=tune, on_progress=steps.append)

    assert steps == ["resolving", "fetching", "converting", "tuning", "staged"]
    profile = profiles.read(artifacts.path(staged.digest))
    assert profile is not None
    assert profile.memory_bytes > 0


def test_a_link_in_a_models_folder_is_refused(folder: Path, artifacts: Artifacts) -> None:
    (folder / "model.onnx").symlink_to("/etc/hostname")

    with pytest.raises(ArtifactInvalid, match="symbolic link"):
        stage(parse_ref(str(folder)), LocalRegistry(), artifacts)


class Stolen:
    """What a hostile author would store: opening it runs `code`."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


def pickled(folder: Path, stored: object) -> Path:
    """A scikit-learn model folder as MLflow writes it with serialization_format='pickle'."""
    (folder / "MLmodel").write_text(
        "flavors:\n  sklearn: {pickled_model: model.pkl, serialization_format: pickle}\n"
        'signature: {inputs: \'[{"type": "double", "name": "age"}, {"type": "double", "name": "income"}]\'}\n'
    )
    (folder / "model.pkl").write_bytes(pickle.dumps(stored))
    return folder


def test_a_pickle_is_not_opened_unless_its_name_is_trusted_and_the_refusal_names_the_setting(
    folder: Path, tmp_path: Path, artifacts: Artifacts
) -> None:
    pickled(folder, Stolen(f"open({str(tmp_path / 'opened')!r}, 'w').close()"))

    with pytest.raises(StagingRefused) as refused:
        stage(parse_ref(str(folder)), LocalRegistry(), artifacts)

    assert refused.value.code == "pickle_untrusted"
    assert "RUNOFF_TRUST_PICKLE=model-" in refused.value.remedy
    assert not (tmp_path / "opened").exists()


def test_a_trusted_pickle_is_opened_without_our_environment_and_without_a_network(
    folder: Path, tmp_path: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNOFF_KEY", "secret")
    seen = tmp_path / "seen"
    code = (
        f"open({str(seen)!r}, 'w').write(repr((dict(__import__('os').environ), __import__('os').getcwd(), "
        "[name for _, name in __import__('socket').if_nameindex()])))"
    )
    pickled(folder, Stolen(code))

    with pytest.raises(StagingRefused):
        stage(parse_ref(str(folder)), LocalRegistry(), artifacts, trust=Trust(pickle=("model-*",)))

    environment, work, _ = eval(seen.read_text())
    assert "secret" not in repr(environment)
    assert set(environment) <= {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH", "LC_CTYPE"} | {
        name for name in environment if name.endswith("_NUM_THREADS") or name.startswith(("KMP_", "__KMP"))
    }
    assert "runoff-convert-" in work


def test_a_trusted_pickle_of_a_stock_model_is_served(folder: Path, artifacts: Artifacts) -> None:
    from sklearn.linear_model import LogisticRegression

    pickled(folder, LogisticRegression().fit(registered.numbers(), registered.is_yes()))

    staged = stage(parse_ref(str(folder)), LocalRegistry(), artifacts, trust=Trust(pickle=("model-*",)))

    assert staged.answer.classes == (0, 1)
    assert staged.certificate is not None
    assert staged.certificate.rows >= 1000


def test_a_failed_staging_leaves_no_files(folder: Path, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    (folder / "model.onnx").write_bytes(b"no model")

    with pytest.raises(StagingRefused, match="no ONNX model"):
        stage(parse_ref(str(folder)), LocalRegistry(), artifacts)

    assert artifacts.digests() == []
    assert not list(artifacts.folder.glob(".incoming*"))


def test_a_conversion_that_takes_too_long_is_ended(folder: Path, artifacts: Artifacts) -> None:
    pickled(folder, Stolen("__import__('time').sleep(60)"))

    with pytest.raises(StagingRefused) as refused:
        stage(parse_ref(str(folder)), LocalRegistry(), artifacts, trust=Trust(pickle=("*",)), time_s_max=3.0)

    assert refused.value.code == "conversion_timeout"
