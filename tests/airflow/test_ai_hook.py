"""Connections of type pydanticai_agentic: the real hook of common-ai, pydantic-ai's client, and a server that counts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import language_models
import pytest

from airflow_agentic.errors import (
    BudgetExceeded,
    Category,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    GuardsUnavailable,
    LimitExceeded,
    ServiceError,
    ServiceRefused,
    ServiceThrottled,
)
from airflow_agentic.resilience import BreakerState
from airflow_agentic.testing.openai_server import Call, Fault, OpenAIServer, Say

language_models.require()

from ai_steps import ask, failures_of, read  # noqa: E402
from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook  # noqa: E402
from pydantic_ai.exceptions import ModelAPIError  # noqa: E402

MINIMUM = 10
"""Calls before the breaker of the default policy judges."""

POLICIES = """
policies:
  two-a-minute:
    limits: {rate: 2, per_seconds: 60}
  slow:
    timeout: 0.2
  tries:
    retry: {max_attempts: 3, base_seconds: 0.01}
    breaker: {}
  thrifty:
    breaker: {}
    budget: {period: day, per: all, tokens: 40}
  poor:
    budget: {period: day, per: all, cost_usd: 0.00002}
  shared:
    budget: team-day
  strict:
    breaker: {}
    without_store: open
budgets:
  team-day: {period: day, per: all, calls: 3}
