"""An OpenID Connect issuer in memory: its key pair, its published key set, and the tokens that it signs."""

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.settings import Oidc

ISSUER, AUDIENCE = "https://issuer.test", "runoff"


class Issuer:
    """`token` signs claims over good ones; a claim that is None is left out."""

    def __init__(self, kid: str = "k1", algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        if algorithm.startswith("ES"):
            self._private: Any = ec.generate_private_key(ec.SECP256R1())
        else:
            self._private = rsa.generate_private_key(65537, 2048)

    def jwk(self) -> dict[str, Any]:
        public = self._private.public_key()
        kind = jwt.algorithms.ECAlgorithm if self.algorithm.startswith("ES") else jwt.algorithms.RSAAlgorithm
        return {**kind.to_jwk(public, as_dict=True), "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def key_set(self) -> str:
        return json.dumps({"keys": [self.jwk()]})

    def token(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 600, "iat": now, "scope": "predict:a openid"}
        whole = {name: value for name, value in (good | claims).items() if value is not None}
        return jwt.encode(whole, self._private, self.algorithm, {"kid": self.kid, **(headers or {})})


def oidc(**fields: Any) -> Oidc:
    """Settings that trust the issuer."""
    return Oidc(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": "https://issuer.test/keys"} | fields)
