"""Answers made by hand against protobuf's reading of them, and against what the ordinary path says of the same ticket."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from gateway.corridor import reply_of
from gateway.rest.open_inference import Decoded, WantedOutput
from gateway.rpc import messages
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.wire.reply import ReplyWriter
from gateway.rpc.wire.status import OK_TRAILERS
from gateway.ticket import Ticket
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel
from tests.kit import http2
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear, write


class Waiting:
    """A door that keeps what it is given."""

    def __init__(self) -> None:
        self.done: list[Ticket] = []

    def complete(self, ticket: Ticket) -> None:
        self.done.append(ticket)

    def flush(self) -> None:
        pass


@pytest.fixture
async def plane(tmp_path: Path) -> Any:
    made = Plane(tmp_path)
    yield made
    made.close()


async def answered(plane: Plane, *rows: int, value: float = 1.0, endpoint: str = "line") -> list[Ticket]:
    """Tickets of so many rows each, run in one batch."""
    door = Waiting()
    served = plane.data.endpoint(endpoint)
    spec = served.signature.inputs[0]
    for count in rows:
        shape = (count, *spec.shape[1:])
        array: Any = np.full(shape, value, np.float32) if spec.datatype == "FP32" else np.full(shape, "ä", object)
        plane.data.submit(Ticket(door, served, [array], count, 1, plane.data._clock_ns()))
    while len(door.done) < len(rows):  # noqa: ASYNC110 - turns of the loop are what is waited for
        await asyncio.sleep(0)
    return door.done


def message_of(frames: bytes, stream: int = 5) -> tuple[pb.ModelInferResponse, dict[str, str]]:
    answer = http2.answers(http2.read(frames))[stream]
    assert answer.is_ended
    assert answer.fields[1] == [("grpc-status", "0")]
    assert answer.body[0] == 0
    assert int.from_bytes(answer.body[1:5], "big") == len(answer.body) - 5
    return pb.ModelInferResponse.FromString(answer.body[5:]), dict(answer.fields[0])


def ordinary(ticket: Ticket, *wanted: str, wire_id: str | None = None) -> pb.ModelInferResponse:
    names = tuple(WantedOutput(name) for name in wanted)
    return messages.encode(reply_of(ticket), Decoded({}, wire_id, {}, names, binary_default=True))


def in_pieces(
    writer: ReplyWriter, ticket: Ticket, wanted: tuple[str, ...] | None = None, wire_id: str | None = None
) -> pb.ModelInferResponse:
    pieces = writer.pieces(ticket, wanted, wire_id)
    body = b"".join(pieces.parts)
    assert int.from_bytes(body[1:5], "big") == len(body) - 5
    return pb.ModelInferResponse.FromString(body[5:])


async def test_a_whole_answer_is_the_ordinary_one(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, endpoint="line")
    writer = ReplyWriter(plane.data)
    for ticket in [*await answered(plane, 1, 3, 1), *await answered(plane, 2), *await answered(plane, 1)]:
        whole = writer.whole(ticket, 5, None)
        assert whole is not None
        reply, fields = message_of(whole[0])
        assert reply == ordinary(ticket) == in_pieces(writer, ticket)
        assert whole[1] == len(b"".join(one.payload for one in http2.read(whole[0]) if one.kind == http2.DATA))
        assert fields == {
            ":status": "200",
            "content-type": "application/grpc",
            "x-prediction-id": ticket.prediction_id,
            "x-runoff-variant": "champion",
            "x-runoff-model": "line/1",
            "x-runoff-revision": "1",
        }


@pytest.mark.parametrize("wanted", [("label",), ("probabilities",), ("probabilities", "label")])
async def test_only_the_outputs_asked_for_are_sent_in_their_order(plane: Plane, wanted: tuple[str, ...]) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    writer = ReplyWriter(plane.data)
    for ticket in await answered(plane, 1, 2):
        whole = writer.whole(ticket, 5, wanted)
        assert whole is not None
        assert message_of(whole[0])[0] == ordinary(ticket, *wanted)
        assert in_pieces(writer, ticket, wanted, "id") == ordinary(ticket, *wanted, wire_id="id")


async def test_a_percent_sign_in_a_name_is_only_a_percent_sign(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts, name="50%b", version="7")})
    (ticket,) = await answered(plane, 1)
    whole = ReplyWriter(plane.data).whole(ticket, 5, None)
    assert whole is not None
    reply, fields = message_of(whole[0])
    assert (reply.model_version, fields["x-runoff-model"]) == ("7", "50%b/7")


async def test_a_fallback_names_who_was_drawn_and_is_written_in_pieces(plane: Plane) -> None:
    plane.serve(
        {
            "champion": stage_linear(plane.artifacts),
            "challenger": stage_linear(plane.artifacts, name="other", check_row=True),
        },
        variants=[
            {"name": "champion", "model": "models:/line/1", "weight": 0},
            {"name": "challenger", "model": "models:/other/1", "weight": 1, "fallback": True},
        ],
    )
    (ticket,) = await answered(plane, 1, value=666.0)
    writer = ReplyWriter(plane.data)
    assert writer.whole(ticket, 5, None) is None
    reply = in_pieces(writer, ticket)
    assert reply == ordinary(ticket)
    assert reply.parameters["assigned"].string_param == "challenger"
    assert b"x-runoff-assigned" in writer.pieces(ticket, None, None).block


async def test_templates_end_with_their_table(plane: Plane) -> None:
    writer = ReplyWriter(plane.data)
    for revision in (1, 2):
        plane.serve({"champion": stage_linear(plane.artifacts)})
        (ticket,) = await answered(plane, 1)
        whole = writer.whole(ticket, 5, None)
        assert whole is not None
        assert message_of(whole[0])[1]["x-runoff-revision"] == str(revision)
        assert len(writer._templates) == 1


async def test_a_large_answer_is_not_copied(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    (ticket,) = await answered(plane, 20_000)
    writer = ReplyWriter(plane.data)
    assert writer.whole(ticket, 5, None) is None
    parts = writer.pieces(ticket, None, None).parts
    assert ticket.batch is not None
    assert ticket.batch.outputs is not None
    assert np.shares_memory(np.frombuffer(parts[-1], np.uint8), ticket.batch.outputs[1])
    assert in_pieces(writer, ticket) == ordinary(ticket)


def stage_texts(artifacts: Path) -> StagedModel:
    """Echoes text, and cuts rows of any width: strings, and outputs whose inner dimensions are free."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["text"]), helper.make_node("Shape", ["s"], ["dims"])],
        "texts",
        [helper.make_tensor_value_info("s", TensorProto.STRING, [None, 2])],
        [
            helper.make_tensor_value_info("text", TensorProto.STRING, [None, 2]),
            helper.make_tensor_value_info("dims", TensorProto.INT64, [2]),
        ],
    )
    signature = Signature(
        inputs=(TensorSpec(name="s", datatype="BYTES", shape=(-1, 2)),),
        outputs=(
            TensorSpec(name="text", datatype="BYTES", shape=(-1, 2)),
            TensorSpec(name="dims", datatype="INT64", shape=(2,)),
        ),
    )
    return write(artifacts, graph, signature, Answer(), ModelKey("texts", "1"))


async def test_texts_and_outputs_without_rows_are_written_in_pieces(plane: Plane) -> None:
    plane.serve({"champion": stage_texts(plane.artifacts)})
    writer = ReplyWriter(plane.data)
    for ticket in await answered(plane, 3, 1):
        assert writer.whole(ticket, 5, None) is None
        reply = in_pieces(writer, ticket)
        assert reply == ordinary(ticket)
        assert reply.outputs[1].shape == [2]


def test_the_end_of_a_success_is_one_known_section() -> None:
    assert OK_TRAILERS == b"\0\x0bgrpc-status\x010"
