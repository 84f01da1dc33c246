from gateway.keys.key import digest_of, id_of, mint
from gateway.telemetry.redaction import redacted


def test_a_key_names_itself_and_is_never_made_twice():
    made = [mint() for _ in range(100)]
    assert len({key for key, _ in made}) == 100
    assert all(id_of(key) == key_id and len(digest_of(key)) == 32 for key, key_id in made)


def test_what_is_no_key_has_no_id():
    key, _ = mint()
    assert [id_of(text) for text in ("", "nope", key[:-1], key + "x", key.upper(), "eyJ.a.b")] == [None] * 6


def test_every_key_that_is_made_is_cut_out_of_logs():
    for _ in range(200):
        key, key_id = mint()
        line = redacted(f'{{"event":"x","problem":"bad header {key}"}}')
        assert key[20:] not in line
        assert key_id in line
