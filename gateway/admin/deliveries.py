"""Webhooks of the registry: a signed word that something moved. It only nudges a look at the aliases; nothing in it is believed.

MLflow signs as Standard Webhooks do, with its own header names (mlflow/webhooks/delivery.py, 3.17): `v1,` and the base64 of HMAC-SHA256
over `<delivery id>.<timestamp>.<body>`, keyed with the secret's own bytes.
"""

import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

SIGNATURE: Final = "x-mlflow-signature"
TIMESTAMP: Final = "x-mlflow-timestamp"
DELIVERY: Final = "x-mlflow-delivery-id"
WINDOW_S: Final = 300
DELIVERIES_MAX: Final = 4096
"""Delivery ids remembered, the newest; one that is older and still in the window could be replayed, for one more look at the registry."""


class SignatureRefused(Exception):
    """Not signed with our secret, or not now; the message says which, and nothing of what was sent."""


class Webhooks:
    """Checks deliveries and nudges once for each. `clock` is the wall clock in seconds."""

    def __init__(self, secret: str, nudge: Callable[[], None], *, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode()
        self._nudge = nudge
        self._clock = clock
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether this delivery is new. Raises SignatureRefused."""
        delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
        if not delivery or not timestamp:
            raise SignatureRefused(f"wanted the headers {SIGNATURE}, {TIMESTAMP} and {DELIVERY}")
        digest = hmac.new(self._secret, f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        wanted = b"v1," + base64.b64encode(digest)
        # Senders that rotate their secret sign with both, separated by spaces (Standard Webhooks).
        signatures = headers.get(SIGNATURE, "").encode().split()
        if not any(hmac.compare_digest(wanted, signature) for signature in signatures):
            raise SignatureRefused("the signature is not that of this body under our secret")
        if not timestamp.isascii() or not timestamp.isdigit() or abs(self._clock() - int(timestamp)) > WINDOW_S:
            raise SignatureRefused(f"the timestamp is not within {WINDOW_S // 60} minutes of now")
        if delivery in self._seen:
            return False
        self._seen[delivery] = None
        while len(self._seen) > DELIVERIES_MAX:
            self._seen.popitem(last=False)
        self._nudge()
        return True
