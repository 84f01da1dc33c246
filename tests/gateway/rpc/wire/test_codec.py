"""The hot form against protobuf's own reading of the same bytes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.wire.codec import FORMS_MAX, InferReader
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear, write


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    made.serve({"champion": stage_linear(made.artifacts)})
    yield made
    made.close()


def request(rows: int = 1, *, value: float = 1.0, **fields: Any) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(**{"model_name": "line", **fields})
    made.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    made.raw_input_contents.append(np.full((rows, 2), value, np.float32).tobytes())
    return made


def test_a_message_of_a_known_kind_is_read_without_protobuf(plane: Plane) -> None:
    reader = InferReader(plane.data)
    first = reader.read(request(value=1).SerializeToString())
    message = request(value=2).SerializeToString()
    second = reader.read(message)
    assert second is first
    assert second is not None
    assert second.inputs(message)[0].tolist() == [[2.0, 2.0]]
    assert (second.rows, second.is_flat, second.wanted, second.wire_id(message)) == (1, True, None, None)


def test_ids_and_wanted_outputs_belong_to_the_hot_form(plane: Plane) -> None:
    reader = InferReader(plane.data)
    made = request(3, id="seven")
    made.outputs.add(name="probabilities")
    message = made.SerializeToString()
    form = reader.read(message)
    assert form is not None
    assert (form.rows, form.wanted, form.wire_id(message)) == (3, ("probabilities",), "seven")
    other = message.replace(b"seven", b"eight")
    assert reader.read(other) is form
    assert form.wire_id(other) == "eight"


def changed(what: str) -> pb.ModelInferRequest:  # noqa: C901  # a table of cases
    made = request()
    tensor = made.inputs[0]
    match what:
        case "unknown model":
            made.model_name = "other"
        case "version":
            made.model_version = "1"
        case "parameters":
            made.parameters["priority"].int64_param = 1
        case "typed contents":
            del made.raw_input_contents[:]
            tensor.contents.fp32_contents.extend([1, 2])
        case "both contents":
            tensor.contents.fp32_contents.extend([1, 2])
        case "tensor parameters":
            tensor.parameters["binary_data_size"].int64_param = 8
        case "other datatype":
            tensor.datatype = "FP64"
        case "other width":
            tensor.shape[:] = [2, 1]
        case "other rank":
            tensor.shape[:] = [2]
        case "negative rows":
            tensor.shape[:] = [-1, -2]
        case "no rows":
            tensor.shape[:] = [0, 2]
            made.raw_input_contents[0] = b""
        case "too few bytes":
            made.raw_input_contents[0] = bytes(7)
        case "unknown input":
            tensor.name = "y"
        case "input twice":
            made.inputs.append(tensor)
            made.raw_input_contents.append(bytes(8))
        case "more raw contents":
            made.raw_input_contents.append(b"")
        case "unknown output":
            made.outputs.add(name="y")
        case "output twice":
            made.outputs.add(name="label")
            made.outputs.add(name="label")
        case "output parameters":
            made.outputs.add(name="label").parameters["classification"].int64_param = 1
    return made


@pytest.mark.parametrize(
    "what",
    [
        *(
            "unknown model",
            "version",
            "parameters",
            "typed contents",
            "both contents",
            "tensor parameters",
            "other datatype",
        ),
        *("other width", "other rank", "negative rows", "no rows", "too few bytes", "unknown input", "input twice"),
        *("more raw contents", "unknown output", "output twice", "output parameters"),
    ],
)
def test_what_is_unusual_or_wrong_goes_the_ordinary_way(plane: Plane, what: str) -> None:
    reader = InferReader(plane.data)
    reader.read(request().SerializeToString())
    assert reader.read(changed(what).SerializeToString()) is None


def test_tensors_without_elements_go_the_ordinary_way(plane: Plane) -> None:
    """Nothing bounds their shapes, and some are those of no array."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    free = Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, -1)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, -1)),),
    )
    plane.serve({"champion": write(plane.artifacts, graph, free, Answer(), ModelKey("free", "1"))})
    reader = InferReader(plane.data)
    assert reader.read(request().SerializeToString()) is not None
    for shape in ([1 << 62, 0], [3, 0]):
        made = request()
        made.inputs[0].shape[:] = shape
        made.raw_input_contents[0] = b""
        assert reader.read(made.SerializeToString()) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\xff\x01",
        b"\x0a\x05ab",
        b"\x08\x01",
        b"\x42\x00",
        request().SerializeToString() + b"\x1a\x01\xff",
        request(id="a").SerializeToString() + b"\x1a\x01b",
        request().SerializeToString() + b"\x3a\x00" * 1000,
    ],
)
def test_what_is_no_message_has_no_form(plane: Plane, message: bytes) -> None:
    assert InferReader(plane.data).read(message) is None


