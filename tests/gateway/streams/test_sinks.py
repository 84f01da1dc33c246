import pytest

from gateway.settings_sources import load
from gateway.streams.relay import SinkFailed
from gateway.streams.sinks import _properties, relays


def test_no_sink_is_asked_for_by_default(tmp_path):
    assert relays(load({"state_dir": str(tmp_path)}, {})) == []


def test_each_sink_that_is_set_has_its_relay(tmp_path):
    environ = {"RUNOFF_SINKS_FEAST_REPO": str(tmp_path), "RUNOFF_SINKS_KAFKA_BROKERS": "127.0.0.1:9"}
    environ |= {"RUNOFF_SINKS_NATS_SERVERS": "nats://127.0.0.1:9,nats://127.0.0.1:10"}
    assert [relay.name for relay in relays(load({"state_dir": str(tmp_path)}, environ))] == ["feast", "kafka", "nats"]


def test_properties_are_lines_of_names_and_values(tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("# secret\nsecurity.protocol = SSL\n\nssl.key.password=a=b\n")
    assert _properties(str(file)) == {"security.protocol": "SSL", "ssl.key.password": "a=b"}
    assert _properties(None) == {}
    with pytest.raises(SinkFailed, match="properties_file"):
        _properties(str(tmp_path / "none"))
