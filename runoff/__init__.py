"""The thin client that notebooks and programs import: `from runoff import Runoff`. Needs httpx and the standard library, nothing else."""

from runoff.client import Runoff
from runoff.errors import GatewayUnreachable, NotSendable, RequestRefused, RunoffError
from runoff.tables import Reply, Table

__all__ = ["GatewayUnreachable", "NotSendable", "Reply", "RequestRefused", "Runoff", "RunoffError", "Table"]