def test_a_form_ends_with_its_revision(plane: Plane) -> None:
    reader = InferReader(plane.data)
    message = request().SerializeToString()
    first = reader.read(message)
    served = plane.serve({"champion": stage_linear(plane.artifacts)})
    second = reader.read(message)
    assert second is not first
    assert second is not None
    assert second.endpoint is served


def test_a_route_that_refuses_nonfinite_values_has_no_hot_form(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, nonfinite="reject")
    assert InferReader(plane.data).read(request().SerializeToString()) is None


def test_a_body_beyond_the_routes_bound_has_no_hot_form(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, limits={"body_bytes_max": 100})
    reader = InferReader(plane.data)
    assert reader.read(request(1).SerializeToString()) is not None
    assert reader.read(request(30).SerializeToString()) is None


def test_only_so_many_forms_are_kept(plane: Plane) -> None:
    reader = InferReader(plane.data)
    for rows in range(1, 100):
        assert reader.read(request(rows).SerializeToString()) is not None
        assert len(reader._forms) <= FORMS_MAX


def test_a_large_message_is_read_in_place(plane: Plane) -> None:
    message = memoryview(bytearray(-len(request(9000).SerializeToString()) % 16) + request(9000).SerializeToString())
    message = message[-len(request(9000).SerializeToString()) :]
    form = InferReader(plane.data).read(message)
    assert form is not None
    (array,) = form.inputs(message)
    assert array.shape == (9000, 2)
    assert np.shares_memory(array, np.frombuffer(message, np.uint8))


def test_a_tensor_that_is_not_aligned_is_copied(plane: Plane) -> None:
    text = request(9000).SerializeToString()
    for shift in range(4):
        message = memoryview(bytearray(shift) + text)[shift:]
        form = InferReader(plane.data).read(message)
        assert form is not None
        (array,) = form.inputs(message)
        assert array.flags.aligned
        assert array.tolist() == [[1.0, 1.0]] * 9000


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_message_never_means_something_else_than_protobuf_says(plane: Plane, data: st.DataObject) -> None:
    """Bytes of a good message are changed, cut or moved; whatever the reader still takes, protobuf reads the same."""
    reader = InferReader(plane.data)
    made = request(2, id=data.draw(st.sampled_from(["", "abc"])))
    message = bytearray(made.SerializeToString())
    reader.read(bytes(message))
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(message) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                message[place] = data.draw(st.integers(0, 255))
            case 1:
                message[place : place + 1] = data.draw(st.sampled_from([b"", b"\x3a\x00", b"\x1a\x00", b"\x2a\x00"]))
            case _:
                other = data.draw(st.integers(0, len(message)))
                message = message[min(place, other) :] + message[: min(place, other)]
        if not message:
            return
    changed = bytes(message)
    form = reader.read(changed)
    if form is None:
        return
    wire_id = form.wire_id(changed)
    theirs = pb.ModelInferRequest.FromString(changed)
    assert theirs.model_name == "line"
    assert (wire_id or "") == theirs.id
    assert form.inputs(changed)[0].tobytes() == theirs.raw_input_contents[0]
    assert list(form.inputs(changed)[0].shape) == list(theirs.inputs[0].shape)
    assert not theirs.parameters
    assert len(theirs.inputs) == len(theirs.raw_input_contents) == 1
