"""Somebody with the state database in hand rewrites the past: the next start finds it, says so everywhere, and serves on."""

import sqlite3

import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, route

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_a_changed_row_of_the_audit_shows_at_the_next_start_and_nobody_goes_without_an_answer(tmp_path):
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", files.binary(tmp_path / "phishing.onnx"), 1)), reason="by me")
        assert gateway.client.status()["audit"] == {"intact": True, "broken_at": None}
        gateway.stop()
        with sqlite3.connect(gateway.state / "state.db") as connection:
            connection.execute("DROP TRIGGER audit_is_never_changed")
            changed = connection.execute("UPDATE audit SET author = 'somebody else' WHERE reason = 'by me'").rowcount
        assert changed == 1
        gateway.events.clear()
        gateway.start()
        assert gateway.client.status()["audit"] == {"intact": False, "broken_at": 1}
        assert "the audit was changed at row 1" in gateway.run("status", "--once").stdout
        assert "the audit was changed at row 1" in gateway.run("history", "phishing").stdout
        eventually(lambda: gateway.happened("audit_broken"))
        assert gateway.infer("phishing", [[1, 2, 3, 4]]).status_code == 200
        assert gateway.client.split("phishing", champion=2, reason="it goes on")["state"] == "live"
