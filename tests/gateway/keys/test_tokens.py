import hmac
import json
import time
from base64 import urlsafe_b64encode

import jwt
import pytest

from gateway.errors import Unauthenticated
from gateway.keys.scopes import ScopeInvalid
from gateway.keys.tokens import TokenReader, scope_map, usable_keys
from gateway.state.keys import KeySet
from tests.kit.issuer import AUDIENCE, ISSUER, Issuer, oidc


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


def reader_of(issuer, **fields):
    reader = TokenReader(oidc(**fields))
    reader.use(KeySet(issuer.key_set(), time.time_ns() // 1000))
    return reader


def test_a_good_token_says_who_it_is_and_what_they_may(issuer):
    claims = reader_of(issuer).read(issuer.token())
    assert claims.subject == "ann"
    assert str(claims.grants) == "predict:a"
    assert claims.ends_unix_s > time.time()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": 10**400},
        {"iss": "https://other.test"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"sub": None},
        {"nbf": 1 << 40},
    ],
    ids=str,
)
def test_a_token_with_a_claim_that_does_not_fit_is_refused(issuer, claims):
    with pytest.raises(Unauthenticated):
        reader_of(issuer).read(issuer.token(**claims))


def test_the_token_does_not_choose_its_algorithm(issuer):
    """The public key as an HMAC secret, and no signature at all: the classic two."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": now + 600, "scope": "keys:write"}
    head, body = ({"alg": "HS256", "kid": issuer.kid}, claims)
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body))
    seal = hmac.digest(json.dumps(issuer.jwk()).encode(), signed, "sha256")
    for forged in (
        b".".join((signed, urlsafe_b64encode(seal).rstrip(b"="))).decode(),
        jwt.encode(claims, None, "none", {"kid": issuer.kid}),
    ):
        with pytest.raises(Unauthenticated):
            reader_of(issuer).read(forged)


def test_a_key_that_the_token_brings_along_is_not_used(issuer):
    eve = Issuer(kid="evil")
    brought = {"jwk": eve.jwk(), "jku": "https://evil.test/keys", "x5u": "https://evil.test/cert"}
    with pytest.raises(Unauthenticated):
        reader_of(issuer).read(eve.token(headers=brought))
    with pytest.raises(Unauthenticated):
        reader_of(issuer).read(Issuer(kid=issuer.kid).token(headers=brought))


def test_what_is_no_token_is_refused(issuer):
    for text in ("a.b.c", "..", "eyJhbGciOiJub25lIn0..", issuer.token()[:-4]):
        with pytest.raises(Unauthenticated):
            reader_of(issuer).read(text)


def test_without_keys_or_with_old_ones_no_token_is_taken(issuer):
    with pytest.raises(Unauthenticated, match="not here"):
        TokenReader(oidc()).read(issuer.token())
    reader = TokenReader(oidc(stale_s=60.0))
    reader.use(KeySet(issuer.key_set(), int((time.time() - 61) * 1e6)))
    with pytest.raises(Unauthenticated, match="too old"):
        reader.read(issuer.token())


def test_new_keys_replace_the_old_and_a_broken_set_does_not(issuer):
    reader, successor = reader_of(issuer), Issuer(kid="k2")
    now_us = time.time_ns() // 1000
    reader.use(KeySet("no json", now_us))
    assert reader.read(issuer.token())
    reader.use(KeySet(successor.key_set(), now_us))
    assert reader.read(successor.token())
    with pytest.raises(Unauthenticated):
        reader.read(issuer.token())


def test_groups_mean_what_the_settings_say_and_nothing_else(issuer):
    mapped = ("ml-team=read route:write", "shop=predict:a")
    reader = reader_of(issuer, scope_claim="groups", scopes=mapped)
    grants = reader.read(issuer.token(groups=["ml-team", "keys:write", 7])).grants
    assert str(grants) == "read route:write"
    assert str(reader.read(issuer.token()).grants) == ""


@pytest.mark.parametrize("line", ["ml-team", "=read", "ml-team=", "ml-team=everything"])
def test_a_mapping_that_means_nothing_is_refused(line):
    with pytest.raises(ScopeInvalid):
        scope_map((line,))


def test_only_keys_that_sign_with_the_fixed_algorithms_are_used(issuer):
    rs = Issuer(kid="r", algorithm="RS256")
    oct_key = {"kty": "oct", "k": "c2VjcmV0", "kid": "o", "alg": "HS256"}
    document = json.dumps(
        {"keys": [issuer.jwk(), rs.jwk(), oct_key, {"kty": "odd"}, {**rs.jwk(), "use": "enc", "kid": "e"}]}
    )
    assert set(usable_keys(document, ("ES256", "RS256"))) == {"k1", "r"}
    assert set(usable_keys(document, ("RS256",))) == {"r"}
    for useless in ("{}", '{"keys": 3}', "[]", "x"):
        with pytest.raises(ValueError, match="key set"):
            usable_keys(useless, ("ES256",))
