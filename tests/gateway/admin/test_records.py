import hmac

import httpx
import pytest

from gateway.admin.records import _stored
from tests.kit.control import ControlPlane


def test_a_unit_is_looked_for_as_the_recorder_hashes_it_and_raw():
    key = b"k" * 32
    assert _stored("jane", key) == (hmac.digest(key, b"jane", "sha256")[:16].hex(), "jane")
    assert _stored("u\u0308", key) == _stored("ü", key)  # one text, however it was composed


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("?reason=r", {}, 400, "unit_malformed"),
        ("?reason=r", {"unit": "x" * 5000}, 400, "unit_malformed"),
        ("", {"unit": "jane"}, 400, "reason_missing"),
        ("?reason=r", {"unit": "jane"}, 503, "not_ready"),
    ],
)
async def test_what_cannot_be_forgotten_is_refused(tmp_path, query, body, status, code):
    async with ControlPlane(tmp_path / "var") as plane:
        transport = httpx.ASGITransport(plane.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8090") as client:
            reply = await client.post(f"/admin/v1/records:forget{query}", json=body)
            assert (reply.status_code, reply.json()["code"]) == (status, code)
        assert not [row for row in plane.store.audit(limit=10) if row.action.startswith("forg")]
