from gateway.rest.metadata import (
    EXTENSIONS,
    ROWS_MAX_UNKNOWN,
    data_type,
    max_batch_size,
    model_config,
    model_metadata,
    package_version,
    server_metadata,
    version_policy,
)
from models.staged import Profile
from tests.kit.onnx_models import echo, spec
from tests.kit.small_corridor import SmallCorridor, stocked_corridor


def view_of(endpoint):
    return stocked_corridor().view(endpoint)


def test_the_server_lists_only_what_works():
    assert server_metadata()["extensions"] == list(EXTENSIONS)
    assert not {"shared_memory", "sequence", "trace", "logging"} & set(EXTENSIONS)


def test_a_model_shows_its_tensors():
    assert model_metadata(view_of("phishing")) == {
        "name": "phishing",
        "versions": ["3", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }


def test_a_batched_models_dims_leave_the_batch_out():
    config = model_config(view_of("churn"))
    assert config["max_batch_size"] == 64
    assert [one["dims"] for one in config["input"]] == [[1], [1], [1], [1]]
    assert [one["data_type"] for one in config["input"]] == ["TYPE_FP64", "TYPE_INT64", "TYPE_STRING", "TYPE_FP64"]
    assert [one["dims"] for one in config["output"]] == [[], [], []]


def test_a_model_without_a_free_first_dimension_has_no_batches():
    config = model_config(SmallCorridor({"m": {"1": echo("FP32", (2, 3))}}).view("m"))
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [2, 3]


def test_a_model_that_was_not_profiled_has_the_default_batch():
    view = view_of("phishing")
    assert view.champion.profile == Profile(rows_max=64)
    assert max_batch_size(view) == ROWS_MAX_UNKNOWN


def test_versions_that_are_no_numbers_are_the_latest():
    assert version_policy(view_of("phishing")) == {"specific": {"versions": [2, 3]}}
    named = SmallCorridor({"m": {"blue": echo("FP32")}}).view("m")
    assert version_policy(named) == {"latest": {"num_versions": 1}}


def test_text_is_tritons_string():
    assert data_type(spec("x", "BYTES", -1)) == "TYPE_STRING"


def test_a_distribution_that_is_not_installed_has_the_default_version():
    assert package_version("no-such-distribution", "0") == "0"
