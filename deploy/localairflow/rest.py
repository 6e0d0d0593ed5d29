"""JSON over HTTP to one API server, as one user."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from localairflow.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RestSession"]


class RestSession:
    """Logs in by itself, and again when the token is too old.

    Args:
        url: the server, without a path.
        user: the name to log in with.
        password: its password.
        check: called when the server fails and at each poll of a wait; raises if it knows a reason.
    """

    def __init__(self, url: str, user: str, password: str, check: Callable[[], None] = lambda: None) -> None:
        self.url = url
        self.check = check
        self._login = {"username": user, "password": password}
        self._token: str | None = None
        self._opener = build_opener(ProxyHandler({}))  # this machine is never behind the company's proxy

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET a path below ``/api/v2``.

        Raises:
            ApiError: the server refuses, or cannot be reached.
        """
        query = f"?{urlencode(params, doseq=True)}" if params else ""
        return self.request("GET", f"/api/v2{path}{query}")

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON to a path below ``/api/v2``.

        Raises:
            ApiError: the server refuses, or cannot be reached.
        """
        return self.request("POST", f"/api/v2{path}", body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH a path below ``/api/v2`` with JSON.

        Raises:
            ApiError: the server refuses, or cannot be reached.
        """
        return self.request("PATCH", f"/api/v2{path}", body)

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request to any path of the server, with the token; log in again if the token is too old.

        Returns:
            The decoded JSON; None for an empty answer.

        Raises:
            ApiError: the server refuses, or cannot be reached.
            LocalAirflowError: what ``check`` raises, if it knows why the server failed.
        """
        try:
            return self._with_token(method, path, body)
        except ApiError as error:
            if error.status == 0 or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                time.sleep(0.3)  # until a dead component is known to be dead: then that is the better message
                self.check()
            raise

    def anonymous(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        token: str | None = None,
        timeout_s: float = 30.0,
    ) -> Any:
        """Send one request as it is, with a token or without.

        Raises:
            ApiError: the server refuses, or cannot be reached.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data=data, headers=headers, method=method)  # noqa: S310 - our own server
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except HTTPError as error:
            with error:
                detail = error.read().decode("utf-8", "replace")[:500]
            raise ApiError(error.code, f"{method} {path}: HTTP {error.code} {detail}") from error
        except (URLError, OSError, ValueError) as error:
            raise ApiError(0, f"{method} {self.url}{path}: {error}") from error

    def _with_token(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        if self._token is not None:
            try:
                return self.anonymous(method, path, body, self._token)
            except ApiError as error:
                if error.status != HTTPStatus.UNAUTHORIZED:
                    raise
        self._token = str(self.anonymous("POST", "/auth/token", self._login)["access_token"])
        return self.anonymous(method, path, body, self._token)
