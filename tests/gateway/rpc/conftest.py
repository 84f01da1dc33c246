"""The gRPC server over the small corridor, on a port of its own."""

import grpc
import pytest

from gateway.rpc.server import serve
from gateway.settings import Limits, Settings
from tests.kit.small_corridor import SmallCorridor, stocked_corridor


@pytest.fixture
def corridor() -> SmallCorridor:
    return stocked_corridor()


@pytest.fixture
async def server(corridor, tmp_path):
    settings = Settings(state_dir=str(tmp_path), limits=Limits(body_bytes_binary_max=100_000))
    made = await serve(corridor, "127.0.0.1:0", settings, statistics=corridor)
    yield made
    await made.stop(0)


@pytest.fixture
async def channel(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as made:
        yield made


@pytest.fixture
def call(channel):
    """A method of the inference service by its name, with our own messages."""
    from gateway.rpc import open_inference_pb2 as pb

    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

    def find(name):
        method = service.methods_by_name[name]
        make = channel.stream_stream if method.client_streaming else channel.unary_unary
        return make(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=getattr(pb, method.input_type.name).SerializeToString,
            response_deserializer=getattr(pb, method.output_type.name).FromString,
        )

    return find
