import msgspec

from gateway.streams.letters import DeadLetters


def test_a_letter_keeps_the_payload_and_says_why(tmp_path):
    letters = DeadLetters(tmp_path / "letters")
    letters.put("worker-1", 7, b"\xc1", "no messagepack")
    assert (tmp_path / "letters" / "worker-1-000000000007.frame").read_bytes() == b"\xc1"
    told = msgspec.json.decode((tmp_path / "letters" / "worker-1-000000000007.json").read_bytes())
    assert told == {"writer": "worker-1", "sequence": 7, "reason": "no messagepack"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "letters").iterdir()} == {0o600}


def test_the_same_frame_again_changes_nothing_also_after_a_restart(tmp_path):
    for _ in range(2):
        letters = DeadLetters(tmp_path)
        letters.put("worker-1", 7, b"x", "why")
        letters.put("worker-1", 7, b"x", "why")
    assert letters.count == 0
    assert len(list(tmp_path.glob("*.frame"))) == 1


def test_above_the_bound_letters_are_counted_only(tmp_path):
    letters = DeadLetters(tmp_path, letters_max=2)
    for sequence in range(5):
        letters.put("worker-1", sequence, b"x", "why")
    assert (letters.count, letters.dropped) == (5, 3)
    assert len(list(tmp_path.glob("*.frame"))) == 2
