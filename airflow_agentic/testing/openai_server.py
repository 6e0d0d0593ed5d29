"""A server on this machine that speaks OpenAI's chat completions, with answers and faults from a script.

It is for tests of whatever calls a language model over HTTP: the client's own code runs, up to the socket::

    from airflow_agentic.testing.openai_server import Fault, OpenAIServer, Say

    with OpenAIServer(Fault(status=503), Say("42", tokens=(20, 1))) as server:
        ...  # a client at server.url, with any API key: refused first, answered then
        assert server.count == 2

Nothing but the standard library is needed.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_PIECE = 12  # characters of a streamed chunk
_NEVER: Any = object()


@dataclass(frozen=True)
class Call:
    """The model asks for a tool.

    Attributes:
        name: The tool.
        arguments: What it is to be called with.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """The model answers.

    Attributes:
        text: What it says.
        data: A structured answer, in place of a text: given the way the request asks for it (as a call of the last of
            its tools, which is how pydantic-ai asks, or as JSON).
        calls: Tools that it asks for.
        tokens: What the answer says that it took: of the request, and of the answer.
        seconds: How long it takes.
        model: Name of the model that answered; default the one that was asked for.
        finish: Why the answer ends; default ``stop`` or ``tool_calls``.
    """

    text: str = "ok"
    data: Any = _NEVER
    calls: tuple[Call, ...] = ()
    tokens: tuple[int, int] | None = (10, 5)
    seconds: float = 0.0
    model: str | None = None
    finish: str | None = None


@dataclass(frozen=True)
class Fault:
    """The model does not answer.

    Attributes:
        status: HTTP status.
        retry_after: What ``Retry-After`` says: seconds, or a date.
        code: OpenAI's code of the error, for example ``insufficient_quota``.
        message: OpenAI's text of the error.
        seconds: How long it takes.
        reset: Break the connection instead of answering.
        garbage: Answer 200 with a body that is no JSON.
        after: Of a streamed answer, break the connection after so many chunks of this text.
    """

    status: int = 500
    retry_after: float | str | None = None
    code: str | None = None
    message: str = "the script says so"
    seconds: float = 0.0
    reset: bool = False
    garbage: bool = False
    after: int | None = None


Step = Say | Fault
Script = Step | Callable[["Request"], Step]


@dataclass(frozen=True)
class Request:
    """What a client asked.

    Attributes:
        path: Path of the URL.
        headers: HTTP headers, with names in lower case.
        body: The JSON that was sent.
        at: When it came, by the monotonic clock, in seconds.
    """

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    at: float

    @property
    def model(self) -> str:
        """Name of the model that was asked for."""
        return str(self.body.get("model", ""))

    @property
    def text(self) -> str:
        """What the user said last."""
        said = [each for each in self.body.get("messages", ()) if each.get("role") == "user"]
        content = said[-1].get("content") if said else ""
        return content if isinstance(content, str) else json.dumps(content)


