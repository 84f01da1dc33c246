import ssl

import pytest

from gateway.keys.start import check, tls_context
from gateway.settings import Auth, Oidc, Settings, SettingsInvalid, Tls
from tests.kit.certificates import Certificate


def settings(tmp_path, **fields):
    return Settings(state_dir=str(tmp_path), **fields)


def test_settings_that_open_nothing_are_fine(tmp_path):
    check(settings(tmp_path))
    check(settings(tmp_path, bootstrap_key_file=str(tmp_path / "absent")))
    assert tls_context(settings(tmp_path), "rest") is None


def test_a_certificate_serves_the_listeners_that_it_is_for(tmp_path):
    made = Certificate(tmp_path)
    tls = settings(tmp_path, tls=Tls(**made.settings, listeners=("admin",)))
    check(tls)
    assert tls_context(tls, "admin") is not None
    assert tls_context(tls, "rest") is None


def test_an_authority_of_callers_holds_for_the_listeners_that_it_is_for(tmp_path):
    made = Certificate(tmp_path)
    fields = {**made.settings, "client_ca_file": str(made.certificate), "client_listeners": ("rest",)}
    tls = settings(tmp_path, tls=Tls(**fields))
    check(tls)
    assert tls_context(tls, "rest").verify_mode is ssl.CERT_REQUIRED
    assert tls_context(tls, "admin").verify_mode is ssl.CERT_NONE
    assert (tls.tls.client_ca("rest"), tls.tls.client_ca("admin")) == (str(made.certificate), None)


def test_what_cannot_work_prevents_the_start_and_names_the_setting(tmp_path):
    made, short = Certificate(tmp_path), tmp_path / "short"
    short.write_text("short")
    broken = [
        ({"bootstrap_key_file": str(short)}, "bootstrap_key_file"),
        ({"tls": Tls(certificate_file=str(made.key), key_file=str(made.key))}, "tls.certificate_file"),
        ({"tls": Tls(certificate_file=str(tmp_path / "no"), key_file=str(made.key))}, "tls.certificate_file"),
        ({"tls": Tls(**made.settings, client_ca_file=str(short))}, "tls.client_ca_file"),
        ({"auth": Auth(oidc=Oidc(scopes=("nonsense",)))}, "auth.oidc.scopes"),
    ]
    for fields, words in broken:
        with pytest.raises(SettingsInvalid, match=words):
            check(settings(tmp_path, **fields))
