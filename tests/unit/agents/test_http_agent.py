from __future__ import annotations

import asyncio
import json
import time

import pytest
import requests
from pydantic import BaseModel
from werkzeug import Response

from airflow_agentic.agents import AgentContext, AgentState, HttpAgent, HttpRequest, HttpResponse
from airflow_agentic.errors import (
    ConfigurationError,
    InvalidResult,
    InvalidTask,
    ServiceError,
    ServiceRefused,
)
from airflow_agentic.testing import FakeHttp, answer


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    score: float


class Oracle(HttpAgent[Question, Answer]):
    pass


CONFIG = {"conn_id": "oracle", "endpoint": "v1/ask", "headers": {"X-Team": "legal"}, "timeout_seconds": 3}


class RequestsTransport:
    """A small transport over a real socket, as the runtime makes one of an Airflow connection."""

    def __init__(self, base):
        self.base = base

    def send(self, request: HttpRequest) -> HttpResponse:
        try:
            got = requests.request(
                request.method,
                f"{self.base}/{request.endpoint}",
                json=request.json,
                headers=dict(request.headers),
                timeout=request.timeout_seconds,
            )
        except requests.RequestException as error:
            raise ServiceError(str(error)) from error
        return HttpResponse(got.status_code, dict(got.headers), got.content)


class AsyncTransport:
    def __init__(self, transport):
        self.transport = transport

    async def send(self, request: HttpRequest) -> HttpResponse:
        return await asyncio.to_thread(self.transport.send, request)


def sync_run(agent, task, transport):
    return agent.run(task, AgentContext(agent.name, http=lambda conn_id: transport))


def async_run(agent, task, transport):
    ctx = AgentContext(agent.name, async_http=lambda conn_id: AsyncTransport(transport))
    return asyncio.run(agent.arun(task, ctx))


@pytest.fixture(params=[sync_run, async_run], ids=["run", "arun"])
def run(request):
    return request.param


class TestOverASocket:
    """``run`` and ``arun`` do the same against a real server."""

    @pytest.fixture
    def agent(self):
        return Oracle("oracle", CONFIG)

    @pytest.fixture
    def transport(self, httpserver):
        return RequestsTransport(httpserver.url_for("").rstrip("/"))

    def test_the_task_is_sent_as_json_and_the_json_answer_is_the_result(
        self, run, agent, transport, httpserver
    ):
        httpserver.expect_oneshot_request(
            "/v1/ask", method="POST", json={"text": "how?"}, headers={"X-Team": "legal"}
        ).respond_with_json({"score": 0.5})
        assert run(agent, {"text": "how?"}, transport) == Answer(score=0.5)
        assert agent.state is AgentState.READY
        httpserver.check_assertions()

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
    def test_a_service_that_may_recover_is_worth_another_try(self, run, agent, transport, httpserver, status):
        httpserver.expect_request("/v1/ask").respond_with_data("busy", status=status)
        with pytest.raises(ServiceError, match=f"'oracle'.*answered {status}$") as caught:
            run(agent, {"text": "?"}, transport)
        assert caught.value.retry_helps
        assert agent.state is AgentState.FAILED

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
    def test_a_service_that_refuses_is_not(self, run, agent, transport, httpserver, status):
        httpserver.expect_request("/v1/ask").respond_with_data("no", status=status)
        with pytest.raises(ServiceRefused, match=f"answered {status}") as caught:
            run(agent, {"text": "?"}, transport)
        assert not caught.value.retry_helps

    def test_an_answer_that_is_not_json_is_refused_with_its_size(self, run, agent, transport, httpserver):
        httpserver.expect_request("/v1/ask").respond_with_data("<html>secret page</html>")
        with pytest.raises(
            InvalidResult, match=r"answered 200 with a body that is not JSON \(24 bytes\)"
        ) as caught:
            run(agent, {"text": "?"}, transport)
        assert "secret" not in str(caught.value)

    def test_an_answer_of_another_form_is_refused(self, run, agent, transport, httpserver):
        httpserver.expect_request("/v1/ask").respond_with_json({"points": 1})
        with pytest.raises(InvalidResult, match="score: Field required"):
            run(agent, {"text": "?"}, transport)

    def test_a_service_that_is_not_there_is_a_service_error(self, run, agent):
        with pytest.raises(ServiceError):
            run(agent, {"text": "?"}, RequestsTransport("http://127.0.0.1:9"))
        assert agent.performance_metrics.failed == 1

    def test_a_service_that_is_too_slow_is_a_service_error(self, run, transport, httpserver):
        def dawdle(_request):
            time.sleep(0.3)
            return Response("{}")

        httpserver.expect_request("/v1/ask").respond_with_handler(dawdle)
        slow = Oracle("oracle", {**CONFIG, "timeout_seconds": 0.1})
        with pytest.raises(ServiceError, match="timed out"):
            run(slow, {"text": "?"}, transport)

    def test_a_wrong_task_is_not_sent(self, run, agent, transport, httpserver):
        with pytest.raises(InvalidTask, match="text"):
            run(agent, {"txet": "?"}, transport)
        assert httpserver.log == []
        assert agent.state is AgentState.READY


