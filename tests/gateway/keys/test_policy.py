"""The auth matrix of the data listeners: every path and every method × every way not to be allowed. A new one without a scope fails."""

import contextlib
import socket

import grpc
import httpx
import pytest

from gateway.keys.doorkeeper import KeyDoor
from gateway.keys.key import digest_of, mint
from gateway.keys.policy import METHODS, PATHS
from gateway.keys.ring import KeyRing
from gateway.keys.scopes import SCOPES
from gateway.rest.app import build
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.handlers import SERVICE
from gateway.rpc.server import serve
from gateway.rpc.standard import HEALTH, REFLECTION
from gateway.rpc.wire.server import serve as serve_wire
from gateway.settings import Settings
from gateway.state.keys import KeyRecord
from tests.kit.plane import Plane
from tests.kit.small_corridor import ListSink, stocked_corridor
from tests.kit.staged import stage_linear

ENDPOINT = "phishing"
PATH_VALUES = {"{m}": ENDPOINT, "{v}": "3", "{l}": "champion"}
WITHOUT_MODEL = {"/v2", "/v2/models/stats", "/v2/repository/index", "/v1/labels"}
"""Any grant of the scope opens these: they tell or take only what the grant is for, row by row."""


class Keys:
    """One ring with a key of every kind. `bad` maps a name to a credential that must not come in, and the REST status."""

    def __init__(self, scope):
        now = [1000.0]
        self.ring = KeyRing(clock_unix_s=lambda: now[0], clock_s=lambda: now[0])
        others = tuple(one for one in SCOPES if one != scope)
        self._records = []
        self.good = self._made(scope)
        self.elsewhere = self._made(f"{scope}:elsewhere", f"{scope}:phish", f"{scope}:phishing2")
        self.bad = {
            "no key": (None, 401),
            "bad key": (mint()[0], 401),
            "bad secret": (self.good[:-3] + "AAA", 401),
            "no key at all": ("nonsense", 401),
            "expired": (self._made(scope, expires_unix_us=1), 401),
            "revoked": (self._made(scope, revoked_unix_us=1), 401),
            "wrong scope": (self._made(*others), 403),
        }
        self.ring.replace(self._records, None)

    def _made(self, *scopes, **fields):
        key, key_id = mint()
        self._records.append(KeyRecord(id=key_id, name="k", digest=digest_of(key), scopes=scopes, **fields))
        return key


def rest_routes():
    """(method, path template) of the app as it is built, HEAD left out: it is GET."""
    app = build(stocked_corridor(), ListSink(), Settings())
    return [(method, route.path) for route in app.routes for method in sorted(route.methods - {"HEAD"})]


def rpc_methods():
    """Full names of every method that the server serves."""
    own = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    standard = [f"/{HEALTH}/Check", f"/{HEALTH}/Watch", *(f"/{name}/ServerReflectionInfo" for name in REFLECTION)]
    return [*(f"/{SERVICE}/{method.name}" for method in own), *standard]


def test_every_route_declares_its_scope_and_every_declaration_has_its_route():
    assert {path for _, path in rest_routes()} == set(PATHS)
    assert set(rpc_methods()) == set(METHODS)


def test_what_is_open_to_everybody_can_be_counted_on_two_hands():
    public = {name for table in (PATHS, METHODS) for name, scope in table.items() if scope == "public"}
    assert public == {
        "/v2/health/live",
        "/v2/health/ready",
        "/ping",
        "/health",
        "/version",
        f"/{SERVICE}/ServerLive",
        f"/{SERVICE}/ServerReady",
        f"/{HEALTH}/Check",
        f"/{HEALTH}/Watch",
        *(f"/{name}/ServerReflectionInfo" for name in REFLECTION),
    }


def test_a_path_that_nobody_declared_is_open_to_nobody(monkeypatch):
    monkeypatch.setattr("gateway.rest.app.PATHS", {path: scope for path, scope in PATHS.items() if path != "/ping"})
    app = build(stocked_corridor(), ListSink(), Settings())
    (route,) = (route for route in app.routes if route.path == "/ping")
    assert "_undeclared" in route.endpoint.__qualname__


# ── REST ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def filled(template):
    for name, value in PATH_VALUES.items():
        template = template.replace(name, value)
    return template


