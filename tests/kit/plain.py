"""HTTP without TLS: httpx reads the certificates of all authorities for each call of its own, 20 ms that a wait spends again and again."""

import ssl

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `verify` of whoever asks http:// alone: it knows no authority."""
