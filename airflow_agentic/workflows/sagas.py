"""Steps that are taken back, in reverse, if a later one fails."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.workflows.members import Agent, Member, Part, placed, some
from airflow_agentic.workflows.states import CHOSEN, FAILED, plain, result_of, states_of
from airflow_agentic.workflows.talks import OneTurn
from airflow_agentic.workflows.turns import Speaker, TalkOperator
from airflow_agentic.workflows.workflow import Workflow, grouped

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class _Compensation(Enum):
    NONE = "none"


NO_COMPENSATION = _Compensation.NONE
"""Says of a step that there is nothing to take back."""


@dataclass(frozen=True)
class Step:
    """A step of a saga.

    Attributes:
        does: Who does it.
        compensation: The agent that takes it back, and gets its result; or :data:`NO_COMPENSATION`. The last step needs
            none: nothing that could fail comes after it.
    """

    does: Member
    compensation: Agent | _Compensation | None = None


def saga(
    group_id: str,
    steps: Sequence[Step],
    *,
    task: Any = None,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Let agents work one after the other; if one fails, what the others did is taken back in reverse.

    Each gets the result of the one before it. If a step fails (all its retries are spent), exactly the steps that were
    finished are compensated, the last one first; the one that failed is not. A compensation is a durable step: once it is
    done it is not done again, however often its task is tried. If a compensation fails, those of earlier steps wait until it
    was mended and cleared: order is kept. In the end the task ``outcome`` succeeds with the last step's result, or fails and
    says what failed and what was taken back.

    Args:
        group_id: Name of the task group.
        steps: In order.
        task: What the first one gets.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is the last step's.

    Raises:
        ConfigurationError: There are less than two steps, or one says nothing about its compensation.
        UnknownAgent: There is no such agent.
    """
    some(steps, "steps", group_id, at_least=2)
    undoing = _compensations(group_id, steps)
    with grouped(group_id, policy, **arguments) as group:
        parts: list[Part] = []
        for step in steps:
            parts.append(placed(group, step.does, parts[-1].output if parts else task))
            if len(parts) > 1:
                parts[-2].node >> parts[-1].node
        ids = [part.ends_with for part in parts]
        undo = UndoOperator(task_id="undo", steps=ids, trigger_rule="all_done")
        outcome = OutcomeOperator(
            task_id="outcome", steps=ids, result=parts[-1].output, trigger_rule="all_done"
        )
        parts[-1].node >> undo
        before: BaseOperator | None = None
        for part, speaker in reversed(list(zip(parts, undoing, strict=True))):
            if speaker is None:
                continue
            takes_back = CompensateOperator(
                task_id=f"undo_{part.name}",
                talk=OneTurn(speaker.name),
                speakers=[speaker],
                step=part.ends_with,
                chosen_by=undo.task_id,
                trigger_rule="none_failed",
            )
            undo >> takes_back >> outcome
            if before is not None:
                before >> takes_back
            undo.ways[part.ends_with] = outcome.compensations[part.ends_with] = takes_back.task_id
            before = takes_back
    return group.ending_in(outcome.output)


def _compensations(group_id: str, steps: Sequence[Step]) -> list[Speaker | None]:
    found: list[Speaker | None] = []
    for index, step in enumerate(steps):
        if not isinstance(step, Step):
            raise ConfigurationError(
                f"workflow {group_id!r}: step {index + 1} must be a Step(who, compensation), not {step!r:.100}"
            )
        is_last = index == len(steps) - 1
        if is_last and not (step.compensation is None or isinstance(step.compensation, _Compensation)):
            raise ConfigurationError(
                f"workflow {group_id!r}: the last step has a compensation, and nothing that could fail comes after it. Leave "
                "it out, or make what comes after it a step"
            )
        if step.compensation is None and not is_last:
            raise ConfigurationError(
                f"workflow {group_id!r}: step {index + 1} has no compensation. Say who takes it back: Step(who, "
                "compensation), or that nothing needs to be: Step(who, NO_COMPENSATION)"
            )
        none = step.compensation is None or isinstance(step.compensation, _Compensation)
        found.append(None if none else Speaker.of(step.compensation))  # type: ignore[arg-type]
    if not any(found):
        raise ConfigurationError(
            f"workflow {group_id!r}: no step has a compensation: that is a sequence, and no saga"
        )
    return found


class UndoOperator(BaseBranchOperator):
    """Says which compensations are needed: those of finished steps, if a step failed.

    Args:
        steps: Ids of the tasks that say how each step went.

    Attributes:
        ways: Such an id to that of the compensation.
    """

    ui_color = "#fef7e0"

    def __init__(self, *, steps: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = list(steps)
        self.ways: dict[str, str] = {}

    def choose_branch(self, context: Context) -> list[str]:
        """Return the ids of the compensations."""
        states = states_of(context, self.steps)
        failed = any(state in FAILED for state in states.values())
        needed = [way for step, way in self.ways.items() if failed and states[step] == "success"]
        context["ti"].xcom_push(CHOSEN, needed)
        return needed


class CompensateOperator(TalkOperator):
    """Takes back what a step did, once. The agent gets the step's result.

    Args:
        step: Id of the task that has it. No dependency: the step may have failed, and then this is skipped, not failed.
        chosen_by: Id of the task that says which compensations are needed. Airflow skips the others, but in a mapped task
            group (3.3.2), where they must look for themselves.
        kwargs: As for :class:`TalkOperator`.
    """

    ui_color = "#fce8e6"

    def __init__(self, *, step: str, chosen_by: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.chosen_by = chosen_by

    def execute(self, context: Context) -> Any:
        """Take it back.

        Raises:
            AirflowSkipException: It is not needed.
        """
        if self.task_id not in result_of(context, self.chosen_by, CHOSEN):
            raise AirflowSkipException("there is nothing to take back")
        self.task = result_of(context, self.step)
        return super().execute(context)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after a guard refused."""
        self.task = result_of(context, self.step)
        return super().resume(context, event)


class OutcomeOperator(BaseOperator):
    """Says how a saga went.

    Args:
        steps: Ids of the tasks that say how each step went.
        result: Of the last one.

    Attributes:
        compensations: Such an id to that of its compensation.
    """

    template_fields: Collection[str] = ("result",)
    ui_color = "#e8f0fe"

    def __init__(self, *, steps: Sequence[str], result: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = list(steps)
        self.result = result
        self.compensations: dict[str, str] = {}

    def execute(self, context: Context) -> Any:
        """Return the last step's result.

        Raises:
            AirflowFailException: A step failed.
            AirflowSkipException: The saga was skipped.
        """
        states = states_of(context, [*self.steps, *self.compensations.values()])
        failed = [step for step in self.steps if states[step] in FAILED]
        if not failed and states[self.steps[-1]] == "success":
            return plain(self.result)
        if not failed:
            raise AirflowSkipException("a step was skipped")
        undone = [way for way in self.compensations.values() if states[way] == "success"]
        left = [way for way in self.compensations.values() if states[way] in FAILED]
        text = f"the saga failed at {failed[0]}; taken back: {', '.join(undone) or 'nothing'}"
        if left:
            text += f"; NOT taken back, since these failed: {', '.join(left)}. Mend the cause, and clear them"
        raise AirflowFailException(text)
