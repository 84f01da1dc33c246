import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.keys.key_sets import KeySetSource, KeySetUnavailable
from tests.kit.issuer import Issuer, oidc


@pytest.fixture
def site():
    """A web server; `answers` by path: status, headers, body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    answers = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    thread.join()
    server.server_close()


def source(where, keep=lambda _: None, **fields):
    return KeySetSource(oidc(jwks=str(where), **fields), keep)


async def test_keys_come_from_a_file_or_an_address(tmp_path, site):
    document = Issuer().key_set()
    path = tmp_path / "keys.json"
    path.write_text(document)
    url, answers = site
    answers["/keys"] = (200, {}, document.encode())
    for where in (path, f"file://{path}", f"{url}/keys"):
        assert await source(where).fetch() == document


async def test_what_is_no_key_set_is_not_kept(tmp_path, site):
    url, answers = site
    document = Issuer().key_set().encode()
    answers["/broken"] = (200, {}, b"{}")
    answers["/moved"] = (302, {"Location": f"{url}/keys"}, b"")
    answers["/keys"] = (200, {}, document)
    answers["/huge"] = (200, {}, b" " * ((1 << 20) + 1) + document)
    for where in (
        f"{url}/broken",
        f"{url}/moved",
        f"{url}/huge",
        f"{url}/absent",
        "http://127.0.0.1:9/",
        tmp_path / "no",
    ):
        with pytest.raises(KeySetUnavailable):
            await source(where).fetch()


async def test_keys_that_cannot_be_fetched_are_asked_for_again_and_the_old_ones_stay(tmp_path):
    path = tmp_path / "keys.json"
    kept: asyncio.Queue[str] = asyncio.Queue()
    running = asyncio.create_task(source(path, kept.put_nowait, refresh_s=0.01).run())
    for kid in ("k1", "k2"):
        issuer = Issuer(kid=kid)
        draft = tmp_path / "draft"
        draft.write_text(issuer.key_set())
        draft.replace(path)
        async with asyncio.timeout(30):
            while await kept.get() != issuer.key_set():
                pass
    path.unlink()
    while not kept.empty():
        kept.get_nowait()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
