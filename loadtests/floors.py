"""The floors that our doors are measured against, each a server of its own: `python -m loadtests.floors NAME PORT [MODEL.onnx]`.

`hello`      raw ASGI under uvicorn (uvloop, httptools), a fixed reply
`transport`  a uvicorn protocol class that answers a fixed reply from the parser's callback: what any wire door could reach
`handler`    raw ASGI that decodes JSON, runs the model and encodes: a plain handler without any feature
"""

import sys
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 320\r\n\r\n" + b"x" * 320


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    """A fixed reply to anything, the body unread."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


class Transport(HttpToolsProtocol):
    """Reads whole requests and answers each with the bytes of a typical reply."""

    def on_message_begin(self) -> None:
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """Nothing is made of it."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Nothing is made of it."""

    def on_headers_complete(self) -> None:
        """Nothing is made of them."""

    def on_body(self, body: bytes) -> None:
        """Nothing is made of it."""

    def on_message_complete(self) -> None:
        self.transport.write(_REPLY)


def handler(model: str) -> Any:
    """The plain handler: one request, one run, no checks, no records."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    name = session.get_inputs()[0].name
    outputs = [(node.name, "INT64" if "int" in node.type else "FP32") for node in session.get_outputs()]

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        tensor = orjson.loads(body)["inputs"][0]
        x = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        results = session.run(None, {name: x})
        reply = orjson.dumps(
            {
                "model_name": "gbm",
                "model_version": "1",
                "outputs": [
                    {"name": out, "datatype": kind, "shape": result.shape, "data": result.ravel().tolist()}
                    for (out, kind), result in zip(outputs, results, strict=True)
                ],
            }
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(reply)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    return app


def main(name: str, port: int, model: str | None = None) -> None:
    """Serves one floor until it is killed."""
    app = handler(model) if name == "handler" and model else hello
    protocol: Any = Transport if name == "transport" else "httptools"
    uvicorn.run(
        app, port=port, http=protocol, loop="uvloop", log_level="warning", access_log=False, lifespan="off", ws="none"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:4])
