import pytest

from gateway.settings import SettingsInvalid
from gateway.settings_sources import explain, load


def test_nothing_given_works(tmp_path):
    settings = load({}, {})
    assert settings.rest_port == 8080
    assert settings.registry_uri == f"sqlite:///{settings.state_dir}/mlflow.db"
    assert settings.lake_uri == f"{settings.state_dir}/lake"
    assert settings.workers >= 1


def test_options_beat_variables_which_beat_the_file(tmp_path):
    file = tmp_path / "runoff.toml"
    file.write_text("rest_port = 1\ngrpc_port = 1\nworkers = 1\n[limits]\nbody_s = 1.0\n")
    environ = {"RUNOFF_REST_PORT": "2", "RUNOFF_GRPC_PORT": "2", "RUNOFF_LIMITS_BODY_S": "2.5"}
    settings = load({"rest_port": 3, "workers": None}, environ, file)
    assert (settings.rest_port, settings.grpc_port, settings.workers, settings.limits.body_s) == (3, 2, 1, 2.5)


def test_the_registry_falls_back_to_the_variables_of_mlflow():
    assert load({}, {"MLFLOW_TRACKING_URI": "http://t"}).registry_uri == "http://t"
    both = {"MLFLOW_TRACKING_URI": "http://t", "MLFLOW_REGISTRY_URI": "http://r"}
    assert load({}, both).registry_uri == "http://r"
    assert load({}, both).tracking_uri == "http://t"
    assert load({}, both | {"RUNOFF_REGISTRY_URI": "http://o"}).registry_uri == "http://o"


def test_lists_are_separated_by_commas_in_variables():
    assert load({}, {"RUNOFF_TRUST_PICKLE": "fraud-*, phishing"}).trust_pickle == ("fraud-*", "phishing")


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        ({"rest_prot": 1}, {}, "unknown setting 'rest_prot'"),
        ({}, {"RUNOFF_REST_PORT": "many"}, "rest_port (from RUNOFF_REST_PORT)"),
        ({}, {"RUNOFF_REST_PORT": "70000"}, "got '70000'"),
        ({"door": "window"}, {}, "door (from option)"),
        ({"state_url": "postgresql://u:secret@h/db"}, {}, "wanted sqlite:///<path>, got postgresql:…"),
        ({"admin_host": "0.0.0.0"}, {}, "auth.admin"),
        ({"host": "0.0.0.0"}, {}, "open_data"),
        ({}, {"RUNOFF_INGESTED_RETENTION": "a=9d,../b=9d"}, "such as customers=90d, got '../b=9d'"),
        ({"ingested_retention": ["a=soon"]}, {}, "got 'a=soon'"),
        ({"ingested_retention": ["a=9999999w"]}, {}, "up to 100 years"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options, environ, words):
    with pytest.raises(SettingsInvalid) as refused:
        load(options, environ)
    assert words in str(refused.value)


def test_an_unknown_key_in_the_file_names_the_file(tmp_path):
    file = tmp_path / "runoff.toml"
    file.write_text("[limits]\nbody = 3\n")
    with pytest.raises(SettingsInvalid, match=r"runoff\.toml: unknown setting 'limits.body'"):
        load({}, {}, file)


def test_a_listener_beyond_loopback_opens_with_keys_or_on_purpose():
    assert load({"host": "0.0.0.0", "open_data": True}, {}).open_data
    assert load({"host": "0.0.0.0", "auth.data": "keys"}, {}).auth.data == "keys"


def test_every_setting_is_explained_with_its_origin():
    rows = {row.key: row for row in explain({"workers": 2}, {"RUNOFF_REST_PORT": "0"})}
    assert (rows["workers"].origin, rows["rest_port"].origin, rows["host"].origin) == (
        "option",
        "RUNOFF_REST_PORT",
        "default",
    )
    assert all(row.meaning for row in rows.values())
    assert rows["limits.body_s"].variable == "RUNOFF_LIMITS_BODY_S"


def test_passwords_in_addresses_are_not_shown():
    rows = {row.key: row for row in explain({"registry_uri": "https://ann:secret@host/x"}, {})}
    assert rows["registry_uri"].value == "https://ann:…@host/x"


def test_a_group_within_a_group_is_set_like_any_other(tmp_path):
    file = tmp_path / "runoff.toml"
    file.write_text(
        '[auth.oidc]\nissuer = "https://i"\naudience = "a"\njwks = "https://i/keys"\nscopes = ["ml=read"]\n'
    )
    settings = load({}, {"RUNOFF_AUTH_OIDC_AUDIENCE": "b", "RUNOFF_AUTH_OIDC_ALGORITHMS": "ES256,EdDSA"}, file)
    oidc = settings.auth.oidc
    assert (oidc.issuer, oidc.audience, oidc.scopes) == ("https://i", "b", ("ml=read",))
    assert oidc.algorithms == ("ES256", "EdDSA")
    row = next(row for row in explain({}, {}, file) if row.key == "auth.oidc.audience")
    assert (row.value, row.variable, row.origin) == ("a", "RUNOFF_AUTH_OIDC_AUDIENCE", str(file))


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RUNOFF_AUTH_OIDC_ISSUER": "https://i"}, "audience and jwks"),
        ({"RUNOFF_AUTH_OIDC_ALGORITHMS": "HS256"}, "auth.oidc.algorithms"),
        ({"RUNOFF_AUTH_OIDC_ALGORITHMS": "none"}, "auth.oidc.algorithms"),
        (
            {
                "RUNOFF_AUTH_OIDC_ISSUER": "https://i",
                "RUNOFF_AUTH_OIDC_AUDIENCE": "a",
                "RUNOFF_AUTH_OIDC_JWKS": "http://i/keys",
            },
            "wanted https",
        ),
        ({"RUNOFF_TLS_KEY_FILE": "k"}, "both or none"),
        ({"RUNOFF_WEBHOOK_PORT": "0"}, "RUNOFF_WEBHOOK_SECRET"),
        ({"RUNOFF_TLS_LISTENERS": "rest,fax"}, "tls.listeners"),
    ],
)
def test_settings_about_who_comes_in_are_whole_or_refused(environ, words):
    with pytest.raises(SettingsInvalid) as refused:
        load({}, environ)
    assert words in str(refused.value)
