"""What settings about keys and TLS only show when their files are opened: looked at once, before a gateway starts."""

import ssl

from gateway.keys.bootstrap import BootstrapFile, BootstrapInvalid
from gateway.keys.scopes import ScopeInvalid
from gateway.keys.tokens import scope_map
from gateway.settings import Listener, Settings, SettingsInvalid


def check(settings: Settings) -> None:
    """Raises SettingsInvalid, in one line that says what to mend."""
    try:
        BootstrapFile(settings.bootstrap_key_file).check()
        scope_map(settings.auth.oidc.scopes)
    except (BootstrapInvalid, ScopeInvalid) as error:
        raise SettingsInvalid(str(error)) from None
    for listener in settings.tls.listeners:
        tls_context(settings, listener)


def tls_context(settings: Settings, listener: Listener) -> ssl.SSLContext | None:
    """For a listener of asyncio's; None: it speaks plain text. Raises SettingsInvalid where the files are not what they should be."""
    pair = settings.tls.pair(listener)
    if pair is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(*pair, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a password that is asked for
        raise SettingsInvalid(f"tls.certificate_file, tls.key_file: {pair[0]}, {pair[1]}: {error}") from None
    ca = settings.tls.client_ca(listener)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise SettingsInvalid(f"tls.client_ca_file: {ca}: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