class TestRequest:
    def send(self, agent, task, *script):
        fake = FakeHttp(*script)
        result = agent.run(task, AgentContext(agent.name, http=fake))
        return result, fake

    def test_it_is_made_of_the_configuration_and_the_task(self):
        _, fake = self.send(Oracle("oracle", CONFIG), {"text": "?"}, answer({"score": 1}))
        assert fake.connections == ["oracle"]
        assert fake.requests == [
            HttpRequest("POST", "v1/ask", {"text": "?"}, headers={"X-Team": "legal"}, timeout_seconds=3.0)
        ]

    def test_a_task_that_is_no_model_is_sent_as_it_is(self):
        _, fake = self.send(HttpAgent("any"), ["a", 1], answer({}))
        assert fake.requests[0].json == ["a", 1]

    def test_an_empty_body_is_no_result(self):
        result, _ = self.send(HttpAgent("any"), None, answer(status=204, body=b""))
        assert result is None

    def test_a_subclass_can_make_the_request_and_read_the_answer(self):
        class Shouting(Oracle):
            def build_request(self, task):
                return HttpRequest("GET", f"ask?q={task.text.upper()}")

            def read_response(self, response):
                return {"score": len(response.body)}

        result, fake = self.send(Shouting("s", CONFIG), {"text": "why"}, answer(body=b"12345"))
        assert (result.score, fake.requests[0].endpoint) == (5, "ask?q=WHY")

    def test_types_come_from_the_class_also_through_a_class_between(self):
        class Between(Oracle):
            pass

        assert Between().contract.input_schema()["required"] == ["text"]
        assert HttpAgent("any").contract.input_schema() == {}

    @pytest.mark.parametrize("config", [{"timeout_seconds": 0}, {"url": "http://x"}, {"headers": "no"}])
    def test_a_wrong_configuration_is_refused(self, config):
        with pytest.raises(ConfigurationError, match=next(iter(config))):
            Oracle("oracle", config)

    def test_without_a_transport_it_says_where_to_get_one(self):
        agent = Oracle("oracle", CONFIG)
        with pytest.raises(ConfigurationError, match=r"HTTP connection 'oracle'.*FakeHttp"):
            agent.run({"text": "?"}, AgentContext("oracle"))
        agent.reset()
        with pytest.raises(ConfigurationError, match="no asyncio transport"):
            asyncio.run(agent.arun({"text": "?"}, AgentContext("oracle")))


class TestFakeHttp:
    def test_it_answers_from_its_script_in_order(self):
        fake = FakeHttp(answer({"n": 1}), answer(status=503), lambda request: answer(request.json))
        request = HttpRequest("POST", "x", json={"echo": True})
        got = [fake.send(request) for _ in range(3)]
        assert [response.status for response in got] == [200, 503, 200]
        assert json.loads(got[0].body) == {"n": 1}
        assert json.loads(got[2].body) == {"echo": True}

    def test_it_raises_what_its_script_says(self):
        with pytest.raises(ServiceError, match="no route"):
            FakeHttp(ServiceError("no route")).send(HttpRequest("GET", "x"))

    def test_a_request_that_was_not_expected_is_told(self):
        fake = FakeHttp(answer())
        fake.send(HttpRequest("GET", "x"))
        with pytest.raises(AssertionError, match="request 2, GET 'y', was not expected: the script has 1"):
            fake.send(HttpRequest("GET", "y"))

    def test_its_asyncio_twin_has_the_same_script_and_the_same_record(self):
        fake = FakeHttp(answer(1), answer(2))
        agent = HttpAgent("any", {"conn_id": "c"})
        ctx = AgentContext("any", http=fake, async_http=fake.asynchronous)
        assert asyncio.run(agent.arun("first", ctx)) == 1
        assert agent.run("second", ctx) == 2
        assert [request.json for request in fake.requests] == ["first", "second"]
        assert fake.connections == ["c", "c"]