async def ask(ring, method, path, credential, header="authorization"):
    app = build(stocked_corridor(), ListSink(), Settings(), doorkeeper=KeyDoor(ring, is_open=False))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 5))
    headers = (
        {} if credential is None else {header: f"Bearer {credential}" if header == "authorization" else credential}
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://runoff.test") as client:
        return await client.request(method, filled(path), headers=headers, content=b"{}" if method == "POST" else None)


@pytest.mark.parametrize(("method", "path"), rest_routes(), ids=" ".join)
async def test_rest_lets_nobody_in_who_may_not(method, path):
    scope = PATHS[path]
    if scope == "public":
        assert (await ask(KeyRing(), method, path, None)).status_code == 200
        return
    keys = Keys(scope)
    for name, (credential, status) in keys.bad.items():
        for header in ("authorization", "x-api-key"):
            reply = await ask(keys.ring, method, path, credential, header)
            assert reply.status_code == status, (name, header, reply.text)
            assert ("www-authenticate" in reply.headers) == (status == 401)
            assert credential is None or credential not in reply.text
    elsewhere = await ask(keys.ring, method, path, keys.elsewhere)
    assert (elsewhere.status_code == 403) == (path not in WITHOUT_MODEL), elsewhere.text
    if scope != "model:write":
        assert (await ask(keys.ring, method, path, keys.good)).status_code not in (401, 403)


async def test_lists_tell_of_no_endpoint_that_the_key_is_not_for():
    keys = Keys("predict")
    for method, path in (("POST", "/v2/repository/index"), ("GET", "/v2/models/stats")):
        assert ENDPOINT in (await ask(keys.ring, method, path, keys.good)).text or path.endswith("stats")
        assert ENDPOINT not in (await ask(keys.ring, method, path, keys.elsewhere)).text


# ── gRPC ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def request_of(full_name):
    """A request that names the endpoint where the method takes one."""
    service, method = full_name.strip("/").split("/")
    if service != SERVICE:
        return b""
    kind = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method].input_type
    message = getattr(pb, kind.name)()
    for field in ("name", "model_name"):
        if field in kind.fields_by_name and method != "ModelStatistics":
            setattr(message, field, ENDPOINT)
    return message.SerializeToString()


async def call(channel, full_name, credential):
    """The status of a call; for streams, of one message on them."""
    metadata = () if credential is None else (("authorization", f"Bearer {credential}"),)
    if full_name.endswith(("ModelStreamInfer", "ServerReflectionInfo", "Watch")):
        stream = channel.stream_stream(full_name)(iter([request_of(full_name)]), metadata=metadata, timeout=5)
        try:
            first = await stream.read()
        except grpc.aio.AioRpcError as error:
            if "Internal error from Core" in (
                error.details() or ""
            ):  # this client trips over calls that end while it still writes
                return await call(channel, full_name, credential)
            return error.code(), ""
        finally:
            stream.cancel()
        is_infer = full_name.endswith("ModelStreamInfer") and first is not grpc.aio.EOF
        return grpc.StatusCode.OK, pb.ModelStreamInferResponse.FromString(first).error_message if is_infer else ""
    try:
        await channel.unary_unary(full_name)(request_of(full_name), metadata=metadata, timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.fixture(params=["grpcio", "wire"])
async def channel_to(request, tmp_path):
    """Serves behind these keys, by either of the two servers, and answers a channel."""
    async with contextlib.AsyncExitStack() as opened:

        async def open_(keys):
            settings, door = Settings(state_dir=str(tmp_path)), KeyDoor(keys.ring, is_open=False)
            if request.param == "grpcio":
                server = await serve(stocked_corridor(), "127.0.0.1:0", settings, doorkeeper=door)
            else:
                plane = Plane(tmp_path)
                opened.callback(plane.close)
                plane.serve({"champion": stage_linear(plane.artifacts)}, endpoint=ENDPOINT)
                sock = socket.create_server(("127.0.0.1", 0))
                server = await serve_wire(plane.data, plane.corridor, sock, settings, doorkeeper=door)
            opened.push_async_callback(server.stop, 0)
            return await opened.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))

        yield open_


@pytest.mark.parametrize("full_name", rpc_methods())
async def test_grpc_lets_nobody_in_who_may_not(full_name, channel_to):
    scope = METHODS[full_name]
    keys = Keys("predict" if scope == "public" else scope)
    channel = await channel_to(keys)
    if scope == "public":
        assert (await call(channel, full_name, None))[0] is grpc.StatusCode.OK
        return
    wanted = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}
    for name, (credential, status) in keys.bad.items():
        assert (await call(channel, full_name, credential))[0] is wanted[status], name
    code, message = await call(channel, full_name, keys.elsewhere)
    if full_name.endswith("ModelStreamInfer"):
        assert "no scope predict" in message
    elif request_of(full_name):
        assert code is grpc.StatusCode.PERMISSION_DENIED
    if scope != "model:write":
        code, _ = await call(channel, full_name, keys.good)
        assert code not in wanted.values()


async def test_the_health_of_an_endpoint_is_for_who_may_predict_with_it(channel_to):
    keys = Keys("predict")
    channel = await channel_to(keys)
    request = b"\x0a" + bytes([len(ENDPOINT)]) + ENDPOINT.encode()
    check = channel.unary_unary(f"/{HEALTH}/Check")
    await check(request, metadata=(("x-api-key", keys.good),))
    for credential, code in ((None, "UNAUTHENTICATED"), (keys.elsewhere, "PERMISSION_DENIED")):
        metadata = () if credential is None else (("x-api-key", credential),)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(request, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode[code]
