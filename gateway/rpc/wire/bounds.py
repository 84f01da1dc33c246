"""What one HTTP/2 connection may ask of us, and for how long."""

import msgspec


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    streams_max: int = 256
    header_bytes_max: int = 32_768
    header_count_max: int = 100
    header_s: float = 10.0
    idle_s: float = 75.0
    alive_s: float = 60.0
    """With streams open and nothing heard for this long a PING is sent; a third of it later the peer is given up."""
    settings_s: float = 20.0
    """In which our SETTINGS are to be acknowledged (RFC 9113, section 6.5.3)."""