"""


@pytest.fixture(autouse=True)
def no_clients_left():
    yield
    language_models.collect()


@pytest.fixture
def primary():
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def spare():
    with OpenAIServer(then=Say("from the spare")) as server:
        yield server


@pytest.fixture
def connect(monkeypatch):
    def connect(conn_id, server, conn_type="pydanticai_agentic", **extra):
        monkeypatch.setenv(*language_models.variable(conn_id, server, conn_type, **extra))

    return connect


@pytest.fixture
def project(tmp_path, monkeypatch, store):
    file = tmp_path / "agentic.yaml"
    file.write_text(POLICIES)
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))
    return store


@pytest.fixture
def alone(connect, primary, project):
    """One guarded connection, without a chain."""
    connect("primary", primary)
    return primary


@pytest.fixture
def chain(connect, primary, spare, project):
    connect("primary", primary, fallback_conn_ids=["spare", " "])
    connect("spare", spare, conn_type="pydanticai")
    return primary, spare


class TestOneModel:
    def test_it_answers_as_it_does_without_guards(self, alone):
        alone.behave(Say("hello yourself"))
        assert ask() == "hello yourself"
        assert alone.requests[0].text == "hello"

    def test_once_its_breaker_is_open_no_call_reaches_it_from_any_hook(self, alone, store):
        alone.behave(then=Fault(503))
        errors = failures_of(30)
        assert len(errors) == 30
        assert alone.count == MINIMUM
        assert all(isinstance(error, ServiceError) for error in errors[:MINIMUM])
        assert all(isinstance(error, CircuitOpen) for error in errors[MINIMUM:])
        breaker = store.breaker("conn:primary")
        assert breaker.state is BreakerState.OPEN
        assert errors[-1].retry_at > datetime.now(UTC)

    def test_a_breaker_that_a_person_opened_stops_it_at_once(self, alone, store):
        store.breaker("conn:primary").trip(reason="the provider has an incident", actor="ada")
        with pytest.raises(CircuitOpen):
            ask()
        assert alone.count == 0
        store.breaker("conn:primary").reset(reason="it is over", actor="ada")
        assert ask() == "ok"

    def test_refusals_of_requests_are_no_sign_of_ill_health(self, alone, store):
        alone.behave(then=Fault(400, code="context_length_exceeded"))
        errors = failures_of(15)
        assert alone.count == 15
        assert all(isinstance(error, ServiceRefused) and not error.retry_helps for error in errors)
        assert store.breaker("conn:primary").state is BreakerState.CLOSED

    @pytest.mark.parametrize(
        ("fault", "error", "category"),
        [
            (Fault(500), ServiceError, Category.TRANSIENT),
            (Fault(reset=True), ServiceError, Category.TRANSIENT),
            (Fault(garbage=True), ServiceError, Category.TRANSIENT),
            (Fault(429), ServiceThrottled, Category.RESOURCE_EXHAUSTION),
            (Fault(429, code="insufficient_quota"), ServiceThrottled, Category.RESOURCE_EXHAUSTION),
            (Fault(401), ServiceRefused, Category.CONFIGURATION),
            (Fault(404), ServiceRefused, Category.CONFIGURATION),
            (Fault(422), ServiceRefused, Category.PERMANENT),
        ],
        ids=lambda value: str(getattr(value, "code", "") or getattr(value, "status", ""))[:20],
    )
    def test_what_goes_wrong_has_a_category_and_no_secrets(self, alone, fault, error, category):
        alone.behave(fault)
        with pytest.raises(error) as raised:
            ask()
        assert raised.value.category is category
        assert isinstance(raised.value, ModelAPIError)
        assert "connection 'primary'" in str(raised.value)
        assert language_models.KEY not in str(raised.value)
        assert "script" not in str(raised.value)  # what the provider says may quote the request

    def test_throttling_says_how_long_to_wait(self, alone):
        alone.behave(then=Fault(429, retry_after=7))
        with pytest.raises(ServiceThrottled) as raised:
            ask()
        assert raised.value.retry_after_seconds == 7
        assert raised.value.status == 429
        assert alone.count == 1

    def test_the_client_does_not_try_again_by_itself_unless_it_is_told_to(self, alone):
        alone.behave(then=Fault(503))
        failures_of(1)
        assert alone.count == 1
        failures_of(1, max_retries=1)
        assert alone.count == 3

    def test_a_policy_tries_again(self, connect, alone):
        connect("primary", alone, policy="tries")
        alone.behave(Fault(503), Fault(503), Say("third time lucky"))
        assert ask() == "third time lucky"

    def test_a_model_that_is_slower_than_the_policy_lets_is_given_up(self, connect, alone):
        connect("primary", alone, policy="slow")
        alone.behave(Say(seconds=5))
        began = datetime.now(UTC)
        with pytest.raises(DeadlineExceeded):
            ask()
        assert datetime.now(UTC) - began < timedelta(seconds=3)


class TestLimitsAndBudgets:
    def test_a_rate_holds_across_hooks(self, connect, alone):
        connect("primary", alone, policy="two-a-minute")
        errors = failures_of(5)
        assert alone.count == 2
        assert [type(error) for error in errors] == [LimitExceeded] * 3

    def test_tokens_are_counted_from_what_the_model_says(self, connect, alone):
        connect("primary", alone, policy="thrifty")
        alone.behave(then=Say(tokens=(12, 8)))
        assert [ask(), ask()] == ["ok", "ok"]
        with pytest.raises(BudgetExceeded) as raised:
            ask()
        assert alone.count == 2
        assert raised.value.retry_at is not None

    def test_money_is_counted_by_published_prices(self, connect, alone):
        connect("primary", alone, policy="poor")
        alone.behave(then=Say(tokens=(100, 10)))  # of gpt-5
        ask()
        with pytest.raises(BudgetExceeded):
            ask()

    def test_money_is_counted_by_the_prices_of_the_connection_where_none_are_published(self, connect, alone):
        prices = {"input_usd": 1.0, "output_usd": 2.0}
        connect("primary", alone, policy="poor", model="openai-chat:our-own-model", prices=prices)
        alone.behave(then=Say(tokens=(10, 5)))
        ask()  # $0.00002
        with pytest.raises(BudgetExceeded):
            ask()

    def test_a_named_budget_is_one_for_all_connections(self, connect, alone, spare):
        connect("primary", alone, policy="shared")
        connect("spare", spare, policy="shared")
        assert len(failures_of(2)) == 0
        assert len(failures_of(2, conn_id="spare")) == 1
        assert (alone.count, spare.count) == (2, 1)


class TestChain:
    def test_when_the_first_is_dead_it_is_left_alone_and_the_second_answers(self, chain):
        primary, spare = chain
        primary.behave(then=Fault(503))
        assert [ask() for _ in range(25)] == ["from the spare"] * 25
        assert primary.count == MINIMUM
        assert spare.count == 25

    def test_each_member_has_a_breaker_of_its_own(self, chain, store):
        primary, _ = chain
        primary.behave(then=Fault(503))
        failures_of(MINIMUM)
        assert store.breaker("conn:primary").state is BreakerState.OPEN
        assert store.breaker("conn:spare").state is BreakerState.CLOSED

    def test_when_all_are_open_the_error_is_ours_and_says_when_the_first_may_be_asked_again(self, chain):
        primary, spare = chain
        primary.behave(then=Fault(503))
        spare.behave(then=Fault(503))
        failures_of(MINIMUM)
        with pytest.raises(CircuitOpen) as raised:
            ask()
        assert (primary.count, spare.count) == (MINIMUM, MINIMUM)
        assert "conn:primary" in str(raised.value)
        assert "conn:spare" in str(raised.value)
        assert timedelta(0) < raised.value.retry_at - datetime.now(UTC) <= timedelta(seconds=30)

    def test_of_several_failures_the_most_hopeful_one_is_raised(self, chain):
        primary, spare = chain
        primary.behave(then=Fault(401))
        spare.behave(then=Fault(503))
        with pytest.raises(ServiceError) as raised:
            ask()
        assert raised.value.category is Category.TRANSIENT
        assert "401" in str(raised.value)

    @pytest.mark.parametrize("fault", [Fault(garbage=True), Fault(reset=True), Fault(429, retry_after=3600)])
    def test_the_next_is_asked_whatever_happened_to_the_first(self, chain, fault):
        chain[0].behave(fault)
        assert ask() == "from the spare"

    def test_the_next_is_asked_when_the_first_is_too_slow_or_over_its_limit(self, connect, chain):
        primary, _ = chain
        connect("primary", primary, fallback_conn_ids=["spare"], policy="slow")
        primary.behave(Say(seconds=3))
        assert ask() == "from the spare"
        connect("primary", primary, fallback_conn_ids=["spare"], policy="two-a-minute")
        assert [ask() for _ in range(3)] == ["ok", "ok", "from the spare"]


class TestStreams:
    def test_an_answer_in_pieces_counts_with_what_it_took(self, connect, alone):
        connect("primary", alone, policy="thrifty")
        alone.behave(then=Say("one and two and three and four", tokens=(12, 8)))
        assert "".join(read()) == "one and two and three and four"
        read()
        with pytest.raises(BudgetExceeded):
            read()
        assert alone.count == 2

    def test_streams_that_break_off_open_the_breaker(self, alone, store):
        alone.behave(then=Fault(message="one and two and three", after=2))
        for _ in range(MINIMUM):
            with pytest.raises(ServiceError):
                read()
        with pytest.raises(CircuitOpen):
            read()
        assert alone.count == MINIMUM

    def test_what_the_reader_raises_says_nothing_of_the_model(self, alone, store):
        def fail():
            raise KeyError("a mistake of the reader")

        for _ in range(MINIMUM + 2):
            with pytest.raises(KeyError):
                read(meanwhile=fail)
        assert store.breaker("conn:primary").state is BreakerState.CLOSED

    def test_the_next_is_read_when_the_first_fails_before_its_first_piece(self, chain):
        primary, _ = chain
        primary.behave(then=Fault(503))
        assert {"".join(read()) for _ in range(MINIMUM + 5)} == {"from the spare"}
        assert primary.count == MINIMUM


class TestGateway:
    """Something in front of the models guards them already."""

    @pytest.fixture
    def gateway(self, connect, alone):
        connect("primary", alone, gateway=True, policy="thrifty")
        return alone

    def test_no_breaker_of_ours_stands_before_it(self, gateway, store):
        gateway.behave(then=Fault(503))
        assert len(failures_of(MINIMUM + 5)) == MINIMUM + 5
        assert gateway.count == MINIMUM + 5

    def test_its_throttling_is_understood(self, gateway):
        gateway.behave(then=Fault(429, retry_after=12))
        with pytest.raises(ServiceThrottled) as raised:
            ask()
        assert raised.value.retry_after_seconds == 12
        assert gateway.count == 1

    def test_budgets_still_count(self, gateway):
        gateway.behave(then=Say(tokens=(20, 20)))
        ask()
        with pytest.raises(BudgetExceeded):
            ask()


class TestTheFleet:
    def test_processes_share_the_breaker(self, alone, store_url, tmp_path):
        alone.behave(then=Fault(503))
        script = "from ai_steps import failures_of; print([type(e).__name__ for e in failures_of(8)])"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        others = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", script], env=env, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        said = [process.communicate(timeout=90)[0] for process in others]
        assert all("CircuitOpen" in each or "Unavailable" in each for each in said)
        assert alone.count == MINIMUM
        with pytest.raises(CircuitOpen):
            ask()
        assert alone.count == MINIMUM

    def test_many_at_once_on_a_dead_model_reach_it_as_often_as_it_takes_to_know(self, alone):
        alone.behave(then=Fault(503, seconds=0.05))
        agent = PydanticAIHook.get_hook("primary").create_agent(instructions="")

        async def run():
            async with agent:
                return await asyncio.gather(*(agent.run("x") for _ in range(40)), return_exceptions=True)

        errors = asyncio.run(run())
        assert all(isinstance(error, ServiceError | CircuitOpen) for error in errors)
        assert alone.count == MINIMUM


class TestWithoutItsStore:
    @pytest.fixture
    def away(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "postgresql://nobody@127.0.0.1:9/nothing")

    def test_the_work_goes_on_guarded_by_the_process_alone(self, alone, away, caplog):
        assert ask() == "ok"
        assert "guards alone" in caplog.text

    def test_or_stops_if_the_policy_says_so(self, connect, alone, away):
        connect("primary", alone, policy="strict")
        with pytest.raises(GuardsUnavailable):
            ask()
        assert alone.count == 0


class TestMistakes:
    def test_an_unknown_policy_is_refused_with_the_nearest_name(self, connect, alone):
        connect("primary", alone, policy="thrify")
        with pytest.raises(ConfigurationError, match="thrifty"):
            ask()
        worked, text = PydanticAIHook.get_hook("primary").test_connection()
        assert not worked
        assert "thrifty" in text

    def test_a_value_that_cannot_be_used_is_named(self, connect, alone):
        connect("primary", alone, gateway="perhaps")
        with pytest.raises(ConfigurationError, match=r"'primary'.*gateway"):
            ask()

    def test_a_policy_of_a_member_is_looked_for_too(self, connect, chain):
        connect("spare", chain[1], policy="nothing-like-it")
        with pytest.raises(ConfigurationError, match=r"'spare'.*declared"):
            ask()

    @pytest.mark.parametrize("suffix", ["", "_azure", "_bedrock", "_vertex"])
    def test_each_type_of_connection_has_its_hook(self, suffix):
        from airflow.providers_manager import ProvidersManager

        found = ProvidersManager().hooks[f"pydanticai_agentic{suffix}"]
        assert found is not None
        assert found.hook_name.endswith("guarded)")
        assert found.connection_type == f"pydanticai_agentic{suffix}"


def test_tools_are_run_between_guarded_calls(alone):
    alone.behave(Say(calls=(Call("add", {"a": 2, "b": 3}),)), Say("it is 5"))
    agent = PydanticAIHook.get_hook("primary").create_agent(instructions="")
    seen = []

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        seen.append((a, b))
        return a + b

    async def run():
        async with agent:
            return await agent.run("2 + 3?")

    assert asyncio.run(run()).output == "it is 5"
    assert seen == [(2, 3)]
    assert alone.count == 2
