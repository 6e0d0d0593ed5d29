"""What the incident triage asks of Airflow: logs, states, and that a task be tried again. All through the REST API."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from airflow_agentic.errors import ConfigurationError, ServiceError
from airflow_agentic.resilience.failures import service_error
from incident_models import Failure

_UNAUTHORIZED, _NOT_FOUND = 401, 404
_MOST_RECORDS = 400


class AirflowApi:
    """Airflow's REST API behind a connection of type HTTP: address, login and password.

    Login and password are exchanged for a token, and neither of them leaves this object.

    Args:
        conn_id: The connection.
        timeout_seconds: For each exchange.
    """

    def __init__(self, conn_id: str = "airflow_api", timeout_seconds: float = 30.0) -> None:
        self._conn_id = conn_id
        self._timeout = timeout_seconds
        self._token = ""

    def log(self, failure: Failure) -> list[dict[str, Any]]:
        """Return the records at the end of the log of a failed try, wherever it is kept.

        Raises:
            ServiceRefused: There is no such log, or it may not be read.
            ServiceError: Airflow does not answer.
        """
        path = f"{_run(failure)}/taskInstances/{_part(failure.task_id)}/logs/{failure.try_number}"
        asked = {"map_index": failure.map_index, "full_content": "true"}
        headers = {"Accept": "application/x-ndjson"}
        with self._ask("GET", path, data=asked, headers=headers, stream=True) as answer, self._told():
            # However long it is, only its end is kept.
            return records_of(deque(answer.iter_lines(), maxlen=_MOST_RECORDS))

    def is_still_failed(self, failure: Failure) -> bool:
        """Whether a task stands where a try failed: nobody has cleared it, and it was not tried again.

        Raises:
            ServiceRefused: It may not be asked.
            ServiceError: Airflow does not answer.
        """
        mapped = f"/{failure.map_index}" if failure.map_index >= 0 else ""
        path = f"{_run(failure)}/taskInstances/{_part(failure.task_id)}{mapped}"
        try:
            with self._ask("GET", path) as answer:
                found = answer.json()
        except ServiceError as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return bool(found["state"] == "failed" and found["try_number"] == failure.try_number)

    def clear(self, failure: Failure, note: str) -> None:
        """Let Airflow try a failed task again, and what did not run because of it.

        Raises:
            ServiceRefused: It may not be cleared.
            ServiceError: Airflow does not answer.
        """
        task = failure.task_id if failure.map_index < 0 else [failure.task_id, failure.map_index]
        body = {
            "dry_run": False,
            "dag_run_id": failure.run_id,
            "task_ids": [task],
            "only_failed": True,
            "include_downstream": True,
            "reset_dag_runs": True,
            "note": note,
        }
        with self._ask("POST", f"/dags/{_part(failure.dag_id)}/clearTaskInstances", json=body):
            pass

    def link(self, failure: Failure) -> str:
        """Return where the UI shows the log of a try."""
        mapped = f"/mapped/{failure.map_index}" if failure.map_index >= 0 else ""
        path = f"/dags/{_part(failure.dag_id)}/runs/{_part(failure.run_id)}/tasks/{_part(failure.task_id)}{mapped}"
        hook = self._hook("GET", self._anonymous)
        hook.get_conn()
        return f"{hook.base_url.rstrip('/')}{path}?try_number={failure.try_number}"

    # -- inside ----------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        """Send a request with the token; log in first, and again when the token is too old."""
        known = bool(self._token)
        if not known:
            self._log_in()
        answer = self._send(method, f"/api/v2{path}", self._bearer, **request)
        if answer.status_code == _UNAUTHORIZED and known:
            answer.close()
            self._log_in()
            answer = self._send(method, f"/api/v2{path}", self._bearer, **request)
        return self._good(answer, f"{method} {path}")

    def _log_in(self) -> None:
        from airflow.sdk.log import mask_secret

        hook = self._hook("POST", self._anonymous)
        connection = hook.get_connection(self._conn_id)
        if not (connection.login and connection.password):
            raise ConfigurationError(
                f"connection {self._conn_id!r} needs the login and the password of an Airflow user"
            )
        login = {"username": connection.login, "password": connection.password}
        with self._good(self._send("POST", "/auth/token", self._anonymous, json=login), "login") as answer:
            self._token = str(answer.json()["access_token"])
        mask_secret(self._token)

    def _send(
        self, method: str, path: str, auth: Any, *, data: Any = None, headers: Any = None,
        stream: bool = False, **request: Any,
    ) -> Any:  # fmt: skip
        options = {"check_response": False, "timeout": self._timeout, "stream": stream}
        with self._told():
            return self._hook(method, auth).run(path, data, headers, options, **request)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what goes wrong with an exchange without the exchange: the error may hold the request, and that the password."""
        from requests.exceptions import RequestException

        try:
            yield
        except RequestException as error:
            text = f"connection {self._conn_id!r} gave no answer: {type(error).__name__}"
            raise ServiceError(text) from None

    def _good(self, answer: Any, asked: str) -> Any:
        if answer.ok:
            return answer
        answer.close()
        text = f"Airflow behind {self._conn_id!r} answered {answer.status_code} to {asked}"
        raise service_error(text, answer.status_code, answer.headers)

    def _hook(self, method: str, auth: Any) -> Any:
        # The HTTP stack is heavy: only tasks that speak HTTP pay for it.
        from airflow.providers.http.hooks.http import HttpHook

        # Login and password are for the token alone: the API knows no basic authentication.
        return HttpHook(method, self._conn_id, auth_type=lambda *_: auth)

    def _bearer(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    @staticmethod
    def _anonymous(request: Any) -> Any:
        return request


def records_of(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the records of a log; a line that is no JSON is a record of its text."""
    return [_record(line.decode("utf-8", "replace")) for line in lines if line.strip()]


def _record(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = line
    return found if isinstance(found, dict) else {"event": str(found)}


def _run(failure: Failure) -> str:
    return f"/dags/{_part(failure.dag_id)}/dagRuns/{_part(failure.run_id)}"


def _part(name: str) -> str:
    return quote(name, safe="")
