"""What can be checked when a DAG is parsed, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol, get_args

from airflow_agentic import runtime
from airflow_agentic.agents.http import HttpAgent
from airflow_agentic.agents.registry import AgentDefinition, as_definition, registry
from airflow_agentic.config.model import Persistence
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.message import Message
from airflow_agentic.persistence.naming import check_key


class AgentArguments(Protocol):
    """What a ``RunAgentOperator`` was given."""

    task_id: str
    agent: str
    task: Any
    mailbox: str | None
    gather: bool
    inbox: bool
    config: Any
    policy: Any
    deferrable: bool
    persistence: str | None
    run_key: str | None

    def chosen(self) -> AgentDefinition | None:
        """Return the implementation that was chosen in the DAG; ``None`` if it was named only."""
        ...


def is_literal(value: Any) -> bool:
    """Whether a value is what the task will see: no template in it, and nothing that Airflow fills in later."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, dict):
        return all(is_literal(key) and is_literal(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_literal(item) for item in value)
    return not hasattr(value, "resolve")


def duration(value: timedelta | float | str | None) -> timedelta | None:
    """Return a duration that was given as such or in seconds; a template gives a string."""
    if value is None or isinstance(value, timedelta):
        return value
    return timedelta(seconds=float(value))


def check_message(address: Mapping[str, Any], **values: Any) -> None:
    """Refuse what makes no message; what is filled in later is checked then.

    Args:
        address: Recipient, topic or audience, and what else depends on the operator.
        values: The other fields of the message.

    Raises:
        InvalidMessage: A literal value breaks a rule, or there is no address.
    """
    said = {key: value for key, value in {**address, **values}.items() if value is not None}
    known = {key: value for key, value in said.items() if is_literal(value)}
    if not {"recipient", "topic", "audience"} & set(known) and said.keys() & {
        "recipient",
        "topic",
        "audience",
    }:
        known["recipient"] = "parsing"
    Message(**{"source": "parsing", **known})


def registered_name(agent: Any) -> Any:
    """Register a definition or class, and return its name; a mapped or templated argument is left alone."""
    if not isinstance(agent, AgentDefinition | type):
        return agent
    definition = as_definition(agent)
    registry.register(definition)
    return definition.name


def check_agent_arguments(operator: AgentArguments) -> None:
    """Refuse arguments of a ``RunAgentOperator`` that cannot work; those that are filled in later pass.

    Raises:
        UnknownAgent: No agent of that name is declared or registered.
        ProjectInvalid: The project configuration cannot be used.
        ConfigurationError: The arguments do not go together, or the configuration does not fit.
        InvalidTask: The literal task does not fit.
    """
    if operator.task is not None and operator.mailbox is not None:
        raise ConfigurationError(f"task {operator.task_id!r}: give task= or mailbox=, not both")
    if operator.gather and operator.mailbox is None:
        raise ConfigurationError(f"task {operator.task_id!r}: gather=True needs mailbox=")
    if operator.inbox and (operator.mailbox is None or operator.gather):
        raise ConfigurationError(f"task {operator.task_id!r}: inbox=True needs mailbox=, and no gather=True")
    if operator.deferrable and operator.mailbox is not None:
        raise ConfigurationError(
            f"task {operator.task_id!r}: deferrable=True is for task=; a mailbox task defers by itself"
        )
    check_persistence(operator)
    check_run_key(operator)
    if operator.policy is not None:
        runtime.policy(operator.policy)
    if not is_literal(operator.agent):
        return
    literal = is_literal(operator.config)
    plan = runtime.plan(operator.agent, operator.config if literal else None, operator.chosen())
    plan.definition.check()
    if operator.deferrable:
        _check_deferrable(operator.task_id, plan.definition)
    if literal:
        plan.definition.check_config(plan.config)
        if operator.task is not None and is_literal(operator.task):
            plan.definition.contract().task(operator.task)


def check_persistence(operator: AgentArguments) -> None:
    """Refuse a persistence that there is not, or that the work cannot have.

    Raises:
        ConfigurationError: It is so.
    """
    said = operator.persistence
    check_mode(operator.task_id, said)
    if operator.deferrable and said not in (None, "off"):
        raise ConfigurationError(
            f"task {operator.task_id!r}: with deferrable=True the agent works in the triggerer, and has no durable run; "
            "leave persistence= out"
        )


def check_mode(task_id: str, persistence: str | None) -> None:
    """Refuse a persistence that there is not.

    Raises:
        ConfigurationError: It is so.
    """
    known = get_args(Persistence)
    if persistence is not None and persistence not in known:
        hint = did_you_mean(persistence, known) or f"there are: {', '.join(known)}"
        raise ConfigurationError(f"task {task_id!r}: there is no persistence {persistence!r} ({hint})")


def check_run_key(operator: AgentArguments) -> None:
    """Refuse the key of a durable run where the work has none, or many.

    Raises:
        ConfigurationError: It is so, or it cannot be a key.
    """
    if operator.run_key is None:
        return
    if operator.mailbox is not None:
        raise ConfigurationError(
            f"task {operator.task_id!r}: run_key= is for task=; each message of a mailbox has a run of its own"
        )
    if operator.deferrable or operator.persistence == "off":
        why = "deferrable=True" if operator.deferrable else "persistence='off'"
        raise ConfigurationError(
            f"task {operator.task_id!r}: with {why} there is no durable run; leave run_key= out"
        )
    if operator.run_key and is_literal(operator.run_key):
        check_key(operator.run_key)


def check_mapped_run_key(run_key: Any) -> None:
    """Refuse one key for all of the tasks that are mapped.

    Raises:
        ConfigurationError: It is so.
    """
    if run_key and is_literal(run_key):
        raise ConfigurationError(
            f"all mapped tasks would work on one run: expand run_key=, or say which it is: {run_key}-{{{{ ti.map_index }}}}"
        )


def _check_deferrable(task_id: str, definition: AgentDefinition) -> None:
    target = definition.target
    if not (isinstance(target, type) and issubclass(target, HttpAgent)):
        raise ConfigurationError(
            f"task {task_id!r}: deferrable=True needs an HttpAgent, not {definition.name!r}"
        )
    if target.__module__.startswith("unusual_prefix_"):
        raise ConfigurationError(
            f"task {task_id!r}: deferrable=True needs an agent that the triggerer can import; "
            f"move {target.__qualname__} out of the DAG file into a module"
        )
