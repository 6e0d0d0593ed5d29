"""What users get for their tests: it must let good agents pass, and no broken one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ConfigDict

from airflow_agentic.agents import (
    AgentDefinition,
    AgentState,
    BaseAgent,
    HttpAgent,
    PerformanceMetrics,
    RunIdentity,
)
from airflow_agentic.agents.lifecycle import check_transition
from airflow_agentic.errors import ConfigurationError, InvalidTask, ServiceError
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.testing import (
    FakeClock,
    FakeHttp,
    answer,
    assert_agent_contract,
    memory_store,
    run_agent,
)


class Strictness(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: int
    note: str = ""


class Auditor(BaseAgent[int, dict[str, int]]):
    """Audits."""

    config_model = Strictness

    def process(self, task, ctx):
        ctx.send("legal", task)
        return {"score": task * self.configuration.level}


class Sloppy(Auditor):
    """A good agent whose work is never quite what it should be."""

    def process(self, task, ctx):
        ctx.degrade("no prices today")
        return {"score": 0}


class Oracle(HttpAgent[dict[str, int], dict[str, bool]]):
    pass


def count(text: str, ctx) -> int:
    ctx.send("boss", text, key="report")
    return len(text)


CONFIG = {"level": 2}


class TestRunAgent:
    def test_an_agent_is_tested_in_three_lines(self):
        run = run_agent(Auditor, 4, config=CONFIG)
        assert run.result == {"score": 8}
        assert [(m.recipient, m.data, m.source) for m in run.outbox] == [("legal", 4, "Auditor")]
        assert run.state is AgentState.READY

    @pytest.mark.parametrize("agent", [count, AgentDefinition("counter", count)])
    def test_functions_and_definitions_run_too(self, agent):
        assert run_agent(agent, "four").result == 4

    def test_the_result_is_plain_json(self):
        class Day(BaseModel):
            day: datetime

        def today(task) -> Day:
            return Day(day=datetime(2030, 1, 1, tzinfo=UTC))

        assert run_agent(today, None).result == {"day": "2030-01-01T00:00:00Z"}

    def test_degraded_work_is_told(self):
        assert run_agent(Sloppy, 4, config=CONFIG).state is AgentState.DEGRADED

    def test_an_instance_stays_alive_and_anything_else_is_shut_down(self):
        with memory_store() as store:
            mine = Auditor("mine", CONFIG, store.agents)
            run_agent(mine, 1, store=store)
            assert mine.state is AgentState.READY
            run_agent(AgentDefinition("counter", count), "x", store=store)
            assert store.agents.get("counter").state is AgentState.SHUTDOWN

    def test_messages_go_into_the_store_that_is_given(self):
        with memory_store() as store:
            run_agent(count, "x", store=store)
            assert store.bus.stats("boss").ready == 1

    def test_ids_are_repeatable_within_a_run(self):
        run = RunIdentity("dag", "run", "task")
        assert run_agent(count, "x", run=run).outbox[0].id == run_agent(count, "x", run=run).outbox[0].id
        assert run_agent(count, "x").outbox[0].id != run_agent(count, "x").outbox[0].id

    def test_messages_at_hand_are_found_in_the_context(self):
        cause = Message(source="scanner", recipient="auditor")
        sent = run_agent(count, "x", messages=[cause]).outbox[0]
        assert sent.causation_id == cause.id

    def test_http_agents_run_on_a_script(self):
        fake = FakeHttp(answer({"good": True}))
        assert run_agent(Oracle, {"a": 1}, http=fake).result == {"good": True}
        assert fake.requests[0].json == {"a": 1}

    def test_errors_reach_the_test(self):
        with pytest.raises(InvalidTask):
            run_agent(count, 5)
        with pytest.raises(ConfigurationError):
            run_agent(Auditor, 1)
        with pytest.raises(ServiceError):
            run_agent(Oracle, {}, http=FakeHttp(answer(status=500)))


class TestFakes:
    def test_a_clock_moves_when_it_is_told_to(self):
        clock = FakeClock()
        start = clock()
        assert start.tzinfo is not None
        clock.advance(1.5)
        clock.advance(timedelta(seconds=1))
        assert clock() == start + timedelta(seconds=2.5)
        with pytest.raises(ValueError, match="does not go back"):
            clock.advance(-1)

    def test_a_store_in_memory_follows_its_clock(self):
        clock = FakeClock()
        with memory_store(clock, BusOptions(max_attempts=1)) as store:
            store.bus.send(Message(source="s", recipient="b"), delay=timedelta(seconds=5))
            assert store.bus.receive("b") == []
            clock.advance(5)
            [delivery] = store.bus.receive("b")
            assert delivery.max_attempts == 1
            store.agents.register("a-1", Auditor(config=CONFIG)._profile(), "me", timedelta(seconds=1))
            clock.advance(2)
            assert store.agents.get("Auditor").live_instances == 0

    def test_an_answer_is_json_unless_its_body_is_given(self):
        assert answer({"a": 1}).body == b'{"a": 1}'
        assert answer({"a": 1}).headers == {"Content-Type": "application/json"}
        assert answer(body=b"<html>", headers={"X": "y"}, status=500).body == b"<html>"

    def test_no_test_framework_and_no_airflow_is_imported(self):
        code = (
            "import sys, airflow_agentic.testing as t; "
            "found = {'pytest', 'airflow', 'hypothesis', 'sqlalchemy'} & set(sys.modules); sys.exit(str(found) if found else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class TestGoodAgents:
    @pytest.mark.parametrize("config", [CONFIG, Strictness(level=2)])
    @pytest.mark.parametrize("agent", [Auditor, Sloppy])
    def test_a_class_passes(self, agent, config):
        assert_agent_contract(agent, task=4, config=config, bad_tasks=["four", None, {}])

    def test_a_function_and_a_definition_pass(self):
        assert_agent_contract(count, task="four", bad_tasks=[4])
        assert_agent_contract(AgentDefinition("counter", count), task="four", bad_tasks=[4])

    def test_an_http_agent_passes(self):
        assert_agent_contract(
            Oracle,
            task={"a": 1},
            bad_tasks=[{"a": "b"}],
            http=lambda conn_id: FakeHttp(answer({"good": True})),
        )

    def test_an_agent_with_hooks_of_its_own_passes(self):
        class Hooked(Auditor):
            opened = 0

            def on_ready(self, previous, reason):
                self.opened += 1

            def on_shutdown(self, previous, reason):
                self.opened = 0

        assert_agent_contract(Hooked, task=4, config=CONFIG)


def broken(**methods):
    return type("Broken", (Auditor,), methods)


def _lying_status(self):
    status = Auditor.get_status(self)
    return replace(status, state=AgentState.READY)


def _no_metrics(self):
    return PerformanceMetrics()


def _deaf(self, *args, **kwargs):
    pass


def _forgets_its_store(self, name=None, config=None, store=None):
    Auditor.__init__(self, name, config, None)


def _late_shutdown(self, reason="shutdown"):
    if self.state is AgentState.SHUTDOWN:
        raise RuntimeError("already closed")
    Auditor.shutdown(self, reason)


def _undead(self, reason="shutdown"):
    self._state = AgentState.READY


def _run_without_lifecycle(self, task, ctx):
    return self.process(self.contract.task(task), ctx)


def _stuck_reset(self, reason="reset"):
    pass


def _reentrant_run(self, task, ctx):
    if self.state is AgentState.PROCESSING:
        return {}
    return Auditor.run(self, task, ctx)


def _move_without_hooks(self, state, reason, add=None):
    check_transition(self.name, self._state, state)
    self._state, self._reason = state, reason


def _config_from_anything(self, config):
    return Strictness(level=2)


def _fails_on_bad_tasks(self, task, ctx):
    try:
        return Auditor.run(self, task, ctx)
    except InvalidTask as error:
        self._state = AgentState.FAILED
        raise error from None


def _run_after_failure(self, task, ctx):
    if self.state is AgentState.FAILED:
        self.reset()
    return Auditor.run(self, task, ctx)


def _failing_work(self, task, ctx):
    raise OSError("no network")


def _forgetful_configure(self, config=None, **changes):
    self._configuration = Strictness(level=7)
    Auditor.configure(self, config, **changes)


class Loose(BaseModel, extra="ignore"):
    level: int = 2


class LooseTask(BaseAgent[object, object]):
    config_model = Strictness

    def process(self, task, ctx):
        return task


BROKEN = [
    (broken(agent_id=property(lambda self: "same")), r"two instances have the same agent_id 'same'"),
    (broken(process=_failing_work), r"run\(task\) raised OSError: no network"),
    (broken(process=lambda self, task, ctx: {"score": "high"}), r"run\(task\) raised InvalidResult: .*score"),
    (broken(process=lambda self, task, ctx: {"score": object}), r"run\(task\) raised InvalidResult"),
    (broken(run=lambda self, task, ctx: object()), r"validating the result .* raised InvalidResult"),
    (broken(run=_run_without_lifecycle), r"after one task performance_metrics\.processed is 0, and not 1"),
    (broken(performance_metrics=property(_no_metrics)), r"performance_metrics\.processed is 0, and not 1"),
    (
        broken(get_status=_lying_status),
        r"when it is made get_status\(\) says ready, and the state is initialized",
    ),
    (broken(configure=_deaf), r"after configure\(\) the state is initialized, and not ready"),
    (broken(shutdown=_late_shutdown), r"a second shutdown\(\) .* raised RuntimeError: already closed"),
    (broken(shutdown=_deaf), r"after shutdown\(\) the state is initialized, and not shutdown"),
    (broken(shutdown=_undead), r"after shutdown\(\) the state is ready, and not shutdown"),
    (broken(reset=_stuck_reset), r"after a failure and reset\(\) the state is failed, and not ready"),
    (broken(run=_reentrant_run), r"run\(\) of an agent at work must raise IllegalTransition"),
    (broken(run=_run_after_failure), r"run\(\) of a failed agent must raise LifecycleError"),
    (broken(run=_fails_on_bad_tasks), r"after the bad task 'four', .* the state is failed, and not ready"),
    (broken(_move=_move_without_hooks), r"the hooks were called in the order \[\]"),
    (
        broken(__init__=_forgets_its_store),
        r"after one task each of two instances with one store .*is 1, and not 2",
    ),
    (broken(_validated=_config_from_anything), "unknown configuration key"),
    (broken(config_model=Loose), "unknown configuration key"),
    (broken(configure=_forgetful_configure), r"a configuration that was refused replaced the present one"),
    (
        broken(__init__=lambda self, store: None),
        r"making agent 'Broken' with name=, config= and store= raised TypeError",
    ),
    (LooseTask, r"the bad task 'four' must raise InvalidTask, it did not raise"),
]


class TestBrokenAgents:
    @pytest.mark.parametrize(("agent", "complaint"), BROKEN, ids=[c[:40] for _, c in BROKEN])
    def test_each_is_found_and_told(self, agent, complaint):
        with pytest.raises(AssertionError, match=complaint):
            assert_agent_contract(agent, task=4, config=CONFIG, bad_tasks=["four"])

    def test_a_request_that_was_not_expected_is_told_as_it_is(self):
        with pytest.raises(AssertionError, match=r"^request 1, POST '', was not expected: the script has 0"):
            assert_agent_contract(Oracle, task={"a": 1}, http=FakeHttp())
