"""The states, the arrows between them, and the hooks on the way."""

from __future__ import annotations

import itertools

import pytest

from airflow_agentic.agents import AgentContext, AgentState, BaseAgent
from airflow_agentic.agents.lifecycle import TRANSITIONS, check_transition
from airflow_agentic.errors import IllegalTransition

INITIALIZED, READY, PROCESSING, DEGRADED, FAILED, SHUTDOWN = AgentState

# Written down once more, by hand: the arrows of the picture in the docs.
ARROWS = {
    (INITIALIZED, READY),
    (READY, PROCESSING),
    (PROCESSING, READY),
    (PROCESSING, DEGRADED),
    (PROCESSING, FAILED),
    (DEGRADED, PROCESSING),
    (DEGRADED, READY),
    (FAILED, READY),
    # A hook can fail an agent, except where nothing can follow.
    *((state, FAILED) for state in (INITIALIZED, READY, DEGRADED)),
    *((state, SHUTDOWN) for state in AgentState if state is not SHUTDOWN),
}


def run(agent, task=1):
    return agent.run(task, AgentContext(agent.name))


class TestTransitions:
    @pytest.mark.parametrize(("old", "new"), list(itertools.product(AgentState, AgentState)), ids=str)
    def test_an_agent_moves_along_the_arrows_and_nowhere_else(self, old, new):
        if (old, new) in ARROWS:
            check_transition("a", old, new)
        else:
            with pytest.raises(IllegalTransition, match=f"'a' cannot go from {old} to {new}"):
                check_transition("a", old, new)

    def test_every_state_has_its_arrows(self):
        assert set(TRANSITIONS) == set(AgentState)

    def test_a_refusal_says_where_it_can_go(self):
        with pytest.raises(IllegalTransition, match=r"can go to ready, shutdown; call reset\(\) first"):
            check_transition("a", FAILED, PROCESSING)
        with pytest.raises(IllegalTransition, match="shutdown is the end, make a new agent"):
            check_transition("a", SHUTDOWN, READY)


class Hooked(BaseAgent[int, int]):
    def __init__(self, *args, broken=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.calls, self.broken = [], broken

    def _called(self, state, previous, reason):
        self.calls.append((state, str(previous), reason))
        if state in self.broken:
            raise ValueError(f"hook {state} is broken")

    def on_ready(self, previous, reason):
        self._called("ready", previous, reason)

    def on_processing(self, previous, reason):
        self._called("processing", previous, reason)

    def on_degraded(self, previous, reason):
        self._called("degraded", previous, reason)

    def on_failed(self, previous, reason):
        self._called("failed", previous, reason)

    def on_shutdown(self, previous, reason):
        self._called("shutdown", previous, reason)

    def process(self, task, ctx):
        if task < 0:
            raise OSError("negative")
        if task == 0:
            ctx.degrade("nothing to do")
        return task


class TestHooks:
    def test_each_state_calls_its_hook_with_the_state_before_and_the_reason(self):
        agent = Hooked()
        run(agent, 1)
        run(agent, 0)
        with pytest.raises(OSError, match="negative"):
            run(agent, -1)
        agent.reset("repaired")
        agent.shutdown("end")
        assert agent.calls == [
            ("ready", "initialized", "configured"),
            ("processing", "ready", ""),
            ("ready", "processing", ""),
            ("processing", "ready", ""),
            ("degraded", "processing", "nothing to do"),
            ("processing", "degraded", ""),
            ("failed", "processing", "OSError: negative"),
            ("ready", "failed", "repaired"),
            ("shutdown", "ready", "end"),
        ]

    def test_a_hook_sees_the_state_that_it_is_called_for(self):
        class Looking(Hooked):
            def on_processing(self, previous, reason):
                self.calls.append(self.state)

        agent = Looking()
        run(agent)
        assert PROCESSING in agent.calls

    @pytest.mark.parametrize("broken", ["ready", "processing"])
    def test_a_hook_that_raises_fails_the_agent(self, broken):
        agent = Hooked(broken=[broken])
        with pytest.raises(ValueError, match=f"hook {broken} is broken"):
            run(agent)
        assert agent.state is FAILED
        assert agent.get_status().reason == f"hook on_{broken}: ValueError: hook {broken} is broken"
        assert agent.calls[-1][0] == "failed"

    def test_a_hook_that_raises_after_degraded_work_fails_the_agent(self):
        agent = Hooked(broken=["degraded"])
        with pytest.raises(ValueError, match="hook degraded is broken"):
            run(agent, 0)
        assert agent.state is FAILED

    def test_a_failing_on_failed_hides_nothing(self, caplog):
        agent = Hooked(broken=["failed"])
        with pytest.raises(OSError, match="negative"):
            run(agent, -1)
        assert agent.state is FAILED
        assert "hook on_failed of agent 'Hooked' failed" in caplog.text

    def test_a_failing_on_shutdown_does_not_keep_the_agent_alive(self, caplog):
        agent = Hooked(broken=["shutdown"])
        agent.shutdown()
        agent.shutdown()
        assert agent.state is SHUTDOWN
        assert [call[0] for call in agent.calls] == ["shutdown"]
        assert "hook on_shutdown of agent 'Hooked' failed" in caplog.text
