"""Prediction ids are UUIDv7, unique, and rise in the order they were minted."""

import uuid

from gateway.ids import Minter, bytes_of, minted_unix_us, text_of


def test_an_id_is_a_valid_uuid_version_7_of_its_millisecond() -> None:
    raw, text = Minter(clock_ns=lambda: 1_700_000_000_123_000_000).mint()[0]
    parsed = uuid.UUID(text)
    assert parsed.bytes == raw
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert int.from_bytes(raw[:6], "big") == 1_700_000_000_123


def test_ids_of_one_millisecond_differ_and_rise() -> None:
    minter = Minter(clock_ns=lambda: 5_000_000)
    ids = [raw for _ in range(100) for raw, _ in minter.mint(100)]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)


def test_two_processes_do_not_meet() -> None:
    one, other = (Minter(clock_ns=lambda: 5_000_000) for _ in range(2))
    assert set(one.mint(1000)).isdisjoint(other.mint(1000))


def test_text_and_bytes_are_each_others_inverse() -> None:
    [(raw, text)] = Minter().mint()
    assert text_of(raw) == text
    assert bytes_of(text) == raw
    assert bytes_of("not-an-id") is None
    assert bytes_of("g" * 8 + text[8:]) is None


def test_an_id_says_when_it_was_minted_and_another_uuid_says_nothing() -> None:
    [(raw, _)] = Minter(clock_ns=lambda: 1_700_000_000_123_999_999).mint()
    assert minted_unix_us(raw) == 1_700_000_000_123_000
    assert minted_unix_us(uuid.uuid4().bytes) is None
    assert minted_unix_us(raw[:8] + b"\x00" + raw[9:]) is None
