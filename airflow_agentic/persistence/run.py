"""A durable run: steps that are done once, a state made of events, names for moments; all in one journal.

Code that works on a run is called again from its beginning after a crash or a retry. Steps that are finished answer from the
journal, and so do questions; the state is as it was left.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic_core import from_json

from airflow_agentic.errors import (
    NotRecordable,
    RunTaken,
    StoreUnavailable,
)
from airflow_agentic.persistence.fingerprints import is_async
from airflow_agentic.persistence.naming import plain, said_of
from airflow_agentic.persistence.options import OnAmbiguous, OnChange, RunOptions
from airflow_agentic.persistence.ports import Facilities, RunHead, RunStatus, RunStores
from airflow_agentic.persistence.progress import RUN
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.sayings import Sayings
from airflow_agentic.persistence.session import Session
from airflow_agentic.persistence.stepping import Ambiguity
from airflow_agentic.persistence.steps import Steps
from airflow_agentic.persistence.suspension import RunSuspended
from airflow_agentic.persistence.waits import Waits

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Run:
    """One run, open for work. A context manager: its end is the run's end, an exception its failure.

    Nothing is written before there is something to write. Threads and coroutines may share it.

    Args:
        stores: Where.
        facilities: What it uses beside the store's tables.
        key: Names the run: opened again by the same key, it goes on.
        agent: Whose run it is.
        options: How it is kept.

    Raises:
        RunTaken: Somebody else works on it.
        JournalCorrupt: It is damaged, and is in quarantine now.
        JournalTooNew: It has records of a newer version.
        ConfigurationError: There is no such persistence, or the key belongs to another agent.
    """

    def __init__(
        self,
        stores: RunStores,
        facilities: Facilities,
        key: str,
        agent: str,
        options: RunOptions | None = None,
    ) -> None:
        self._session = Session(stores, facilities, key, agent, options or RunOptions())
        self._steps = Steps(self._session)
        self._sayings = Sayings(self._session, self._steps.flows)
        self._waits = Waits(self._session)
        self._opened_at = self._session.version
        self._has_ended = False

    # -- how it stands ---------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Names the run."""
        return self._session.key

    @property
    def agent(self) -> str:
        """Whose run it is."""
        return self._session.agent

    @property
    def state(self) -> Any:
        """What all events so far come to: a copy."""
        return self._session.state

    @property
    def version(self) -> int:
        """How many records the journal has."""
        return self._session.version

    @property
    def head(self) -> RunHead:
        """How the run stands, for people."""
        return self._session.head

    @property
    def now(self) -> datetime:
        """The store's time."""
        return datetime.fromtimestamp(self._session.now_ms() / 1000, UTC)

    @property
    def is_replayed(self) -> bool:
        """Whether this is another try at what was begun before and not finished."""
        return self._session.is_replayed

    @property
    def was_finished(self) -> bool:
        """Whether the run had come to its end before it was opened now."""
        return self._session.was_finished

    @property
    def is_used(self) -> bool:
        """Whether something was written since it was opened."""
        return self._session.version != self._opened_at

    @property
    def result(self) -> Any:
        """What the run ended with; ``None`` if it has not."""
        return (self.recalled(RecordType.FINISHED, RUN) or {}).get("result")

    @property
    def ambiguities(self) -> Sequence[Ambiguity]:
        """Effects that may have taken place twice, or not at all, because the run was interrupted before."""
        return tuple(self._steps.ambiguities)

    # -- steps -----------------------------------------------------------------------------------------

    def step(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        idempotency_key: str | None = None,
        on_ambiguous: OnAmbiguous | None = None,
        on_change: OnChange | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> T:
        """Call a function once in the life of the run; afterwards its result comes from the journal.

        The result is plain JSON (of pydantic models their fields), the first time too. What is sent within the step leaves
        with its result, or not at all. A name that comes again is another step: ``name#2``.

        Args:
            name: The same each time the code runs: no times, no random numbers.
            function: What to call, with ``args`` and ``kwargs``. Of a coroutine function an awaitable is returned.
            args: By position.
            idempotency_key: What a service knows repeated effects by; default ``run/step``. The function finds it in
                ``current_step()``.
            on_ambiguous: What to do if the run died in the middle of the step, and its effect may have taken place:
                ``retry`` (the default), ``skip`` (the result is ``None`` then) or ``ask`` a person.
            on_change: What to do if the step is finished, and code or arguments are other ones now: ``fail`` (the
                default), ``rerun``, or ``keep`` its result.
            pure: The function has no effect outside: it is recorded after it has ended, and not before.
            kwargs: By name.

        Raises:
            AmbiguousStep: A person has to decide.
            StepChanged: Code or arguments are not what they were.
            StepsDiffer: The run asks for other steps than the last time.
            NotRecordable: The result is not JSON, or too large; the text names the place in it.
            RunTaken: Somebody else has the run now.
            Exception: Whatever the function raises. That is recorded, and the step is done again the next time.
        """
        options = self._steps.options(idempotency_key, on_ambiguous, on_change, pure=pure)
        if is_async(function):
            return self._steps.ado(name, options, function, args, kwargs)  # type: ignore[return-value]
        result: T = self._steps.do(name, options, function, args, kwargs)
        return result

    async def astep(
        self,
        name: str,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        idempotency_key: str | None = None,
        on_ambiguous: OnAmbiguous | None = None,
        on_change: OnChange | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> T:
        """Do what :meth:`step` does, with a coroutine function. Several may go on side by side."""
        options = self._steps.options(idempotency_key, on_ambiguous, on_change, pure=pure)
        result: T = await self._steps.ado(name, options, function, args, kwargs)
        return result

    # -- events ----------------------------------------------------------------------------------------

    def emit(self, event: Any, *, key: str | None = None, expected: int | None = None) -> int:
        """Record an event; the state is another one afterwards.

        By default the state is a map, and events are merged into it (RFC 7396): ``emit({"open": 3, "old": None})`` sets one key
        and removes another. When a run that was interrupted is worked on again, what it emits again at the same place
        (after the same step, with the same content) is not recorded twice. What is made of the state is other content each time,
        for the state is as it was left: give such an event a ``key``, or make it in a step.

        Args:
            event: Any JSON; what it means is up to the schema of the run.
            key: Names the event: one of that name is recorded once in the run, whatever comes.
            expected: Version that the run must have now.

        Returns:
            The version that the event is at.

        Raises:
            StateConflict: The run has another version than expected.
            NotRecordable: The event is not JSON, or too large.
            RunTaken: Somebody else has the run now.
        """
        return self._sayings.emit(event, key, expected)

    def checkpoint(self, name: str) -> int:
        """Give this moment of the run a name, and keep its state; return its version.

        A replayed run has its checkpoints already: the first one of a name is that which was the first, and so on.

        Raises:
            NotRecordable: The name is empty, or too long.
            RunTaken: Somebody else has the run now.
        """
        return self._sayings.checkpoint(name)

    def expect(self, total: int) -> None:
        """Say how many steps there will be, so that people see how far the run is. Written with the next record.

        Raises:
            NotRecordable: It is no number from 0 on.
        """
        if isinstance(total, bool) or not isinstance(total, int) or total < 0:
            raise NotRecordable(f"a run has a number of steps, and not {total!r}")
        self._session.tell(total=total)

    # -- waiting ---------------------------------------------------------------------------------------

    def interrupt(
        self,
        question: str,
        schema: Mapping[str, Any] | None = None,
        *,
        name: str = "question",
        deadline: datetime | None = None,
        details: str = "",
    ) -> Any:
        """Ask a person; return the answer. Until there is one the run is given back, and nobody waits.

        What was asked the first time counts.

        Args:
            question: What to ask.
            schema: JSON Schema of the answer; default any text.
            name: Names the question in the run; asked again, it is another one: ``name#2``.
            deadline: When nobody needs to answer any more.
            details: What whoever answers should see, as Markdown: lines of a log, links. At most 10,000 characters.

        Raises:
            Interrupted: There is no answer yet.
            NotRecordable: The details are no text, or too long; the deadline has no time zone.
        """
        return self._waits.interrupt(question, schema, name, deadline, details)

    def sleep_until(self, moment: datetime, *, name: str = "sleep") -> None:
        """Go on at a time; until then the run is given back, and nobody waits.

        Args:
            moment: With its time zone. The first one that was given counts, however often this is called again.
            name: Names the wait in the run; asked again, it is another one: ``name#2``.

        Raises:
            Sleeping: It is not time yet.
            NotRecordable: The time has no zone.
        """
        self._waits.sleep_until(moment, name)

    def recalled(self, type_: RecordType, name: str) -> dict[str, Any] | None:
        """Return what the last record of a type and name says; ``None`` if there is none."""
        past = self._session.past
        version = past.version_of(type_, name)
        if not version and (type_, name) == (RecordType.FINISHED, RUN) and past.base.end is not None:
            return dict(past.base.end)
        return self._session.data(version) if version else None

    def once(self, type_: RecordType, name: str, about: Mapping[str, Any]) -> dict[str, Any]:
        """Record something that is said once in the run; return what was said the first time."""
        with self._session.lock:
            if (known := self.recalled(type_, name)) is not None:
                return known
            self._session.write(type_, name, self._session.encoded(dict(about), name))
            return dict(about)

    # -- ends ------------------------------------------------------------------------------------------

    def finish(self, result: Any = None, outgoing: Sequence[Any] = (), **about: Any) -> Any:
        """Record that the run came to its end, in one commit with messages that leave.

        Args:
            result: Any JSON; opened again, the run has it as :attr:`result`.
            outgoing: Messages.
            about: What else is recorded of the end, as JSON; see :meth:`recalled`.

        Returns:
            The result as plain JSON.

        Raises:
            StepsDiffer: A step was left in the middle the last time, and not asked for again.
            NotRecordable: The result is not JSON, or too large.
            RunTaken: Somebody else has the run now.
        """
        self._steps.check_all_asked()
        what = "the result of the run"
        content = self._session.content({**about, "result": plain(result)}, what)
        said = from_json(content)
        is_as_it_was = self.was_finished and not self.is_used and not outgoing
        if not (is_as_it_was and self.recalled(RecordType.FINISHED, RUN) == said):
            self._session.write(
                RecordType.FINISHED,
                RUN,
                self._session.packed(content, what),
                content=content,
                at_rest=True,
                outgoing=outgoing,
                status=RunStatus.FINISHED.value,
                lease_until_ms=0,
            )
        self._has_ended = True
        return said["result"]

    def fail(self, error: BaseException) -> None:
        """Record that the run failed; it may go on later.

        Raises:
            RunTaken: Somebody else has the run now.
        """
        self._has_ended = True
        session = self._session
        about = said_of(error, session.options.discreet, session.facilities.category_of)
        self._session.write(
            RecordType.FAILED,
            RUN,
            self._session.encoded(about, "error"),
            status=RunStatus.FAILED.value,
            error=about["error"],
            category=about["category"],
            lease_until_ms=0,
        )

    def pause(self, waiting: str) -> None:
        """Record that the run waits for something, and is no failure; it goes on when it is opened again.

        Args:
            waiting: What for.
        """
        self._has_ended = True
        self._session.rest(waiting)

    def close(self) -> None:
        """Give the run back, as it stands."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(value, RunSuspended):
                self._session.rest(str(value))
            elif value is None and not self._has_ended:
                self._finish_or_fail()
            elif isinstance(value, Exception) and not (self._has_ended or self._is_lost(value)):
                self._fail_if_possible(value)
        finally:
            self.close()

    # -- inside ----------------------------------------------------------------------------------------

    def _finish_or_fail(self) -> None:
        if self.was_finished and not self.is_used:
            return  # It was only looked at: it is finished as it was, with the result that it had.
        try:
            self.finish()
        except Exception as error:
            if not self._is_lost(error):
                self._fail_if_possible(error)
            raise

    def _fail_if_possible(self, error: Exception) -> None:
        try:
            self.fail(error)
        except StoreUnavailable as away:
            # What went wrong first matters more: it goes on its way.
            _log.warning("run %r failed, and that is not recorded: %s", self.key, away)

    def _is_lost(self, error: Exception) -> bool:
        """Whether an error says that the run is not to be written to: somebody else has it, or it is damaged."""
        return (error.key if isinstance(error, RunTaken) else getattr(error, "stream", None)) == self.key
