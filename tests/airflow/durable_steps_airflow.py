"""Small steps of tests of durable runs in DAGs: people who answer, tasks that are cleared."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from sqlalchemy.exc import OperationalError


class Person(threading.Thread):
    """Answers questions on Airflow's page of required actions, one after the other, as its API would.

    Args:
        dag_id: Whose.
        answers: For each question the option, and what is in the fields.
    """

    def __init__(self, dag_id: str, *answers: tuple[str, dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.dag_id = dag_id
        self.answers = list(answers)
        self.asked: list[Any] = []

    def run(self) -> None:
        until = time.monotonic() + 90
        while time.monotonic() < until:
            # The file of the metadata may be locked for a moment.
            with contextlib.suppress(OperationalError):
                self._look()
            time.sleep(0.2)
            if not self.answers:
                # Until it is sure that the last one is not written over.
                until = min(until, time.monotonic() + 1)

    def _look(self) -> None:
        from airflow.models.hitl import HITLDetail
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import handle_event_submit
        from airflow.triggers.base import TriggerEvent
        from airflow.utils import timezone
        from airflow.utils.session import create_session

        with create_session() as session:
            query = session.query(TaskInstance).filter_by(dag_id=self.dag_id, state="awaiting_input")
            if (ti := query.first()) is None:
                return
            detail = session.query(HITLDetail).filter_by(ti_id=ti.id).one()
            if detail.response_received:
                # Who parks a task in process may write its state over that of an answer at the same moment: say it again.
                event = TriggerEvent(detail.as_resume_event_payload())
                handle_event_submit(event, task_instance=ti, session=session)
                return
            if not self.answers:
                return
            option, fields = self.answers[0]
            seen = {
                "subject": detail.subject, "body": detail.body, "options": list(detail.options),
                "params": dict(detail.params), "timeout": ti.trigger_timeout,
            }  # fmt: skip
            detail.responded_by = {"id": "1", "name": "ann"}
            detail.responded_at = timezone.utcnow()
            detail.chosen_options, detail.params_input = [option], fields
            session.add(detail)
            event = TriggerEvent(detail.as_resume_event_payload())
            handle_event_submit(event, task_instance=ti, session=session)
        self.answers.pop(0)
        self.asked.append(seen)


def clear(run: Any, task: Any) -> Any:
    """Clear a task as a person would, run it again, and return how it stands."""
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState

    def found(session: Any) -> Any:
        return session.query(TaskInstance).filter_by(run_id=run.run_id, task_id=task.task_id).one()

    with create_session() as session:
        clear_task_instances([found(session)], session)
    with create_session() as session:
        ti = found(session)
        ti.try_number += 1
        ti.state = TaskInstanceState.SCHEDULED
        session.commit()
        _run_task(ti=ti, task=task, run_triggerer=True)
        session.commit()
        return str(found(session).state)
