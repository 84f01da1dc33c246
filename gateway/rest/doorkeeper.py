"""The seam to whatever knows keys, as the doors name it; it is made in `gateway/keys/doorkeeper.py`."""

from gateway.keys.doorkeeper import Doorkeeper, OpenDoor, Visitor, credential_of
from gateway.keys.scopes import Scope

__all__ = ["Doorkeeper", "OpenDoor", "Scope", "Visitor", "credential_of"]
