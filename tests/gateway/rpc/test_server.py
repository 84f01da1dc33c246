import grpc
import pytest

from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.server import serve
from gateway.settings import Settings


async def test_several_servers_share_a_port(corridor, server, tmp_path):
    other = await serve(corridor, f"127.0.0.1:{server.port}", Settings(state_dir=str(tmp_path)))
    assert other.port == server.port
    await other.stop(0)


async def test_a_message_above_the_bound_is_refused(call):
    request = pb.ModelInferRequest(model_name="phishing", raw_input_contents=[b"\0" * 100_001])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call("ModelInfer")(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stopped_server_takes_no_more(server, call):
    await server.stop(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call("ServerLive")(pb.ServerLiveRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
