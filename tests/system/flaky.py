"""A real HTTP service that the test breaks and mends."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FlakyService:
    """Quotes articles, or answers 503 while it is down. It counts what reaches it.

    Attributes:
        down: Whether it is.
        refused: How many requests reached it while it was down.
        answered: The names of the articles that it quoted, in order.
    """

    def __init__(self) -> None:
        self.down = False
        self.refused = 0
        self.answered: list[str] = []
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = service.answer(task)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def connection(self) -> str:
        """The Airflow connection that leads here."""
        return json.dumps({"conn_type": "http", "host": f"http://127.0.0.1:{self._server.server_port}"})

    def answer(self, task: dict[str, str]) -> tuple[int, dict[str, object]]:
        with self._lock:
            if self.down:
                self.refused += 1
                return 503, {"error": "down"}
            self.answered.append(task["name"])
            return 200, {"price": 1.5}

    def forget(self, *, down: bool) -> None:
        """Begin anew."""
        with self._lock:
            self.down, self.refused, self.answered = down, 0, []

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
