"""Asking people, and others if they do not answer in time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, Param
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.workflows.members import some
from airflow_agentic.workflows.workflow import Workflow, grouped

if TYPE_CHECKING:
    from airflow.sdk import XComArg
    from airflow.sdk.definitions.context import Context
    from airflow.sdk.execution_time.hitl import HITLUser

_NOBODY = "answered"


@dataclass(frozen=True)
class Ask:
    """Whom to ask, and how long they have.

    Attributes:
        users: Ids of Airflow's users who may answer: one person, or all of a group. Empty: everybody who may.
        within: How long they have; ``None`` for ever.
        notifiers: What tells them (a mail, a chat message): any notifier of Airflow.
    """

    users: Sequence[str] = ()
    within: timedelta | None = None
    notifiers: Sequence[BaseNotifier] = ()


def await_human(
    group_id: str,
    question: str | Sequence[str],
    *,
    ask: Sequence[Ask] = (Ask(),),
    body: str | None = None,
    options: Sequence[str] = ("OK",),
    params: Mapping[str, Param] | None = None,
    default: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Workflow:
    """Ask a person; if nobody answers in time, ask the next.

    While people think, no worker, slot or trigger is held: each question is a task on Airflow's page of required actions.
    Several questions are asked one after the other.

    Args:
        group_id: Name of the task group.
        question: What to ask: a text or a template; or several.
        ask: Whom, in order. All but the last must have a time.
        body: More about it, as Markdown; a template.
        options: What can be chosen.
        params: Fields of the form, as DAG params: ``{"reason": Param("", type="string")}``.
        default: The answer if nobody gives one; default: the task fails then.
        arguments: As for any ``TaskGroup``.

    Returns:
        The task group; its output is ``{"chosen": [option, …], "given": {field: value}, "by": user, "asked": number}``;
        ``asked`` says how many were asked until somebody answered, ``by`` is ``None`` for a default. Of several questions it
        is a list.

    Raises:
        ConfigurationError: There is no question, option or person, or somebody who is not the last has no deadline.
    """
    questions = [question] if isinstance(question, str) else list(question)
    _check(group_id, questions, ask, options)
    form = {"body": body, "options": list(options), "params": dict(params or {})}
    with grouped(group_id, **arguments) as group:
        answers: list[AnswerOperator] = []
        for index, text in enumerate(questions):
            number = f"_{index + 1}" if len(questions) > 1 else ""
            answer = _asked(text, number, ask, form, default)
            if answers:
                answers[-1] >> answer.first
            answers.append(answer)
        output = answers[-1].output
        if len(answers) > 1:
            output = AnswersOperator(task_id="answers", answers=[each.output for each in answers]).output
    return group.ending_in(output)


def _check(group_id: str, questions: list[str], ask: Sequence[Ask], options: Sequence[str]) -> None:
    some(questions, "questions", group_id)
    some(ask, "people to ask", group_id)
    some(options, "options", group_id)
    for index, stage in enumerate(ask):
        if isinstance(stage.users, str):
            raise ConfigurationError(f"workflow {group_id!r}: users must be a list, as in [{stage.users!r}]")
        if stage.within is not None and stage.within <= timedelta(0):
            raise ConfigurationError(
                f"workflow {group_id!r}: within={stage.within}: give some time to answer"
            )
        if stage.within is None and index < len(ask) - 1:
            raise ConfigurationError(
                f"workflow {group_id!r}: ask[{index}] has no within=, so that those after it would never be asked"
            )


def _asked(
    question: str,
    number: str,
    ask: Sequence[Ask],
    form: Mapping[str, Any],
    default: Mapping[str, Any] | None,
) -> AnswerOperator:
    stages: list[AskOperator] = []
    for index, stage in enumerate(ask):
        users: list[HITLUser] = [{"id": user, "name": user} for user in stage.users]
        asking = AskOperator(
            task_id=f"{'ask' if not index else f'escalate_{index}'}{number}",
            subject=question,
            assigned_users=users or None,
            notifiers=list(stage.notifiers),
            response_timeout=stage.within,
            before=None if not stages else stages[-1].output,
            **form,
        )
        stages.append(asking)
    answer = AnswerOperator(
        task_id=f"answer{number}",
        answers=[each.output for each in stages],
        default=default,
        trigger_rule="none_failed_min_one_success",
    )
    answer.first = stages[0]
    return answer


class AskOperator(HITLOperator):
    """Asks somebody, unless somebody answered before. That nobody answers in time is no failure: the next one is asked.

    Args:
        before: What came of asking those before; ``None`` for the first.
        kwargs: As for ``HITLOperator``.
    """

    template_fields: Collection[str] = (*HITLOperator.template_fields, "before")

    def __init__(self, *, before: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.before = before

    def execute(self, context: Context) -> Any:
        """Ask, and wait without a slot.

        Raises:
            AirflowSkipException: Somebody answered before.
            TaskAwaitingInput: Waiting.
        """
        if self.before is not None and self.before[_NOBODY]:
            raise AirflowSkipException("it was answered before")
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what was answered, as plain JSON."""
        if event.get("error_type") == "timeout":
            self.log.warning("nobody answered within %s", self.response_timeout)
            return {_NOBODY: False}
        found = super().execute_complete(context, event)
        by = found.get("responded_by_user")
        return {
            _NOBODY: True,
            "chosen": list(found["chosen_options"]),
            "given": dict(found["params_input"]),
            "by": by["id"] if by else None,
        }


class AnswerOperator(BaseOperator):
    """Says what was answered in the end.

    Args:
        answers: What came of asking each.
        default: The answer if there is none; ``None``: the task fails.

    Attributes:
        first: The first one who asks.
    """

    template_fields: Collection[str] = ("answers", "default")
    ui_color = "#e8f0fe"

    def __init__(
        self, *, answers: Sequence[XComArg], default: Mapping[str, Any] | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.answers: Any = list(answers)
        self.default = None if default is None else dict(default)
        self.first: Any = None

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002  # Airflow's signature
        """Return the answer.

        Raises:
            AirflowFailException: Nobody answered, and there is no default.
        """
        for number, answer in enumerate(self.answers, start=1):
            if answer is not None and answer[_NOBODY]:
                return {**{key: answer[key] for key in ("chosen", "given", "by")}, "asked": number}
        if self.default is None:
            raise AirflowFailException(f"nobody answered, of {len(self.answers)} that were asked")
        return {"chosen": [], "given": {}, **self.default, "by": None, "asked": len(self.answers)}


class AnswersOperator(BaseOperator):
    """Puts the answers to several questions into one list.

    Args:
        answers: Of each.
    """

    template_fields: Collection[str] = ("answers",)
    ui_color = "#e8f0fe"

    def __init__(self, *, answers: Sequence[XComArg], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answers: Any = list(answers)

    def execute(self, context: Context) -> list[Any]:  # noqa: ARG002  # Airflow's signature
        """Return the list."""
        return list(self.answers)
