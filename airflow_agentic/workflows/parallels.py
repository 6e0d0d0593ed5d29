"""Side by side, and how many must succeed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException

from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.workflows.members import Member, Part, placed, some
from airflow_agentic.workflows.states import FAILED, plain, states_of
from airflow_agentic.workflows.workflow import Workflow, grouped

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

_LOOK_AGAIN = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=1)


def parallel(
    group_id: str,
    members: Sequence[Member],
    *,
    task: Any = None,
    quorum: int | None = None,
    fail_fast: bool = False,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Let agents work side by side on one task, and gather what they made.

    Args:
        group_id: Name of the task group.
        members: Agents or tasks. An agent whose map has a ``task`` gets that instead.
        task: What each of them gets.
        quorum: How many must succeed. Default: all.
        fail_fast: Go on, or fail, as soon as it is clear which, and do not wait for the others: those that work end by
            themselves. By default all are waited for.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is a map of name to result, of those that succeeded.

    Raises:
        ConfigurationError: There is no member, or the quorum is not between 1 and their number.
        UnknownAgent: There is no such agent.
    """
    some(members, "members", group_id)
    needed = len(members) if quorum is None else quorum
    if not 1 <= needed <= len(members):
        raise ConfigurationError(
            f"workflow {group_id!r}: quorum={needed}, and there are {len(members)} members: give 1 to {len(members)}"
        )
    with grouped(group_id, policy, **arguments) as group:
        parts = [placed(group, member, task) for member in members]
        gathered = GatherOperator(
            task_id="gather",
            branches={part.name: part.ends_with for part in parts},
            results={part.name: part.output for part in parts},
            quorum=needed,
            trigger_rule=_rule(fail_fast, needed, parts),
        )
        for part in parts:
            part.node >> gathered
    return group.ending_in(gathered.output)


def _rule(fail_fast: bool, needed: int, parts: Sequence[Part]) -> str:
    if not fail_fast:
        return "all_done"
    # Airflow itself fails a task at the first failure before it, if all must succeed.
    return "all_success" if needed == len(parts) else "one_done"


class GatherOperator(BaseOperator):
    """Puts the results of branches together, if enough of them succeeded.

    Where it may begin before all branches are over (trigger rule ``one_done``), it looks again until it is clear how they
    end, and holds no worker slot in the meantime.

    Args:
        branches: Name to id of the task that says how the branch went.
        results: Name to result.
        quorum: How many must succeed.
    """

    template_fields: Collection[str] = ("results",)
    ui_color = "#e8f0fe"
    look_again: ClassVar[timedelta] = _LOOK_AGAIN

    def __init__(
        self, *, branches: Mapping[str, str], results: Mapping[str, Any], quorum: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.branches = dict(branches)
        self.results = dict(results)
        self.quorum = quorum

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the results by name.

        Raises:
            AirflowFailException: Too few succeeded.
            AirflowSkipException: The branches were skipped.
            AirflowRescheduleException: It is not clear yet.
        """
        states = states_of(context, self.branches.values())
        good = [name for name, task_id in self.branches.items() if states[task_id] == "success"]
        if len(good) >= self.quorum:
            return {name: plain(self.results[name]) for name in good}
        bad = [name for name, task_id in self.branches.items() if states[task_id] in FAILED]
        skipped = [name for name, task_id in self.branches.items() if states[task_id] == "skipped"]
        pending = len(self.branches) - len(good) - len(bad) - len(skipped)
        if len(good) + pending >= self.quorum:
            self.log.info("%d of %d succeeded so far, and %d are needed", len(good), len(states), self.quorum)
            raise AirflowRescheduleException(self._later(context))
        if not bad:
            raise AirflowSkipException(f"skipped: {', '.join(skipped)}")
        raise AirflowFailException(
            f"{len(good)} of {len(self.branches)} succeeded, and {self.quorum} are needed; failed: {', '.join(bad)}"
        )

    def _later(self, context: Context) -> datetime:
        """Return when to look again: soon at first, less often the longer it takes."""
        now = datetime.now(UTC)
        ti: Any = context["ti"]
        began = ti.get_first_reschedule_date(context)
        waited = timedelta(0) if began is None else now - began
        return now + min(max(self.look_again, waited / 10), _LONGEST_PAUSE)
