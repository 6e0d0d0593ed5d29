"""The REST API as the incident triage uses it: against a server of the test's own, behind an Airflow connection."""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_agentic.errors import ConfigurationError, ServiceError, ServiceRefused
from airflow_agentic.notifications.messaging import AgenticNotifier
from incident_airflow import AirflowApi
from incident_models import Failure

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "incident-triage.md"
PROJECT = Path(__file__).parents[2] / "dags" / "agentic.yaml"
HANGS_UP = 0
PASSWORD = "an-unusual-pass-phrase"
LOG = [
    {"event": "beginning", "level": "info"},
    {
        "event": "Task failed with exception",
        "level": "error",
        "error_detail": [{"exc_type": "KeyError", "exc_value": "'a'", "frames": []}],
    },
]


class Server:
    """Airflow's API in a few lines: it lets in who has the newest token."""

    def __init__(self):
        self.asked, self.tokens, self.status = [], 0, None
        self.instance = {"state": "failed", "try_number": 2}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            do_POST = do_GET  # noqa: N815  # so the base class wants it

            def log_message(self, *_):
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, asked):
        length = int(asked.headers.get("Content-Length") or 0)
        body = json.loads(asked.rfile.read(length)) if length else None
        status, answer = self.answered(asked, body)
        if status == HANGS_UP:
            return
        asked.send_response(status)
        asked.end_headers()
        asked.wfile.write(answer)

    def answered(self, asked, body):
        if asked.path == "/auth/token":
            if body != {"username": "ana", "password": PASSWORD}:
                return 401, b"{}"
            self.tokens += 1
            return 201, json.dumps({"access_token": self.token}).encode()
        if asked.headers["Authorization"] != f"Bearer {self.token}":
            return 401, b"{}"
        self.asked.append((asked.command, asked.path, body))
        if self.status is not None:
            return self.status, b"{}"
        if "/logs/" in asked.path:
            return 200, b"".join(json.dumps(record).encode() + b"\n" for record in LOG) + b"no JSON\n"
        return 200, json.dumps(self.instance).encode()

    @property
    def token(self):
        return f"token-{self.tokens}-xyzzy"


@pytest.fixture
def server():
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture
def connect(server, monkeypatch):
    def connected(**fields):
        given = {"conn_type": "http", "host": server.url, "login": "ana", "password": PASSWORD, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(given))
        return AirflowApi(timeout_seconds=5)

    return connected


FAILURE = Failure(
    id="f1", dag_id="a dag", run_id="manual__2026-01-01T00:00:00+00:00", task_id="group.load", map_index=3,
    try_number=2, state="failed",
)  # fmt: skip
RUN = "/api/v2/dags/a%20dag/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00"


def test_the_log_of_the_failed_try_is_read_whatever_is_in_it(server, connect):
    assert connect().log(FAILURE) == [*LOG, {"event": "no JSON"}]
    [(method, path, _)] = server.asked
    assert (method, path) == (
        "GET", f"{RUN}/taskInstances/group.load/logs/2?map_index=3&full_content=true",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "try_number", "holds"),
    [("failed", 2, True), ("failed", 3, False), ("success", 2, False), (None, 2, False)],
)
def test_a_task_stands_where_it_failed_only_if_it_is_the_same_try(server, connect, state, try_number, holds):
    server.instance = {"state": state, "try_number": try_number}
    assert connect().is_still_failed(FAILURE) is holds
    assert server.asked[0][1] == f"{RUN}/taskInstances/group.load/3"


def test_a_task_that_is_gone_has_not_failed(server, connect):
    server.status = 404
    assert connect().is_still_failed(FAILURE) is False


def test_only_what_failed_is_cleared_and_what_comes_after_it(server, connect):
    connect().clear(FAILURE, "why")
    [(method, path, body)] = server.asked
    assert (method, path) == ("POST", "/api/v2/dags/a%20dag/clearTaskInstances")
    assert body == {
        "dry_run": False, "dag_run_id": FAILURE.run_id, "task_ids": [["group.load", 3]], "only_failed": True,
        "include_downstream": True, "reset_dag_runs": True, "note": "why",
    }  # fmt: skip


def test_it_logs_in_once_and_again_when_the_token_is_too_old(server, connect):
    api = connect()
    for _ in range(3):
        api.is_still_failed(FAILURE)
    assert server.tokens == 1
    server.tokens += 1
    assert api.is_still_failed(FAILURE)
    assert server.tokens == 3


def test_the_link_leads_to_the_try_in_the_ui(server, connect):
    path = (
        "/dags/a%20dag/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/group.load/mapped/3?try_number=2"
    )
    assert connect().link(FAILURE) == server.url + path


@pytest.mark.parametrize(("status", "error"), [(403, ServiceRefused), (503, ServiceError)])
def test_what_airflow_refuses_and_what_it_cannot_do_now_are_different(server, connect, status, error):
    server.status = status
    with pytest.raises(ServiceError) as refused:
        connect().log(FAILURE)
    assert type(refused.value) is error


class TestSecrets:
    def told(self, act, caplog, error):
        caplog.set_level(logging.DEBUG)
        with pytest.raises(error) as raised:
            act()
        return "".join(traceback.format_exception(raised.value)) + repr(vars(raised.value)) + caplog.text

    @pytest.mark.parametrize("how", ["no server", "hangs up", "refused", "wrong password"])
    def test_neither_password_nor_token_is_in_an_error_or_a_log(self, server, connect, caplog, how):
        if how == "no server":
            api, error = connect(host="http://127.0.0.1:9"), ServiceError
        elif how == "hangs up":
            api, error, server.status = connect(), ServiceError, HANGS_UP
        elif how == "refused":
            api, error, server.status = connect(), ServiceError, 500
        else:
            api, error = connect(password=f"{PASSWORD}-no"), ServiceRefused
        told = self.told(lambda: api.log(FAILURE), caplog, error)
        assert PASSWORD not in told
        assert "xyzzy" not in told

    def test_a_connection_without_a_login_is_refused_by_name(self, connect):
        with pytest.raises(ConfigurationError, match="'airflow_api' needs the login and the password"):
            connect(login=None).log(FAILURE)


def test_the_page_shows_the_graph_as_it_is(monkeypatch, store_url):
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(PROJECT))
    from airflow_agentic.workflows import picture
    from incident_triage import triage

    assert f"```mermaid\n{picture(triage)}\n```" in PAGE.read_text()


def test_the_cluster_policy_of_the_page_lets_every_task_tell_once():
    [policy] = re.findall(
        r"^```python\n# airflow_local_settings.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    names = {}
    exec(policy, names)

    def mine(context):
        """A callback that was there before."""

    with DAG("any"):
        plain = EmptyOperator(task_id="plain")
        alerted = EmptyOperator(task_id="alerted", on_failure_callback=mine)
        mapped = BashOperator.partial(task_id="mapped").expand(bash_command=["true"])
    for task in (plain, alerted, mapped):
        for _ in range(2):
            names["task_policy"](task)
    assert [type(each) for each in plain.on_failure_callback] == [AgenticNotifier]
    assert [type(each) for each in mapped.on_failure_callback] == [AgenticNotifier]
    assert alerted.on_failure_callback[0] is mine
    assert [type(each) for each in alerted.on_failure_callback[1:]] == [AgenticNotifier]