class OpenAIServer:
    """Answers chat completions from a script. A context manager: it listens inside, on a port of its own.

    Args:
        script: One step a request: an answer, a fault, or a function of the request that returns one.
        then: What follows once the script is at its end, each time; see :meth:`behave`.

    Attributes:
        requests: What was asked, in order.
    """

    def __init__(self, *script: Script, then: Script = Say()) -> None:
        self.requests: list[Request] = []
        self._script = deque(script)
        self._then = then
        self._lock = threading.Lock()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The base URL for clients, ``http://127.0.0.1:PORT/v1``.

        Raises:
            RuntimeError: It does not listen.
        """
        if self._server is None:
            raise RuntimeError("the server does not listen: use it in a with statement")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def count(self) -> int:
        """How many requests came."""
        return len(self.requests)

    def behave(self, *script: Script, then: Script = Say()) -> None:
        """Answer otherwise from now on.

        Args:
            script: One step a request.
            then: What follows.
        """
        with self._lock:
            self._script, self._then = deque(script), then

    def __enter__(self) -> Self:
        self._server = _Server(self._next)
        # Polled often, so that a test does not wait for its end.
        run = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        run.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    def _next(self, request: Request) -> Step:
        with self._lock:
            self.requests.append(request)
            step = self._script.popleft() if self._script else self._then
        return step if isinstance(step, Say | Fault) else step(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, next_step: Callable[[Request], Step]) -> None:
        self.next_step = next_step
        super().__init__(("127.0.0.1", 0), _Handler)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, without the farewell that would hide a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of tests go away in the middle."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet an answer, or a client waits for the second.
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        """Take the next step of the script."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not self.path.endswith("/chat/completions"):
            advice = "chat completions only are spoken here: call the model openai-chat:NAME in pydantic-ai"
            self._send(404, _error(f"there is no {self.path}; {advice}", "not_found"))
            return
        try:
            asked = Request(self.path, headers, json.loads(raw or b"{}"), time.monotonic())
        except ValueError:
            self._send(400, _error("the body is not JSON", None))
            return
        step = self.server.next_step(asked)
        time.sleep(step.seconds)
        if isinstance(step, Fault):
            self._fail(step, asked)
        elif asked.body.get("stream"):
            self._stream(_chunks(step, asked))
        else:
            self._send(200, _completion(step, asked))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the standard library's name
        """Say nothing."""

    def _fail(self, fault: Fault, asked: Request) -> None:
        if fault.after is not None:
            self._stream(itertools.islice(_chunks(Say(fault.message), asked), fault.after), whole=False)
        elif fault.reset:
            self._reset()
        elif fault.garbage:
            self._write(200, b"<html>not what you asked for</html>", {"Content-Type": "text/html"})
        else:
            after = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after}"}
            self._send(fault.status, _error(fault.message, fault.code), after)

    def _send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json", **(headers or {})}
        self._write(status, json.dumps(answer).encode(), kind)

    def _write(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, chunks: Iterator[Any], *, whole: bool = True) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self._event(json.dumps(chunk))
        if not whole:
            self._reset()
            return
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, text: str) -> None:
        event = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.wfile.flush()

    def _reset(self) -> None:
        # Closed without waiting for what is under way: the other side sees a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def _completion(step: Say, asked: Request) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", **_content(step, asked)}
    if "tool_calls" in message:
        message.setdefault("content", None)
    made = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": step.model or asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(step, message)}],
    }
    return made if step.tokens is None else {**made, "usage": _usage(step.tokens)}


def _chunks(step: Say, asked: Request) -> Iterator[dict[str, Any]]:
    """Yield an answer in pieces."""
    content = _content(step, asked)

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**_HEAD, "created": int(time.time()), "model": step.model or asked.model, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    text = content.get("content") or ""
    for start in range(0, len(text), _PIECE):
        yield chunk({"content": text[start : start + _PIECE]})
    for index, call in enumerate(content.get("tool_calls", ())):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    yield chunk({}, _finish(step, content))
    if step.tokens is not None:
        yield {**chunk({}), "choices": [], "usage": _usage(step.tokens)}


_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk"}


def _content(step: Say, asked: Request) -> dict[str, Any]:
    calls = step.calls
    if step.data is not _NEVER:
        tools = asked.body.get("tools") or ()
        if not tools:
            return {"content": json.dumps(step.data)}
        calls = (*calls, Call(tools[-1]["function"]["name"], step.data))
    if not calls:
        return {"content": step.text}
    return {
        "tool_calls": [
            {
                "id": f"call_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for index, call in enumerate(calls)
        ]
    }


def _finish(step: Say, content: Mapping[str, Any]) -> str:
    return step.finish or ("tool_calls" if content.get("tool_calls") else "stop")


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    asked, said = tokens
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": code or "server_error", "param": None, "code": code}}
