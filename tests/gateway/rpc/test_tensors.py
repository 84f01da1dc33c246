import numpy as np
import pytest

from gateway.errors import RequestMalformed
from gateway.rest.raw_tensors import write_raw
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.tensors import CONTENTS_OF, read_inputs, read_parameters, write_contents, write_parameters
from models.errors import InputInvalid
from models.tensors import NUMPY_OF


def request(*tensors, raw=()):
    return pb.ModelInferRequest(inputs=list(tensors), raw_input_contents=list(raw))


def tensor(datatype="FP32", shape=(1,), name="x", **contents):
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(pb.InferTensorContents(**contents))
    return made


@pytest.mark.parametrize("datatype", sorted(CONTENTS_OF))
def test_typed_contents_survive_the_way_there_and_back(datatype):
    array = np.array([["a"], ["ä"]], dtype=object) if datatype == "BYTES" else np.array([[0], [1]], NUMPY_OF[datatype])
    asked = request(tensor(datatype, (2, 1)))
    asked.inputs[0].contents.CopyFrom(write_contents("x", datatype, array))
    got = read_inputs(asked)["x"]
    assert got.dtype == array.dtype
    assert got.tolist() == array.tolist()


@pytest.mark.parametrize("datatype", sorted(NUMPY_OF))
def test_raw_contents_are_read_by_datatype(datatype):
    array = np.array(["a", "ä"], dtype=object) if datatype == "BYTES" else np.array([0, 1], NUMPY_OF[datatype])
    assert read_inputs(request(tensor(datatype, (2,)), raw=[write_raw(array)]))["x"].tolist() == array.tolist()


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (request(tensor(fp32_contents=[1]), raw=[b"\0" * 4]), RequestMalformed, "contents of an input must be empty"),
        (request(tensor(), tensor(name="y"), raw=[b"\0" * 4]), RequestMalformed, "each of 2 inputs, got 1"),
        (request(tensor(fp32_contents=[1]), tensor(fp32_contents=[1])), InputInvalid, "given twice"),
        (request(tensor(shape=(2,), fp32_contents=[1])), InputInvalid, r"wanted 2 values in fp32_contents"),
        (request(tensor(fp64_contents=[1])), InputInvalid, "got 0"),
        (request(tensor("INT8", int_contents=[200])), InputInvalid, "outside the range of INT8"),
        (request(tensor("FP16")), InputInvalid, "FP16 has no typed contents"),
        (request(tensor("BF16")), InputInvalid, "not taken here"),
        (request(tensor(shape=(-1,))), InputInvalid, "from 0 up"),
        (request(tensor(shape=(1,) * 33)), InputInvalid, "at most 32 dimensions"),
        (request(tensor("BYTES", bytes_contents=[b"\xff"])), InputInvalid, "UTF-8"),
        (request(tensor(shape=(1 << 62, 0))), InputInvalid, "wanted a smaller shape"),
        (request(tensor("BYTES", shape=(1 << 62, 0))), InputInvalid, "wanted a smaller shape"),
        (request(tensor(shape=(1 << 62, 0)), raw=[b""]), InputInvalid, "wanted a smaller shape"),
    ],
)
def test_what_is_wrong_is_said(asked, error, message):
    with pytest.raises(error, match=message):
        read_inputs(asked)


def test_shared_memory_is_refused():
    asked = request(tensor())
    asked.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(InputInvalid, match="shared memory"):
        read_inputs(asked)


def test_half_precision_has_no_typed_output():
    with pytest.raises(InputInvalid, match="FP16 has no typed contents"):
        write_contents("y", "FP16", np.ones(1, np.float16))


def test_parameters_keep_their_types():
    values = {"a": True, "b": -3, "c": 0.5, "d": "t"}
    message = pb.ModelInferResponse()
    write_parameters(message.parameters, values.items())
    assert read_parameters(message.parameters) == values
    message.parameters["u"].uint64_param = 1 << 63
    message.parameters["none"].SetInParent()
    assert read_parameters(message.parameters) == {**values, "u": 1 << 63}
