import asyncio

import pytest

from models.runtime.target import RemoteRefused, Target, is_allowed_address

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://127.0.0.2:80",
        "http://localhost.evil.org",
        "ftp://localhost",
        "http://u:p@localhost",
    ],
)
def test_a_host_that_is_not_allowed_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(RemoteRefused):
        Target(url, allow=LOOPBACK)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://LOCALHOST.:1", "http://[::1]:1", "http://127.0.0.1:1/base/"]
)
def test_hosts_are_compared_whole_and_without_case(url: str) -> None:
    assert Target(url, allow=LOOPBACK).port == 1


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_addresses_that_may_not_be_called_are_seen_through_every_disguise(address: str, *, is_allowed: bool) -> None:
    assert is_allowed_address(address) is is_allowed


async def test_a_name_is_resolved_once_for_a_while_and_anew_after_a_failure() -> None:
    now = [0.0]
    target = Target("http://localhost:1", allow=LOOPBACK, clock=lambda: now[0])
    found = await target.address()
    target.host = "no.such.host.invalid"  # whoever asks the resolver now fails
    now[0] = 29.0
    assert await target.address() == found
    target.forget()
    with pytest.raises(OSError):  # noqa: PT011  # the resolver's own words
        await target.address()


async def test_of_several_addresses_each_is_tried_after_the_one_before_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, 1)) for address in ("::1", "fe80::1", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    target = Target("http://localhost:1", allow=LOOPBACK)
    found = []
    for _ in range(3):
        found.append(await target.address())
        target.forget()
    assert found == ["::1", "127.0.0.1", "::1"]
