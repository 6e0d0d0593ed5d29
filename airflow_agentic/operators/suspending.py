"""What a task does whose durable run waits: for a time, a message, a person. It holds no slot meanwhile."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_agentic.config.masking import mask_text
from airflow_agentic.errors import AlreadyAnswered, AmbiguousStep, ConfigurationError, InvalidAnswer
from airflow_agentic.operators.answers import Fields
from airflow_agentic.persistence import AwaitingMessage, Interrupted, RunSuspended, Sleeping
from airflow_agentic.triggers.messaging import MailboxTrigger
from airflow_agentic.triggers.persistence import RunTrigger
from airflow_agentic.triggers.resilience import AdmissionTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.persistence import Runs
    from airflow_agentic.stores import Store

_log = logging.getLogger(__name__)

QUESTION_XCOM_KEY = "agentic_question"
"""Key of the XCom that says which question of a try stands on Airflow's page: there is room for one."""

ANSWER, RETRY, SKIP = "Answer", "Retry", "Skip"

Waiting = RunSuspended | AmbiguousStep


class Pause:
    """A durable run that waits, and the task that waits with it.

    Args:
        held: What the run said.
        store: Where it is, open.
    """

    def __init__(self, held: Waiting, store: Store) -> None:
        self.held = held
        needs_person = not isinstance(held, Sleeping | AwaitingMessage)
        # Before anybody can have answered: only the run's own end of this go is waited for.
        self._version = store.runs.find(held.key).version if needs_person else 0

    def wait(
        self, operator: BaseOperator, context: Context, kwargs: dict[str, Any], conn_id: str | None
    ) -> NoReturn:
        """Let the task wait; the operator goes on with ``resume``, or with ``settled`` after a person answered.

        Args:
            operator: Whose task.
            context: Airflow's.
            kwargs: What ``resume`` is called with.
            conn_id: The store; see ``AgenticHook``.

        Raises:
            TaskDeferred: Waiting.
            TaskAwaitingInput: Waiting for a person.
        """
        held = self.held
        operator.log.info("%s; the task waits without a slot", held)
        trigger: AdmissionTrigger | MailboxTrigger | RunTrigger
        if isinstance(held, Sleeping):
            trigger = AdmissionTrigger(held.until.isoformat(), None, conn_id)
        elif isinstance(held, AwaitingMessage):
            until = held.deadline.isoformat() if held.deadline else None
            trigger = MailboxTrigger(held.mailbox, "message", conn_id, until)
        else:
            self._ask(context)
            if isinstance(held, Interrupted):
                operator.log.info(
                    "the page of required actions shows another question of this try: `airflow agentic runs answer --help`"
                )
            deadline = held.deadline if isinstance(held, Interrupted) else None
            trigger = RunTrigger(held.key, self._version, deadline.isoformat() if deadline else None, conn_id)
        operator.defer(trigger=trigger, method_name="resume", kwargs=kwargs)
        raise AssertionError("defer() raises")

    def _ask(self, context: Context) -> None:
        """Park the task with the question on Airflow's page, if the page has room for it.

        It shows one question a try, whatever is asked later: any other one is answered elsewhere.
        """
        from airflow.sdk.exceptions import TaskAwaitingInput
        from airflow.sdk.execution_time.hitl import upsert_hitl_detail

        held, ti = self.held, context["ti"]
        name = f"{held.key} {held.name if isinstance(held, RunSuspended) else held.step}"
        own = f"{ti.map_index} "
        # Asked for one that is not there yet, Airflow logs an error; for all that a task has, mapped or not, it does not.
        found = ti.xcom_pull(task_ids=ti.task_id, key=QUESTION_XCOM_KEY) or []
        shown = next(
            (each for each in ([found] if isinstance(found, str) else found) if each.startswith(own)), None
        )
        if shown not in (None, own + name):
            return
        ti.xcom_push(QUESTION_XCOM_KEY, own + name)
        upsert_hitl_detail(ti_id=ti.id, **asked(held))
        deadline = held.deadline if isinstance(held, Interrupted) else None
        lasts = None if deadline is None else max(timedelta(seconds=1), deadline - datetime.now(UTC))
        raise TaskAwaitingInput(method_name="settled", kwargs={"about": described(held)}, timeout=lasts)


def asked(held: Waiting) -> dict[str, Any]:
    """Return a question as Airflow shows it."""
    if isinstance(held, Interrupted):
        return {
            "options": [ANSWER],
            "subject": held.question,
            "body": f"{_shown(held.details)}Run `{held.key}` waits for the answer.",
            "params": Fields(held.schema).form(),
        }
    assert isinstance(held, AmbiguousStep)
    fields = {"type": "object", "properties": {"result": {"type": "string", "title": "Result, if skipped"}}}
    return {
        "options": [RETRY, SKIP],
        "subject": f"Did step {held.step!r} take place?",
        "body": f"Run `{held.key}` died while it was in step `{held.step}`, and nobody knows whether its effect took place. "
        f"**{RETRY}**: it did not, do it again. **{SKIP}**: it did, go on; its result, as JSON, can be given below.",
        "params": Fields(fields).form(),
    }


def described(held: Waiting) -> dict[str, Any]:
    """Return what must be known to settle it, as plain JSON."""
    if isinstance(held, Interrupted):
        return {
            "run": held.key,
            "question": held.name,
            "text": held.question,
            "schema": dict(held.schema) if held.schema else None,
            "deadline": held.deadline.isoformat() if held.deadline else None,
            "details": held.details,
        }
    assert isinstance(held, AmbiguousStep)
    return {"run": held.key, "step": held.step}


def settle(runs: Runs, about: Mapping[str, Any], event: Mapping[str, Any]) -> str | None:
    """Record what a person answered.

    Args:
        runs: Those of the store.
        about: From :func:`described`.
        event: What Airflow tells.

    Returns:
        Why the answer cannot be taken, or ``None``: it is recorded, or the time was over, or somebody had settled it
        elsewhere.
    """
    if "error" in event:
        return None  # The time is over: the run knows by itself.
    key, actor = str(about["run"]), _actor(event)
    params = event.get("params_input") or {}
    if "question" in about:
        try:
            runs.by_hand.answer(key, about["question"], Fields(about["schema"]).answer(params), actor=actor)
        except InvalidAnswer as error:
            return str(error)
        except AlreadyAnswered as settled:
            _log.info("%s", settled)
        return None
    reason = "answered on the page of required actions"
    try:
        if event.get("chosen_options") == [SKIP]:
            result = _json(params.get("result"))
            runs.by_hand.skip_step(key, about["step"], actor=actor, reason=reason, result=result)
        else:
            runs.by_hand.retry_step(key, about["step"], actor=actor, reason=reason)
    except ConfigurationError:
        pass  # Somebody settled it elsewhere.
    return None


def asked_again(about: Mapping[str, Any]) -> Waiting:
    """Return the question of an answer that cannot be taken."""
    until = datetime.fromisoformat(about["deadline"]) if about["deadline"] else None
    # A task that an older version parked knows of no details.
    details = about.get("details", "")
    return Interrupted(about["run"], about["question"], about["text"], about["schema"], until, details)


def _shown(details: str) -> str:
    """Return details as a paragraph of Airflow's page: its database keeps no NUL, and a log may have passwords."""
    return f"{mask_text(details.replace(chr(0), ' '))}\n\n" if details else ""


def _actor(event: Mapping[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")


def _json(text: Any) -> Any:
    if text in (None, ""):
        return None
    try:
        return json.loads(str(text))
    except ValueError:
        return text
