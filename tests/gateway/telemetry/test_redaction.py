import pytest

from gateway.telemetry.redaction import redacted

SECRET = "zE0Y-canary_0123456789abcdefghijklmnopqrstu"
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLWNhbmFyeQ"


@pytest.mark.parametrize(
    "line",
    [
        f"bad key runoff_0123456789ab_{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"{{'authorization': 'Bearer {SECRET}'}}",
        f"[(b'authorization', b'Bearer {SECRET}')]",
        f"[(b'x-api-key', b'{SECRET}')]",
        f'{{"x-api-key":"{SECRET}"}}',
        f"authorization=Basic {SECRET}",
        f"Cookie: session={SECRET}",
        f"token {TOKEN} refused",
        f"cannot reach https://ann:{SECRET}@registry.test/path",
    ],
)
def test_what_opens_a_door_is_cut_out(line):
    text = redacted(line)
    assert "canary" not in text
    assert TOKEN.rpartition(".")[2] not in text


@pytest.mark.parametrize(
    "line",
    [
        "model_warmed endpoint=phishing",
        '{"at":"2026-11-23T04:05:00.935Z","digest":"' + "a" * 64 + '"}',
        "http://h:80/p?q=a@b",
    ],
)
def test_what_opens_none_stays(line):
    assert redacted(line) == line
