import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.admin.context import PRINCIPAL
from gateway.admin.guard import BODY_BYTES_MAX, Guard
from gateway.admin.replies import AdminError
from gateway.keys.key import digest_of, mint
from gateway.keys.ring import KeyRing
from gateway.state.keys import KeyRecord

KEY, KEY_ID = mint()
HOME = {"Host": "localhost:8090"}
JSON = {"Content-Type": "application/json"}


async def told(scope, receive, send):
    """The application behind the guard: says who came in, and how much it was sent."""
    body = await Request(scope, receive).body()
    who = scope[PRINCIPAL]
    await JSONResponse({"who": who and who.name, "bytes": len(body)})(scope, receive, send)


def guarded(*, needs_keys=False, rate_per_s=None, **options):
    record = KeyRecord(id=KEY_ID, name="app", digest=digest_of(KEY), scopes=("read",), rate_per_s=rate_per_s)
    ring = KeyRing(clock_s=lambda: 0.0)
    ring.replace([record], None)
    guard = Guard(told, ring=ring, needs_keys=needs_keys, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://gateway.example")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.2:8090", 200),
        ("runoff.localhost", 200),
        ("ADMIN.internal:8090", 200),
        ("0.0.0.0:8090", 403),
        ("localhost.evil.example", 403),
        ("admin.internal.evil.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_without_keys_only_loopback_and_the_named_hosts_are_answered(host, status):
    async with guarded(names=["Admin.Internal"]) as http:
        reply = await http.get("/", headers={"Host": host})
    assert reply.status_code == status
    assert status == 200 or reply.json()["code"] == "host_refused"


async def test_with_keys_any_name_will_do_and_foreign_pages_still_will_not():
    key = {"Authorization": f"Bearer {KEY}"}
    async with guarded(needs_keys=True) as http:
        assert (await http.get("/", headers=key)).status_code == 200
        refused = await http.get("/", headers={**key, "Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_refused")


async def test_a_write_may_be_empty_but_what_it_carries_is_json():
    async def streamed():
        yield b"{}"

    async with guarded() as http:
        assert (await http.post("/", headers=HOME)).status_code == 200
        assert (await http.post("/", headers=HOME | JSON, content=b"{}")).json()["bytes"] == 2
        spelled = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert (await http.post("/", headers=HOME | spelled, content=b"{}")).status_code == 200
        bare = [
            await http.post("/", headers=HOME, content=b"{}"),
            await http.post("/", headers=HOME, content=streamed()),
            await http.delete("/", headers=HOME | {"Content-Type": "text/plain"}),
        ]
    assert [(reply.status_code, reply.json()["code"]) for reply in bare] == [(415, "media_type_unsupported")] * 3


async def test_a_body_of_the_largest_size_is_taken_and_one_byte_more_is_not():
    async def portions(count):
        for _ in range(16):
            yield b" " * (BODY_BYTES_MAX // 16)
        yield b" " * count

    async with guarded() as http:
        assert (await http.post("/", headers=HOME | JSON, content=portions(0))).json()["bytes"] == BODY_BYTES_MAX
        declared = await http.post("/", headers=HOME | JSON, content=b" " * (BODY_BYTES_MAX + 1))
        with pytest.raises(AdminError) as streamed:
            await http.post("/", headers=HOME | JSON, content=portions(1))
    assert (declared.status_code, streamed.value.status) == (413, 413)


async def test_who_comes_in_is_noted_and_a_public_path_asks_nobody():
    async with guarded(needs_keys=True, public={"/docs"}) as http:
        assert (await http.get("/", headers={"X-API-Key": KEY})).json()["who"] == f"key:app/{KEY_ID}"
        assert (await http.get("/docs", headers={"X-API-Key": "nonsense"})).json()["who"] is None
        refused = await http.get("/docs/", headers={"X-API-Key": "nonsense"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


async def test_where_no_key_is_needed_a_bad_one_is_nobody():
    async with guarded() as http:
        assert (await http.get("/", headers=HOME | {"X-API-Key": "nonsense"})).json()["who"] is None
        assert (await http.get("/", headers=HOME | {"X-API-Key": KEY})).json()["who"] == f"key:app/{KEY_ID}"


async def test_a_used_up_key_is_told_how_long_to_wait():
    key = {"X-API-Key": KEY}
    async with guarded(needs_keys=True, rate_per_s=0.25) as http:
        assert (await http.get("/", headers=key)).status_code == 200
        refused = await http.get("/", headers=key)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "4")
