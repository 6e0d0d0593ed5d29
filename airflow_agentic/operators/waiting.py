"""What a task does that a guard refused, or whose agent needs a person: it waits without a slot."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_agentic.errors import BulkheadFull, CircuitOpen, NotAdmitted
from airflow_agentic.resilience.fallback import PersonNeeded
from airflow_agentic.triggers.resilience import AdmissionTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.context import Context

_LONGEST_ROUND_SECONDS = 60.0
_ANSWER, _GIVE_UP = "Answer", "Give up"


@dataclass(frozen=True)
class Waited:
    """What a task that waited for a guard knows of that.

    Attributes:
        rounds: How often it waited.
        has_turn: Whether the rates of its policy let it go now: its turn was set aside.
    """

    rounds: int = 0
    has_turn: bool = False

    @classmethod
    def of(cls, event: dict[str, Any]) -> Waited:
        """Return what the event of an :class:`AdmissionTrigger` carries; of another event nothing."""
        return cls(**event.get("carried", {}))


NOT_WAITED = Waited()


def wait_for(
    operator: BaseOperator,
    refusal: NotAdmitted,
    waited: Waited,
    kwargs: dict[str, Any],
    conn_id: str | None = None,
) -> NoReturn:
    """Defer until what a guard refused may be tried again; the operator goes on with ``resume``.

    Args:
        operator: Whose task.
        refusal: What the guard said.
        waited: How often it waited before, and whether its turn is set aside now.
        kwargs: What ``resume`` is called with.
        conn_id: The store; see ``AgenticHook``.

    Raises:
        TaskDeferred: Waiting.
        NotAdmitted: Nobody knows when it may be tried again.
    """
    # In the event, and not in kwargs: ``dag.test()`` keeps it there.
    carried = asdict(replace(waited, rounds=waited.rounds + 1))
    if isinstance(refusal, CircuitOpen):
        trigger = AdmissionTrigger(None, refusal.key, conn_id, carried)
    elif refusal.retry_at is None:
        raise refusal
    else:
        moment = refusal.retry_at
        if isinstance(refusal, BulkheadFull):
            # Nobody knows when a slot comes free: those who wait long look less often.
            longest = min(_LONGEST_ROUND_SECONDS, 2.0**waited.rounds)
            moment = datetime.now(UTC) + timedelta(seconds=random.uniform(longest / 2, longest))  # noqa: S311
        trigger = AdmissionTrigger(moment.isoformat(), None, conn_id, carried)
    operator.log.info("[%s] %s; the task waits without a slot", refusal.category, refusal)
    operator.defer(trigger=trigger, method_name="resume", kwargs=kwargs)
    raise AssertionError("defer() raises")


def ask_person(context: Context, needed: PersonNeeded, task: Any, method: str, lasts: timedelta) -> NoReturn:
    """Park the task until a person has answered on Airflow's page of required actions, or the time is over.

    Args:
        context: Airflow's.
        needed: What is asked, and why.
        task: What the agent was asked; shown to the person.
        method: Where the operator goes on, with the answer as ``event`` and the ``reason``.
        lasts: How long the person has.

    Raises:
        TaskAwaitingInput: Waiting.
    """
    from airflow.sdk import Param
    from airflow.sdk.exceptions import TaskAwaitingInput
    from airflow.sdk.execution_time.hitl import upsert_hitl_detail

    shown = json.dumps(task, indent=2, ensure_ascii=False, default=str)[:4_000]
    answer = Param("", type="string", title="The result", description="As JSON, or as plain text.")
    upsert_hitl_detail(
        ti_id=context["ti"].id,
        options=[_ANSWER, _GIVE_UP],
        subject=needed.question,
        body=f"{needed.reason}\n\nThe task was:\n```json\n{shown}\n```",
        params={"answer": answer.serialize()},
    )
    raise TaskAwaitingInput(method_name=method, kwargs={"reason": needed.reason}, timeout=lasts)


def answer_of(event: dict[str, Any]) -> tuple[bool, Any]:
    """Return whether a person gave a result, and the result: JSON if it is, else the text."""
    if "error" in event or event.get("chosen_options") != [_ANSWER]:
        return False, None
    text = str((event.get("params_input") or {}).get("answer", ""))
    try:
        return True, json.loads(text)
    except ValueError:
        return True, text
