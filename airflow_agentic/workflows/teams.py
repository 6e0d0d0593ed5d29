"""Several agents on one task, in turns: a supervisor and workers, handing over, a debate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.filters import compiled
from airflow_agentic.workflows.members import Agent, Member, placed, some
from airflow_agentic.workflows.talks import Debate, Handoffs, Supervision
from airflow_agentic.workflows.turns import Speaker, TalkOperator
from airflow_agentic.workflows.workflow import Workflow, grouped


def supervise(
    group_id: str,
    *,
    supervisor: Agent,
    workers: Sequence[Agent],
    task: Any,
    rounds: int = 10,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Let a supervisor decide who works next, until it has a result.

    The supervisor gets ``{"task", "workers", "rounds_left", "turns": [{"round", "agent", "task", "answer"}]}``, and answers
    ``{"next": NAME, "task": …}`` (without ``task`` the worker gets that of the workflow) or ``{"result": …}``. After the
    last round it is asked once more, with ``rounds_left`` 0; without a result then, the task fails.

    Args:
        group_id: Name of the task group.
        supervisor: Who decides.
        workers: Who may work. Of an agent ``config`` and ``policy`` may be said.
        task: What it is about.
        rounds: How often somebody may be sent to work.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is what the supervisor says is the result.

    Raises:
        ConfigurationError: There is no worker, one is there twice, or there are no rounds.
        UnknownAgent: There is no such agent.
    """
    some(workers, "workers", group_id)
    speakers = _speakers(group_id, [supervisor, *workers])
    names = [each.name for each in speakers]
    talk = Supervision(names[0], tuple(names[1:]), _bounded(group_id, "rounds", rounds))
    with grouped(group_id, policy, **arguments) as group:
        talking = TalkOperator(task_id="supervise", talk=talk, speakers=speakers, task=task)
    return group.ending_in(talking.output)


def handoff(
    group_id: str,
    agents: Sequence[Agent],
    *,
    task: Any,
    hops: int = 10,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Let an agent work, and hand over to another one if it says so.

    An agent hands over by answering ``{"handoff": NAME, "task": …}`` (without ``task`` the other one gets the same). Any
    other answer is the result.

    Args:
        group_id: Name of the task group.
        agents: Who may work; the first one begins. Of an agent ``config`` and ``policy`` may be said.
        task: What the first one gets.
        hops: How often it may be handed over; the task fails if it is more often.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is ``{"agent", "result", "path"}``: who had the last word, what it said, and who worked.

    Raises:
        ConfigurationError: There are less than two agents, one is there twice, or there are no hops.
        UnknownAgent: There is no such agent.
    """
    some(agents, "agents", group_id, at_least=2)
    speakers = _speakers(group_id, agents)
    talk = Handoffs(tuple(each.name for each in speakers), _bounded(group_id, "hops", hops))
    with grouped(group_id, policy, **arguments) as group:
        talking = TalkOperator(task_id="handoff", talk=talk, speakers=speakers, task=task)
    return group.ending_in(talking.output)


def debate(
    group_id: str,
    agents: Sequence[Agent],
    *,
    judge: Member,
    task: Any,
    rounds: int = 3,
    until: str | None = None,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Let agents speak in turn for some rounds, and a judge decide then.

    Each agent gets ``{"task", "round", "rounds", "turns": [{"round", "agent", "answer"}]}``: all that was said before. The
    judge gets ``{"task", "rounds", "turns"}``. The rounds are one task, of which each turn is a durable step.

    Args:
        group_id: Name of the task group.
        agents: Who speaks, in order. Of an agent ``config`` and ``policy`` may be said.
        judge: Who decides: an agent or a task.
        task: What it is about.
        rounds: How often each of them speaks.
        until: CEL condition that ends the debate after a round: ``output`` holds the answers of the round, by agent, as in
            ``output["ann"].agrees && output["ben"].agrees``.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is the judge's.

    Raises:
        ConfigurationError: There are less than two agents, one is there twice, or there are no rounds.
        InvalidFilter: ``until`` does not compile.
        UnknownAgent: There is no such agent.
    """
    some(agents, "agents", group_id, at_least=2)
    speakers = _speakers(group_id, agents)
    if until is not None:
        compiled(until, "output")
    talk = Debate(tuple(each.name for each in speakers), _bounded(group_id, "rounds", rounds), until)
    with grouped(group_id, policy, **arguments) as group:
        talking = TalkOperator(task_id="rounds", talk=talk, speakers=speakers, task=task)
        judged = placed(group, judge, talking.output, task_id="judge")
        talking >> judged.node
    return group.ending_in(judged.output)


def _speakers(group_id: str, agents: Sequence[Agent]) -> list[Speaker]:
    speakers = [Speaker.of(each) for each in agents]
    names = [each.name for each in speakers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"workflow {group_id!r}: agent {name!r} is there twice, and who is meant by its name would not be clear. "
                "Declare a second agent of the same type in the project file"
            )
    return speakers


def _bounded(group_id: str, what: str, count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"workflow {group_id!r}: {what}={count!r}: give 1 or more")
    return count
