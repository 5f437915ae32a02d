"""An S3-compatible server on loopback, a process of its own, that can be told to fail.

moto answers; before it stands what a real bucket has and moto's server has not: its check of a condition and the write
are one step (two threads of moto 5.2 both pass the check: seen in one of five races). And there the faults are made,
at the outermost edge: every client sees them as a network's or a server's.
"""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests", "AWS_REGION": "us-east-1"}
KINDS = ("slow", "failing", "torn", "lost", "repeated", "denied", "drops_conditions")


class Faulty:
    """The server's WSGI application. Faults are kept in the order given, each for `times` requests that `match`."""

    def __init__(self, app: Any):
        self._app, self._mutex = app, threading.Lock()
        self.faults: list[dict[str, Any]] = []
        self.log: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if environ["PATH_INFO"] == "/_control":
            return self._control(body, start)
        with self._mutex:
            fault = self._fault(request)
            self.log.append(request + (f" {fault['kind']}" if fault else ""))
        return self._answer(environ, body, start, fault or {"kind": ""})

    def _answer(self, environ: dict[str, Any], body: bytes, start: Any, fault: dict[str, Any]) -> Iterable[bytes]:
        kind = fault["kind"]
        if kind == "slow":
            time.sleep(fault["seconds"])
        if kind in ("failing", "denied"):
            start("503 Slow Down" if kind == "failing" else "403 Forbidden", [])
            return [b""]
        if kind == "drops_conditions":
            environ = {k: v for k, v in environ.items() if k not in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")}
        answers = [self._handle(environ, body) for _ in range(2 if kind == "repeated" else 1)]
        if kind == "lost":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        status, headers, content = answers[-1]
        start(status, headers)
        return _cut(content) if kind == "torn" else [content]

    def _handle(self, environ: dict[str, Any], body: bytes) -> tuple[str, list[Any], bytes]:
        found: list[Any] = []
        with self._mutex:
            answer = self._app({**environ, "wsgi.input": BytesIO(body)}, lambda *started: found.extend(started))
            return found[0], found[1], b"".join(answer)

    def _fault(self, request: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault["times"] > 0 and re.search(fault["match"], request):
                fault["times"] -= 1
                return fault
        return None

    def _control(self, body: bytes, start: Any) -> Iterable[bytes]:
        with self._mutex:
            answer = {"log": self.log}
            if body:
                self.faults, self.log = json.loads(body), []
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def _cut(content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    raise ConnectionAbortedError


def main() -> None:
    """Serve on the address of the first argument and print the port, until the standard input is closed."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # see `registry/publish/hub.py`

        def log(self, *_: Any) -> None:
            pass

    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server(sys.argv[1], 0, app, threaded=True, request_handler=Silent)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


class Server:
    """The running server, seen from a test."""

    def __init__(self, url: str):
        self.url = url

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def make_bucket(self, name: str) -> str:
        """A bucket's address."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return f"s3://{name}"

    def fail(self, *faults: dict[str, Any]) -> None:
        """From now on, these faults and no others: kind, match (a pattern of "METHOD /path"), times, seconds."""
        assert all(fault["kind"] in KINDS for fault in faults)
        usual = {"times": 1, "match": ""}
        self._control(json.dumps([{**usual, **fault} for fault in faults]).encode())

    def requests(self) -> list[str]:
        """The requests since `fail` was called, each with its fault."""
        log: list[str] = self._control(b"")["log"]
        return log

    def _control(self, body: bytes) -> Any:
        with urllib.request.urlopen(f"{self.url}/_control", data=body, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server in a process of its own, which ends with this one."""
    command = [sys.executable, "-m", "ernie_pipeline_tests.store.shared.server", host]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield Server(f"http://{host}:{process.stdout.readline().strip()}")
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    main()
