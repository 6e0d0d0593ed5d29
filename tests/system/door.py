"""A door in front of Airflow's REST API: it knows who went through, and holds whom a test wants to hold."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from localairflow.environment import PASSWORD, USER

_HEADERS = ("Authorization", "Content-Type", "Accept")
_HELD_SECONDS = 120


class Held:
    """Somebody whose request was done, and who has not heard of it.

    Attributes:
        done: Set when somebody is held.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.done = threading.Event()
        self.let_go = threading.Event()


class Door:
    """Passes requests on.

    Attributes:
        target: The API server behind it; set as soon as it is known.
        passed: Method, path and body of what went through, in order; without what logs in.
    """

    def __init__(self) -> None:
        self.target = ""
        self.passed: list[tuple[str, str, Any]] = []
        self._held: Held | None = None
        self._opener = build_opener(ProxyHandler({}))
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                door.answer(self)

            do_POST = do_GET  # noqa: N815  # so the base class wants it

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def connection(self) -> str:
        """The Airflow connection that leads through here."""
        host = f"http://127.0.0.1:{self._server.server_port}"
        return json.dumps({"conn_type": "http", "host": host, "login": USER, "password": PASSWORD})

    @contextmanager
    def holding(self, path: str) -> Iterator[Held]:
        """Hold the first one whose path ends so, after its request was done."""
        self._held = held = Held(path)
        try:
            yield held
        finally:
            self._held = None
            held.let_go.set()

    def bodies(self, path: str) -> list[Any]:
        """Return what went through to paths that end so."""
        return [body for _, at, body in self.passed if at.endswith(path)]

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        length = int(asked.headers.get("Content-Length") or 0)
        body = asked.rfile.read(length) if length else None
        headers = {name: asked.headers[name] for name in _HEADERS if asked.headers[name]}
        request = Request(self.target + asked.path, data=body, headers=headers, method=asked.command)
        try:
            with self._opener.open(request, timeout=60) as answer:
                status, kind, text = answer.status, answer.headers["Content-Type"], answer.read()
        except HTTPError as error:
            with error:
                status, kind, text = error.code, error.headers["Content-Type"], error.read()
        if asked.path != "/auth/token":
            self.passed.append((asked.command, asked.path, json.loads(body) if body else None))
        self._hold(asked.path)
        try:
            asked.send_response(status)
            asked.send_header("Content-Type", kind or "application/json")
            asked.send_header("Content-Length", str(len(text)))
            asked.end_headers()
            asked.wfile.write(text)
        except OSError:
            pass  # Who asked is gone.

    def _hold(self, path: str) -> None:
        held = self._held
        if held is not None and path.endswith(held.path) and not held.done.is_set():
            held.done.set()
            held.let_go.wait(_HELD_SECONDS)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
