"""What every agent does: work, count, tell its status, take a configuration, end."""

from __future__ import annotations

import threading

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from airflow_agentic.agents import AgentContext, AgentState, BaseAgent, FunctionAgent
from airflow_agentic.errors import (
    ConfigurationError,
    IllegalTransition,
    InvalidResult,
    InvalidTask,
    LifecycleError,
    RejectMessage,
)
from airflow_agentic.testing import memory_store

INITIALIZED, READY, PROCESSING, DEGRADED, FAILED, SHUTDOWN = AgentState


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = 3
    password: SecretStr = SecretStr("hunter2")


class Doubler(BaseAgent[int, int]):
    """Doubles a number.

    More about it.
    """

    config_model = Config

    def process(self, task, ctx):
        if task == 13:
            raise OSError("unlucky")
        if task == 99:
            raise RejectMessage("never")
        if task == 7:
            ctx.degrade("only an estimate")
        return "not a number" if task == 0 else 2 * task


def run(agent, task=1):
    return agent.run(task, AgentContext(agent.name))


class TestRun:
    def test_it_goes_from_initialized_over_ready_to_its_work_and_back(self):
        agent = Doubler()
        assert agent.state is INITIALIZED
        agent.configure()
        assert agent.state is READY
        assert run(agent, 21) == 42
        assert agent.state is READY

    def test_an_agent_that_was_not_configured_configures_itself(self):
        agent = Doubler()
        run(agent)
        assert agent.state is READY

    def test_it_is_processing_while_it_works(self):
        seen = []
        agent = FunctionAgent(lambda task: seen.append(agent.state))
        run(agent)
        assert seen == [PROCESSING]

    def test_the_context_has_the_configuration(self):
        seen = []
        agent = FunctionAgent(lambda task, ctx: seen.append(ctx.config.limit), config_model=Config)
        agent.configure(limit=9)
        run(agent)
        assert seen == [9]

    def test_a_result_that_is_not_what_it_should_be_leaves_the_agent_degraded_and_able_to_work(self):
        agent = Doubler()
        assert run(agent, 7) == 14
        assert agent.state is DEGRADED
        assert agent.get_status().reason == "only an estimate"
        run(agent, 1)
        assert agent.state is READY

    @pytest.mark.parametrize(("task", "error"), [(13, OSError), (0, InvalidResult)])
    def test_an_error_of_its_own_fails_the_agent_until_it_is_reset(self, task, error):
        agent = Doubler()
        with pytest.raises(error):
            run(agent, task)
        assert agent.state is FAILED
        with pytest.raises(IllegalTransition, match=r"call reset\(\) first"):
            run(agent)
        agent.reset("repaired")
        assert (agent.state, agent.get_status().reason) == (READY, "repaired")
        assert run(agent) == 2

    @pytest.mark.parametrize(("task", "error"), [("text", InvalidTask), (99, RejectMessage)])
    def test_a_task_that_is_wrong_does_not_fail_the_agent(self, task, error):
        agent = Doubler()
        with pytest.raises(error) as caught:
            run(agent, task)
        assert agent.state is READY
        assert agent.get_status().reason == str(caught.value)
        assert agent.performance_metrics.failed == 1

    def test_an_interrupt_fails_the_agent_and_is_passed_on(self):
        def interrupt(task):
            raise KeyboardInterrupt

        agent = FunctionAgent(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(agent)
        assert agent.state is FAILED

    def test_an_agent_does_one_task_at_a_time(self):
        inside, leave = threading.Event(), threading.Event()

        def wait(task):
            inside.set()
            assert leave.wait(10)
            return "done"

        agent, results = FunctionAgent(wait), []
        worker = threading.Thread(target=lambda: results.append(run(agent)))
        worker.start()
        assert inside.wait(10)
        with pytest.raises(IllegalTransition, match="from processing to processing"):
            run(agent)
        leave.set()
        worker.join()
        assert results == ["done"]
        assert agent.performance_metrics.processed == 1

    def test_every_instance_has_an_id_of_its_own(self):
        ids = {Doubler("a").agent_id for _ in range(50)}
        assert len(ids) == 50
        assert all(identity.startswith("a-") for identity in ids)


class TestNumbers:
    def test_tasks_are_counted_by_how_they_ended(self):
        agent = Doubler()
        for task in (1, 7, 13, "text"):
            try:
                run(agent, task)
            except (OSError, InvalidTask):
                agent.reset()
        metrics = agent.performance_metrics
        assert (metrics.processed, metrics.succeeded, metrics.failed, metrics.degraded) == (4, 2, 2, 1)
        assert metrics.error_rate == 0.5
        assert "'Doubler'" in metrics.last_error

    def test_time_is_measured(self):
        agent = FunctionAgent(lambda task: threading.Event().wait(task))
        run(agent, 0.03)
        run(agent, 0.0)
        metrics = agent.performance_metrics
        assert 0.03 <= metrics.max_seconds < 5
        assert metrics.max_seconds <= metrics.total_seconds
        assert metrics.mean_seconds == metrics.total_seconds / 2

    def test_an_agent_without_work_has_no_error_rate(self):
        assert (Doubler().performance_metrics.error_rate, Doubler().performance_metrics.mean_seconds) == (
            0,
            0,
        )

    def test_instances_of_a_name_share_their_numbers_through_a_store(self):
        with memory_store() as store:
            for _ in range(2):
                agent = Doubler("shared", store=store.agents)
                run(agent)
                agent.shutdown()
            later = Doubler("shared", store=store.agents)
            assert later.performance_metrics.processed == 2
            assert later.get_status().metrics.processed == 2

    def test_without_a_store_each_instance_has_its_own(self):
        run(Doubler("shared"))
        assert Doubler("shared").performance_metrics.processed == 0


class TestStatus:
    def test_it_shows_what_the_agent_is(self):
        with memory_store() as store:
            for agent in (Doubler("d", {"limit": 5}), Doubler("d", {"limit": 5}, store.agents)):
                status = agent.get_status()
                assert (status.name, status.profile.agent_type) == ("d", "Doubler")
                assert status.profile.description == "Doubles a number."
                assert status.profile.input_schema == {"type": "integer"}
                assert status.profile.output_schema == {"type": "integer"}
                assert status.profile.configuration == {"limit": 5, "password": "***"}
                assert status.live_instances == 1

    def test_it_agrees_with_the_state_all_along(self):
        with memory_store() as store:
            for agent in (Doubler(), Doubler(store=store.agents)):
                seen = [agent.get_status().state]
                agent.configure()
                seen.append(agent.get_status().state)
                with pytest.raises(OSError, match="unlucky"):
                    run(agent, 13)
                seen.append(agent.get_status().state)
                agent.reset()
                run(agent, 7)
                seen.append(agent.get_status().state)
                agent.shutdown("end")
                seen.append(agent.get_status().state)
                assert seen == [INITIALIZED, READY, FAILED, DEGRADED, SHUTDOWN]
                assert agent.get_status().live_instances == 0


class TestConfigure:
    def test_changes_go_on_top_of_what_is_there(self):
        agent = Doubler(config={"limit": 5})
        agent.configure(password="new")
        assert agent.configuration.limit == 5
        assert agent.configuration.password.get_secret_value() == "new"

    def test_a_whole_configuration_replaces_what_is_there(self):
        agent = Doubler(config={"limit": 5, "password": "x"})
        agent.configure({"limit": 6})
        assert agent.configuration == Config(limit=6)
        agent.configure(Config(limit=7), password="y")
        assert agent.configuration == Config(limit=7, password=SecretStr("y"))

    def test_an_agent_that_is_ready_or_degraded_can_be_configured_again(self):
        agent = Doubler()
        agent.configure(limit=1)
        agent.configure(limit=2)
        run(agent, 7)
        agent.configure(limit=4)
        assert (agent.state, agent.configuration.limit) == (READY, 4)

    @pytest.mark.parametrize("make", [lambda **c: Doubler("d", c), lambda **c: Doubler("d").configure(**c)])
    def test_a_wrong_configuration_is_refused_with_every_fault_and_the_known_keys(self, make):
        with pytest.raises(ConfigurationError) as caught:
            make(limit="many", colour="red")
        text = str(caught.value)
        assert all(part in text for part in ("'d'", "limit", "colour", "Known keys: limit, password"))
        assert "many" not in text

    def test_a_configuration_that_is_refused_leaves_the_old_one(self):
        agent = Doubler(config={"limit": 5})
        with pytest.raises(ConfigurationError):
            agent.configure(limit="many")
        assert (agent.state, agent.configuration.limit) == (INITIALIZED, 5)

    def test_an_agent_without_configuration_takes_none(self):
        with pytest.raises(ConfigurationError, match="Known keys: none"):
            FunctionAgent(lambda task: task, "f", {"a": 1})

    def test_a_model_with_aliases_works_from_the_file_to_the_task(self):
        class Aliased(BaseModel):
            limit: int = Field(alias="maximum-limit")

        seen = []
        for config in ({"maximum-limit": 5}, Aliased(**{"maximum-limit": 5})):
            agent = FunctionAgent(
                lambda task, ctx: seen.append(ctx.config.limit), "f", config, config_model=Aliased
            )
            run(agent)
        assert seen == [5, 5]

    def test_a_model_that_the_caller_changes_later_does_not_change_the_agent(self):
        config = Config(limit=5)
        agent = Doubler(config=config)
        config.limit = 6
        assert agent.configuration.limit == 5

    @pytest.mark.parametrize("end", ["failed", "shutdown"])
    def test_an_agent_that_failed_or_ended_cannot_be_configured(self, end):
        agent = Doubler()
        if end == "failed":
            with pytest.raises(OSError, match="unlucky"):
                run(agent, 13)
        else:
            agent.shutdown()
        with pytest.raises(LifecycleError, match=f"cannot be configured while {end}"):
            agent.configure()

    def test_an_agent_cannot_be_configured_while_it_works(self):
        agent = FunctionAgent(lambda task: agent.configure())
        with pytest.raises(LifecycleError, match="while processing"):
            run(agent)


class TestEnd:
    def test_shutdown_can_be_called_twice_and_is_final(self):
        agent = Doubler()
        agent.shutdown("first")
        agent.shutdown("second")
        assert (agent.state, agent.get_status().reason) == (SHUTDOWN, "first")
        with pytest.raises(IllegalTransition):
            agent.reset()
        with pytest.raises(LifecycleError):
            run(agent)

    def test_an_agent_can_be_shut_down_while_it_works_and_its_task_still_counts(self):
        def check(kept):
            agent = FunctionAgent(lambda task: agent.shutdown("told to") or "result", "f", store=kept)
            assert run(agent) == "result"
            assert agent.state is SHUTDOWN
            assert agent.performance_metrics.succeeded == 1
            assert agent.get_status().state is SHUTDOWN

        check(None)
        with memory_store() as store:
            check(store.agents)

    def test_a_reset_of_a_ready_agent_changes_nothing(self):
        agent = Doubler()
        agent.configure()
        agent.reset("no reason")
        assert agent.get_status().reason == "configured"

    def test_a_reset_of_a_working_agent_is_refused(self):
        agent = FunctionAgent(lambda task: agent.reset())
        with pytest.raises(LifecycleError, match="cannot be reset while processing"):
            run(agent)


class TestTypes:
    def test_types_are_found_in_the_class_that_names_them(self):
        class Between(Doubler):
            pass

        assert Between().contract.input_schema() == {"type": "integer"}

    def test_an_agent_without_types_takes_and_gives_any_json(self):
        class Untyped(BaseAgent):
            def process(self, task, ctx):
                return task

        assert run(Untyped(), {"any": ["thing"]}) == {"any": ["thing"]}
        assert Untyped().contract.input_schema() == {}

    def test_the_class_gives_the_name_unless_one_is_given(self):
        assert (Doubler().name, Doubler("other").name, Doubler().agent_type) == (
            "Doubler",
            "other",
            "Doubler",
        )


def test_a_mistyped_configuration_key_is_refused_unless_the_model_takes_any():
    class Limit(BaseModel):
        euros: int = 1

    class Open(BaseModel, extra="allow"):
        euros: int = 1

    class Closed(BaseAgent[int, int]):
        config_model = Limit

        def process(self, task, ctx):
            return task

    class Wide(Closed):
        config_model = Open

    with pytest.raises(ConfigurationError, match=r"euro: Extra inputs are not permitted.*Known keys: euros"):
        Closed(config={"euro": 2})
    assert Wide(config={"euro": 2}).configuration.euro == 2
