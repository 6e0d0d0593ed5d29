"""One of several ways: by a value, by a condition, or by what an agent answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.filters import compiled
from airflow_agentic.operators.parsing import is_literal
from airflow_agentic.runtime.ports import AirflowMetrics
from airflow_agentic.workflows.members import Agent, Member, Part, placed, some
from airflow_agentic.workflows.states import CHOSEN, plain, result_of
from airflow_agentic.workflows.workflow import Workflow, grouped

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

_ROOT = "output"
_ALWAYS = "true"
_KEY = "route"


def route(
    group_id: str,
    *,
    task: Any,
    routes: Mapping[str, Member] | None = None,
    rules: Mapping[str, Member] | None = None,
    value: Any = None,
    decider: Agent | None = None,
    default: Member | None = None,
    can_miss: bool = False,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Give a task to one of several members.

    Give either ``routes`` or ``rules``. With ``routes`` a value chooses: ``value``, the answer of ``decider``, or the task
    itself. A value is a text, a number or a truth value; of a map its key ``route`` counts. With ``rules`` the first CEL
    condition that holds chooses; the task stands in it as ``output``. A rule that fails, or gives neither true nor false,
    does not hold; it is logged and counted (``agentic.workflow.rule_errors``).

    Args:
        group_id: Name of the task group.
        task: What the chosen member gets.
        routes: Value to member.
        rules: CEL condition to member, in order: ``{"output.total > 1000": "auditor"}``.
        value: What chooses among ``routes``; an output of a task or a template.
        decider: An agent that gets the task first; its answer chooses among ``routes``.
        default: Who gets the task if nothing fits.
        can_miss: Instead of a default: if nothing fits, nobody gets it, and what follows is skipped.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is that of the member that was chosen.

    Raises:
        ConfigurationError: The arguments do not go together, or something may fit no route and there is no default.
        InvalidFilter: A rule does not compile.
        UnknownAgent: There is no such agent.
    """
    ways = _checked(group_id, routes, rules, (value, decider), (default, can_miss))
    with grouped(group_id, policy, **arguments) as group:
        decided = None if decider is None else placed(group, decider, task, task_id="decide")
        chosen_by = value if decided is None and value is not None else task
        choose = ChooseRouteOperator(
            task_id="choose",
            value=chosen_by if decided is None else decided.output,
            by_rule=rules is not None,
        )
        parts: dict[str | None, Part] = {key: placed(group, member, task) for key, member in ways.items()}
        if default is not None:
            parts[None] = placed(group, default, task)
        choose.ways = {key: part.begins_with for key, part in parts.items()}
        for part in parts.values():
            _only_if_chosen(part, choose.task_id)
        result = FirstResultOperator(
            task_id="result",
            results=[part.output for part in parts.values()],
            trigger_rule="none_failed_min_one_success",
        )
        for part in parts.values():
            choose >> part.node >> result
    return group.ending_in(result.output)


def _checked(
    group_id: str,
    routes: Mapping[str, Member] | None,
    rules: Mapping[str, Member] | None,
    choosing: tuple[Any, Any],
    missing: tuple[Any, bool],
) -> Mapping[str, Member]:
    ways = routes if rules is None else rules
    if ways is None or (routes is not None and rules is not None):
        raise ConfigurationError(
            f"workflow {group_id!r}: give either routes= (by value) or rules= (by condition)"
        )
    some(ways, "routes" if rules is None else "rules", group_id)
    value, decider = choosing
    if rules is not None and (value is not None or decider is not None):
        raise ConfigurationError(
            f"workflow {group_id!r}: value= and decider= go with routes=; rules look at the task"
        )
    if value is not None and decider is not None:
        raise ConfigurationError(f"workflow {group_id!r}: either value= chooses, or decider= does")
    for rule in rules or ():
        compiled(rule, _ROOT)
    default, can_miss = missing
    can_never_miss = rules is not None and any(rule.strip() == _ALWAYS for rule in rules)
    if default is not None and can_miss:
        raise ConfigurationError(
            f"workflow {group_id!r}: with default= nothing can be missed; leave can_miss out"
        )
    if default is None and not can_miss and not can_never_miss:
        raise ConfigurationError(
            f"workflow {group_id!r}: what fits no route would be lost. Give default= (who gets it), or can_miss=True "
            "(nobody does, and what follows is skipped)"
        )
    if (
        value is not None
        and is_literal(value)
        and not isinstance(value, Mapping)
        and _text(value) not in ways
    ):
        raise ConfigurationError(
            f"workflow {group_id!r}: the value {value!r} is written in the DAG and fits no route. "
            f"{did_you_mean(_text(value), ways) or ''}".strip()
        )
    return ways


def _only_if_chosen(part: Part, choose: str) -> None:
    """Let a way look for itself whether it was chosen: Airflow 3.3.2 skips nothing after a branch of a mapped task group."""
    for root in part.node.roots:
        if isinstance(root, BaseOperator):
            root._pre_execute_hook = functools.partial(  # noqa: SLF001  # its argument `pre_execute`
                _skip_others,
                part.begins_with,
                choose,
                root._pre_execute_hook,  # noqa: SLF001
            )


def _skip_others(way: str, choose: str, before: Callable[[Context], None] | None, context: Context) -> None:
    if result_of(context, choose, CHOSEN) != way:
        raise AirflowSkipException("another way was chosen")
    if before is not None:
        before(context)


class ChooseRouteOperator(BaseBranchOperator):
    """Says which way it goes; the other ways are skipped.

    Args:
        value: What chooses.
        by_rule: Whether the ways are CEL conditions on it.

    Attributes:
        ways: Value or rule to id of the task, or task group, that begins the way; ``None`` to the default.
    """

    template_fields: Collection[str] = ("value",)
    ui_color = "#fef7e0"

    def __init__(self, *, value: Any, by_rule: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = value
        self.by_rule = by_rule
        self.ways: dict[str | None, str] = {}

    def choose_branch(self, context: Context) -> str | None:
        """Return where it goes; ``None`` if nothing fits and there is no default."""
        value = plain(self.value)
        if self.by_rule:
            found = next((rule for rule in self.ways if rule is not None and self._holds(rule, value)), None)
        else:
            text = _text(value)
            found = text if text in self.ways else None
            if found is None:
                self.log.warning("%.200r fits none of the routes", value)
        self.log.info("chosen: %s", "the default" if found is None else found)
        way = self.ways.get(found)
        context["ti"].xcom_push(CHOSEN, way)
        return way

    def _holds(self, rule: str, value: Any) -> bool:
        holds, error = compiled(rule, _ROOT).matches(value)
        if error is not None:
            self.log.warning("the rule %r does not hold, since it failed: %s", rule, error)
            AirflowMetrics().count("workflow.rule_errors", tags={"task": self.task_id})
        return holds


class FirstResultOperator(BaseOperator):
    """Returns the one result that there is.

    Args:
        results: Those of several tasks, of which one ran.
    """

    template_fields: Collection[str] = ("results",)
    ui_color = "#e8f0fe"

    def __init__(self, *, results: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.results = results

    def execute(self, context: Context) -> Any:  # noqa: ARG002  # Airflow's signature
        """Return it; ``None`` if the task that ran made none."""
        return next((plain(each) for each in self.results if each is not None), None)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get(_KEY)
    return str(value).lower() if isinstance(value, bool) else str(value)
