import json

import pytest

from gateway.errors import LoadRefused
from gateway.repository import PINS_MAX, pins_in


def config(*versions):
    return json.dumps({"version_policy": {"specific": {"versions": versions}}})


def test_a_specific_version_policy_names_the_pins():
    assert pins_in({"config": config(3, 4)}) == ("3", "4")
    assert pins_in({"config": config()}) == ()
    assert pins_in({}) is None
    assert pins_in({"unload_dependents": True}) is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"file:1/model.onnx": "AAAA"},
        {"config": config(3), "file:1/model.onnx": "AAAA"},
        {"config": "{"},
        {"config": "{}"},
        {"config": 7},
        {"config": '{"version_policy": {"all": {}}}'},
        {"config": '{"backend": "onnxruntime"}'},
        {"config": '{"name": "x", "version_policy": {"specific": {"versions": [1]}}}'},
        {"config": '{"version_policy": {"specific": {"versions": 1}}}'},
        {"config": config(0)},
        {"config": config(-1)},
        {"config": config("latest")},
        {"config": config(*range(1, PINS_MAX + 2))},
    ],
)
def test_anything_else_is_refused(parameters):
    with pytest.raises(LoadRefused):
        pins_in(parameters)
