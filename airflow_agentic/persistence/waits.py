"""What a run waits for between its steps: a person's answer, a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_agentic.errors import NotRecordable
from airflow_agentic.persistence.naming import kept_text, numbered
from airflow_agentic.persistence.records import QUESTION, RecordType
from airflow_agentic.persistence.session import Session, waits_for
from airflow_agentic.persistence.stepping import current_step
from airflow_agentic.persistence.suspension import Interrupted, Sleeping

MOST_DETAILS = 10_000
"""Details of a question have at most so many characters: a person is to read them."""


class Waits:
    """Asks and sleeps. What was asked or said the first time counts, however often the code comes to it again.

    Args:
        session: The run.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: Counter[str] = Counter()

    def interrupt(
        self,
        question: str,
        schema: Mapping[str, Any] | None,
        name: str,
        deadline: datetime | None,
        details: str,
    ) -> Any:
        """Ask a person; see :meth:`airflow_agentic.persistence.run.Run.interrupt`."""
        session = self._session
        if deadline is not None and deadline.tzinfo is None:
            raise NotRecordable(
                f"the deadline {deadline} has no time zone: use datetime.now(UTC) + timedelta(…)"
            )
        unique = self._numbered(f"{QUESTION}{name}")
        if version := session.past.version_of(RecordType.ANSWERED, unique):
            return session.data(version)["answer"]
        if version := session.past.version_of(RecordType.ASKED, unique):
            about = session.data(version)
        else:
            about = {
                "question": question,
                "schema": dict(schema) if schema else None,
                "deadline": deadline.isoformat() if deadline else None,
            }
            if _checked(details):
                about["details"] = details
            waits = waits_for(kept_text(f"a person: {question}", 500))
            session.write(RecordType.ASKED, unique, session.encoded(about, "question"), **waits)
        until = datetime.fromisoformat(about["deadline"]) if about["deadline"] else None
        raise Interrupted(
            session.key, unique, about["question"], about["schema"], until, about.get("details", "")
        )

    def sleep_until(self, moment: datetime, name: str) -> None:
        """Wait for a time; see :meth:`airflow_agentic.persistence.run.Run.sleep_until`."""
        session = self._session
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise NotRecordable(f"{moment} is no time with a zone: use datetime.now(UTC) + timedelta(…)")
        unique = self._numbered(f"sleep:{name}")
        if version := session.past.version_of(RecordType.WAITING, unique):
            moment = datetime.fromisoformat(session.data(version)["until"])
        is_over = session.now_ms() >= moment.timestamp() * 1000
        if not version:
            # What is over is recorded, too: code that comes here again must not wait for a later time.
            head = {} if is_over else waits_for(f"until {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
            said = session.encoded({"until": moment.isoformat()}, unique)
            session.write(RecordType.WAITING, unique, said, **head)
        if not is_over:
            raise Sleeping(session.key, unique, moment.astimezone(UTC))

    def _numbered(self, name: str) -> str:
        if (step := current_step()) is not None and step.run == self._session.key:
            raise NotRecordable(f"step {step.name!r} cannot wait: wait between steps")
        with self._session.lock:
            self._asked[name] += 1
            return numbered(name, self._asked[name])


def _checked(details: Any) -> str:
    if not isinstance(details, str):
        raise NotRecordable(
            f"the details of a question are a text (Markdown), and not a {type(details).__name__}"
        )
    if len(details) > MOST_DETAILS:
        raise NotRecordable(
            f"the details of a question have {len(details):,} characters, and at most {MOST_DETAILS:,} are kept: nothing is cut; "
            "say what matters, and where the rest is"
        )
    return details
