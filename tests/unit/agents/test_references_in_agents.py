"""The values that references lead to are for the agent alone: what is stored and told has the references."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project_steps import Book
from pydantic import BaseModel, Field, SecretStr, field_validator
from runner_steps import options

from airflow_agentic.agents import AgentContext, AgentRunner, AgentState, BaseAgent
from airflow_agentic.agents.registry import AgentDefinition
from airflow_agentic.config.references import Resolved
from airflow_agentic.errors import ConfigurationError, InvalidResult, RejectMessage, UnresolvedReference
from airflow_agentic.messaging import Message
from airflow_agentic.testing import memory_store

TOKEN, HOST, PORT = "${conn:api.password}", "${env:HOST}", "${var:port}"
DECLARED = {
    "token": TOKEN,
    "url": f"https://{HOST}/v1?k={TOKEN}",
    "portNumber": PORT,
    "headers": {"Authorization": f"Bearer {TOKEN}", "Accept": "json"},
    "keys": [TOKEN, "plain"],
    "nested": {"pin": TOKEN, "twin": TOKEN},
    "limit": 3,
}
# No letter of it is in a reference, a key, or a text of ours.
SECRETS = st.text(alphabet="0123456789QWZ§ß€'%~", min_size=8, max_size=30)


class Nested(BaseModel):
    pin: SecretStr
    twin: str


class Settings(BaseModel):
    token: str
    url: str
    port: int = Field(alias="portNumber")
    headers: dict[str, str]
    keys: list[str]
    nested: Nested
    limit: int


class Caller(BaseAgent[str, str]):
    config_model = Settings

    def process(self, task, ctx):
        seen.append(ctx.config)
        token = ctx.config.token
        if task == "break":
            raise RuntimeError(f"403 for {ctx.config.url} with {token}")
        if task == "reject":
            raise RejectMessage(f"{token} is refused")
        if task == "degrade":
            ctx.degrade(f"{ctx.config.headers} had no effect")
        if task == "wrong":
            return {token: 1}
        return task


seen = []


def resolved(secret="S3CR3T-0123456789", port="54321", declared=DECLARED):
    return Resolved(declared, Book({TOKEN: secret, HOST: "internal.test", PORT: port}))


def made(secret="S3CR3T-0123456789", store=None, **kwargs):
    return AgentDefinition("caller", Caller).create(resolved(secret, **kwargs), store and store.agents)


class Noting(BaseModel):
    token: str
    note: str = ""


def noting(secret):
    def work(task: int) -> int:
        return task

    return AgentDefinition("noting", work, Noting).create(resolved(secret, declared={"token": TOKEN}))


def everything(agent, store=None):
    """All that a person can be shown of an agent, as one text."""
    told = [asdict(agent.get_status()), asdict(agent.performance_metrics)]
    if store is not None:
        told += [asdict(status) for status in store.agents.list()]
    return json.dumps(told, default=str, ensure_ascii=False)


def run(agent, task):
    return agent.run(task, AgentContext(agent.name))


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


class TestTheAgent:
    def test_it_finds_the_values_in_its_configuration(self):
        run(made("the-password"), "work")
        (config,) = seen
        assert (config.token, config.url) == ("the-password", "https://internal.test/v1?k=the-password")
        assert (config.port, config.limit) == (54321, 3)
        assert config.headers == {"Authorization": "Bearer the-password", "Accept": "json"}
        assert (config.keys, config.nested.pin.get_secret_value()) == (
            ["the-password", "plain"],
            "the-password",
        )

    def test_its_status_has_the_references_where_they_are_written(self):
        found = made().get_status().profile.configuration
        declared = {**DECLARED, "port": PORT}
        del declared["portNumber"]
        assert found == declared

    def test_its_store_has_them_too(self):
        with memory_store() as store:
            agent = made(store=store)
            run(agent, "work")
            assert store.agents.get("caller").profile.configuration["token"] == TOKEN
            assert store.agents.get("caller").profile.configuration["port"] == PORT

    def test_a_literal_that_is_no_reference_is_kept_as_it_is(self):
        declared = {**DECLARED, "token": "$${not} a reference"}
        agent = made(declared=declared)
        assert agent.configuration.token == "${not} a reference"
        assert agent.get_status().profile.configuration["limit"] == 3

    def test_a_reference_that_leads_nowhere_makes_no_agent(self):
        with pytest.raises(UnresolvedReference, match="HOST"):
            Resolved({"url": HOST}, Book())


def assert_hidden(text, secret, reference=TOKEN):
    assert secret not in text
    assert reference in text


class TestNothingTellsTheSecret:
    @given(secret=SECRETS)
    def test_no_dump_of_a_status_has_it(self, secret):
        with memory_store() as store:
            agent = made(secret, store)
            run(agent, "work")
            assert_hidden(everything(agent, store), secret)

    @given(secret=SECRETS)
    def test_no_copy_of_it_under_another_key_has_it(self, secret):
        agent = noting(secret)
        agent.configure(note=f"<{secret}>")
        assert agent.get_status().profile.configuration == {"token": TOKEN, "note": f"<{TOKEN}>"}

    @given(secret=SECRETS)
    def test_not_what_an_agent_raised(self, secret):
        with memory_store() as store:
            agent = made(secret, store)
            with pytest.raises(RuntimeError):
                run(agent, "break")
            status = agent.get_status()
            assert status.state is AgentState.FAILED
            assert status.reason == f"RuntimeError: 403 for https://{HOST}/v1?k={TOKEN} with {TOKEN}"
            assert status.metrics.last_error == status.reason
            assert_hidden(everything(agent, store), secret)

    @pytest.mark.parametrize("task", ["degrade", "reject"])
    @given(secret=SECRETS.filter(lambda text: "'" not in text))
    def test_not_why_a_result_is_poor_or_a_task_was_rejected(self, task, secret):
        agent = made(secret)
        try:
            run(agent, task)
        except RejectMessage:
            assert_hidden(agent.performance_metrics.last_error, secret)
        assert_hidden(agent.get_status().reason, secret)
        assert_hidden(everything(agent), secret)

    @given(secret=SECRETS)
    def test_not_a_result_that_does_not_fit(self, secret):
        agent = made(secret)
        with pytest.raises(InvalidResult) as caught:
            run(agent, "wrong")
        assert secret not in str(caught.value)
        assert secret not in everything(agent)

    @given(secret=SECRETS)
    def test_not_that_it_does_not_fit_the_model(self, secret):
        with pytest.raises(ConfigurationError) as caught:
            made(secret, port=secret + "!")
        text = str(caught.value)
        assert text.startswith("configuration of agent 'caller': portNumber: ")
        assert secret not in text
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ is True

    @given(secret=SECRETS)
    def test_not_what_a_validator_of_the_agents_own_says(self, secret):
        class Checked(BaseModel):
            token: str

            @field_validator("token")
            @classmethod
            def refuse(cls, value):
                raise ValueError(f"{value} is no token")

        def work(task: int) -> int:
            return task

        with pytest.raises(ConfigurationError) as caught:
            AgentDefinition("checked", work, Checked).create(resolved(secret, declared={"token": TOKEN}))
        assert str(caught.value).startswith(f"configuration of agent 'checked': token: {TOKEN} is no token")
        assert secret not in str(caught.value)

    @given(secret=SECRETS)
    def test_not_what_is_refused_when_it_is_configured_again(self, secret):
        agent = noting(secret)
        with pytest.raises(ConfigurationError) as caught:
            agent.configure(**{f"no {secret}": 1})
        assert_hidden(str(caught.value), secret)


class TestMessages:
    def handled(self, store, secret, data):
        agent = made(secret, store)
        store.bus.send(Message(source="scanner", recipient="caller", data=data))
        runner = AgentRunner(agent, store.bus, lambda messages: AgentContext("caller", messages=messages))
        report = runner.drain("caller", linger=timedelta(0), max_messages=1)
        return agent, report

    @given(secret=SECRETS)
    def test_the_dead_letters_do_not_say_it(self, secret):
        with memory_store(options=options()) as store:
            agent, report = self.handled(store, secret, "reject")
            assert report.rejected == 1
            (letter,) = store.bus.dead_letters("caller")
            assert letter.reason == f"{TOKEN} is refused"
            assert secret not in repr(letter)
            assert_hidden(everything(agent, store), secret)

    @given(secret=SECRETS)
    def test_what_is_given_back_and_in_the_end_buried_does_not_say_it(self, secret):
        with memory_store(options=options(max_attempts=2)) as store:
            agent, report = self.handled(store, secret, "break")
            runner = AgentRunner(agent, store.bus, lambda messages: AgentContext("caller", messages=messages))
            assert report.failed == 1
            assert runner.drain("caller", linger=timedelta(0)).failed == 1
            (letter,) = store.bus.dead_letters("caller")
            assert_hidden(repr(letter), secret)
            assert "RuntimeError: 403 for" in repr(letter.history)
            assert_hidden(everything(agent, store), secret)


def test_a_secret_that_is_written_into_the_configuration_is_masked_where_its_key_says_so():
    with memory_store() as store:
        definition = AgentDefinition("noting", lambda task: task, Noting)
        agent = definition.create({"token": "hush-hush", "note": "said"}, store.agents)
        agent.configure()
        assert store.agents.get("noting").profile.configuration == {"token": "***", "note": "said"}
        assert agent.configuration.token == "hush-hush"
