"""What every pattern returns: a task group with an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs
from airflow.sdk import TaskGroup, XComArg

from airflow_agentic import runtime
from airflow_agentic.config.policies import Policy


@attrs.define(repr=False)
class Workflow(TaskGroup):
    """A task group that a pattern made. All that goes for task groups goes for it: ``>>``, labels, mapping, teardowns.

    Its last task is the only one that nothing in it follows: it says how the whole went.
    """

    _result: XComArg | None = attrs.field(default=None, init=False)

    def __enter__(self) -> Self:
        """Let what is made now belong to it."""
        super().__enter__()
        return self

    @property
    def output(self) -> XComArg:
        """The result, for the tasks that follow; see the pattern for what it is."""
        assert self._result is not None
        return self._result

    def ending_in(self, output: XComArg) -> Workflow:
        """Say what the result is; return itself."""
        self._result = output
        return self


def grouped(
    group_id: str,
    policy: str | Policy | None = None,
    persistence: str | None = None,
    default_args: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Workflow:
    """Begin the task group of a pattern.

    Args:
        group_id: Its name; names of its tasks begin with it.
        policy: How all agents in it are guarded that say nothing else.
        persistence: How durable runs in it are kept, those of its agents and of their turns.
        default_args: Arguments of all operators in it.
        arguments: As for any ``TaskGroup``.

    Raises:
        ConfigurationError: There is no such policy.
    """
    if policy is not None:
        runtime.policy(policy)
    said = {key: each for key, each in (("policy", policy), ("persistence", persistence)) if each is not None}
    given: dict[str, Any] = {"default_args": {**said, **(default_args or {})}, **arguments}
    return Workflow(group_id=group_id, **given)
