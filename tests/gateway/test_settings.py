import msgspec

from gateway.settings import Limits, Settings, Tls


def test_what_is_left_empty_follows_from_the_state_directory(tmp_path):
    settings = Settings(state_dir=str(tmp_path))
    assert settings.registry_uri == settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert (settings.lake_uri, settings.state_file) == (f"{tmp_path}/lake", tmp_path / "state.db")
    assert Settings(state_dir=str(tmp_path), tracking_uri="http://t").registry_uri == "http://t"
    assert settings.workers >= 1


def test_settings_cross_to_a_child_unchanged():
    settings = Settings(state_dir="elsewhere", limits=Limits(body_s=3.0))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


def test_a_certificate_is_for_the_listeners_that_are_named():
    tls = Tls(certificate_file="c", key_file="k", listeners=("rest",))
    assert (tls.pair("rest"), tls.pair("admin")) == (("c", "k"), None)
    assert (tls.scheme("rest"), tls.scheme("admin"), Tls().scheme("rest")) == ("https", "http", "http")


def test_tables_of_others_have_the_retention_that_is_set():
    assert Settings(ingested_retention=("customers=90d", "events=12h")).ingested_kept_s == {
        "customers": 90 * 86_400,
        "events": 12 * 3600,
    }
