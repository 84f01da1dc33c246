import contextlib
import socket

import pytest

from gateway.processes.ports import PortGroup, PortTaken, bind


@pytest.fixture
def group():
    with contextlib.closing(PortGroup("127.0.0.1", 0, "rest_port")) as group:
        yield group


def test_port_zero_picks_one_and_every_worker_gets_a_socket_on_it(group):
    with group.socket() as first, group.socket() as second:
        assert first.getsockname() == second.getsockname() == (group.host, group.port)
        assert group.text == f"127.0.0.1:{group.port}"


def test_a_socket_takes_connections_only_from_listen_on(group):
    with group.socket() as sock:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((group.host, group.port))
        sock.listen()
        socket.create_connection((group.host, group.port)).close()


def test_a_queued_connection_survives_the_process_that_did_not_take_it(group):
    with group.socket() as ours:
        with socket.socket(fileno=socket.dup(ours.fileno())) as workers:
            workers.listen()
            client = socket.create_connection((group.host, group.port))
            client.sendall(b"hello")
        ours.settimeout(30)
        accepted, _ = ours.accept()
        with accepted, client:
            assert accepted.recv(5) == b"hello"


def test_a_second_gateway_does_not_share_the_port_in_silence(group):
    with group.socket() as sock:
        sock.listen()
        with pytest.raises(
            PortTaken, match=f"another program listens on 127.0.0.1 port {group.port}; stop it, or set rest_port"
        ):
            PortGroup("127.0.0.1", group.port, "rest_port")


def test_a_port_that_is_taken_is_named_with_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as other:
        for make in (PortGroup, bind):
            with pytest.raises(PortTaken, match="metrics_port"):
                make("127.0.0.1", other.getsockname()[1], "metrics_port")


def test_ipv6_addresses_are_bracketed():
    with contextlib.suppress(OSError), contextlib.closing(PortGroup("::1", 0, "rest_port")) as group:
        assert group.text == f"[::1]:{group.port}"
