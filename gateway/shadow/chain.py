"""The gateways that a mirrored row has come through, so that rows which come round over other gateways are known, and end.

Each gateway that shows a row to a mirror on another server adds its id to the row's `X-Runoff-Mirrored`. Validation sees only cycles
within one gateway; over several nobody sees more than the rows themselves.
"""

import re
from typing import Final

HOPS_MAX: Final = 4
"""Gateways that a row is sent through, whether or not one of them comes again."""
_CHAIN: Final = re.compile(r"[0-9a-f]{16}(?:, ?[0-9a-f]{16}){0,15}")


def onward(chain: str | None, gateway: str) -> str | None:
    """What `gateway` sends along with a row that came with `chain` (None: a caller's own row).

    None: it goes no further. It has been here, has come through HOPS_MAX gateways, or nobody can tell where it has been.
    """
    if chain is None:
        return gateway
    passed = chain.replace(" ", "").split(",")
    if not _CHAIN.fullmatch(chain) or gateway in passed or len(passed) >= HOPS_MAX:
        return None
    return ",".join((*passed, gateway))
