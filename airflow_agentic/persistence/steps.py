"""Steps: work that is done once in a run.

The intent is recorded before the effect, and the result after it. What died between the two is *ambiguous*: outside the
store nobody is exactly-once, so it is named, handled as declared, and every repeated or skipped effect is in the journal.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, field
from typing import Any

from airflow_agentic.errors import (
    AmbiguousStep,
    ConfigurationError,
    NotRecordable,
    RunNotFound,
    RunTaken,
    StepChanged,
    StepsDiffer,
    StoreUnavailable,
)
from airflow_agentic.persistence.fingerprints import arguments_of, code_of, is_other_code
from airflow_agentic.persistence.flows import Flows
from airflow_agentic.persistence.integrity import is_storable
from airflow_agentic.persistence.journal import Draft
from airflow_agentic.persistence.naming import numbered, plain, said_of
from airflow_agentic.persistence.options import OnAmbiguous, OnChange
from airflow_agentic.persistence.progress import StepTrace
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.session import Session
from airflow_agentic.persistence.step_data import done_data, intent_data
from airflow_agentic.persistence.stepping import CURRENT, Ambiguity, Step, StepOptions, current_step
from airflow_agentic.persistence.suspension import RunSuspended

__all__ = ["Ambiguity", "Step", "StepOptions", "Steps", "current_step", "numbered", "plain"]

_log = logging.getLogger(__name__)

_LONGEST_NAME = 200


@dataclass(slots=True)
class _Plan:
    name: str
    options: StepOptions
    code: str
    arguments: str
    trace: StepTrace | None
    is_beside: bool = False
    # What is said in one commit with the next record of the step, so that no crash comes between the two.
    first: list[Draft] = field(default_factory=list)


_NOTHING: Any = object()
_NEVER_AWAITED = (str, int, float, dict, list, tuple, type(None))


class _UnrecordedError(Exception):
    """A step was done, and its result could not be recorded."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Steps:
    """Does the steps of a run.

    Args:
        session: The run.

    Attributes:
        ambiguities: What was found ambiguous since the run was opened.
        flows: Where the code of the run is.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[str, int] = {}
        self._asked: set[str] = set()
        self._going_on = 0
        # Of several threads, that their names are counted one after the other.
        self._lock = threading.Lock()
        self.ambiguities: list[Ambiguity] = []
        self.flows = Flows()

    def options(
        self, key: str | None, on_ambiguous: OnAmbiguous | None, on_change: OnChange | None, *, pure: bool
    ) -> StepOptions:
        """Return how a step is done; what it does not say is as for the run.

        Raises:
            ConfigurationError: There is no such way.
        """
        own = self._session.options
        return StepOptions(key, on_ambiguous or own.on_ambiguous, on_change or own.on_change, pure)

    def do(
        self,
        name: str,
        options: StepOptions,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Do a step, or return what came of it before; see :meth:`airflow_agentic.persistence.run.Run.step`."""
        plan = self._planned(name, options, function, args, kwargs)
        if (found := self._answer(plan)) is not _NOTHING:
            return found
        step = self._intended(plan)
        began, token = self._begin(step)
        try:
            result = function(*args, **kwargs)
            if not isinstance(result, _NEVER_AWAITED):
                _refuse_awaitable(plan, result)
            return self._done(plan, step, result, began)
        except BaseException as error:
            self._check_broken(plan, error)
            raise
        finally:
            self._end(token)

    async def ado(
        self,
        name: str,
        options: StepOptions,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Do what :meth:`do` does, with a coroutine function."""
        plan = self._planned(name, options, function, args, kwargs)
        if (found := self._answer(plan)) is not _NOTHING:
            return found
        step = self._intended(plan)
        began, token = self._begin(step)
        try:
            result = function(*args, **kwargs)
            return self._done(plan, step, await result if inspect.isawaitable(result) else result, began)
        except BaseException as error:
            self._check_broken(plan, error)
            raise
        finally:
            self._end(token)

    def check_all_asked(self) -> None:
        """Refuse to end a run of which a step was left in the middle, and never asked for again.

        Raises:
            StepsDiffer: There is one.
        """
        if left := self._left_behind():
            raise self._differ(left[0], "ends")

    # -- before ----------------------------------------------------------------------------------------

    def _planned(
        self, name: str, options: StepOptions, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> _Plan:
        outer = CURRENT.get()
        if outer is not None and outer.run == self._session.key:
            raise ConfigurationError(
                f"step {name!r} is asked for within step {outer.name!r}: a step is the smallest piece of work; do one after "
                "the other"
            )
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not is_storable(name):
            raise ConfigurationError(
                f"a step needs a name of 1 to {_LONGEST_NAME} characters, without a NUL or half a character, not "
                f"{str(name)[:40]!r}"
            )
        with self._lock:
            self._names[name] = count = self._names.get(name, 0) + 1
            unique = numbered(name, count)
            self._asked.add(unique)
            is_beside = bool(self._going_on) or self.flows.is_beside()
        past = self._session.past
        trace = past.steps.get(unique)
        if trace is None and unique in past.base.steps:
            raise RunNotFound(
                f"step {unique!r} of run {self._session.key!r} is finished, and what came of it was forgotten with the other "
                "records of the finished run: begin a new run, or give the step another name"
            )
        if trace is None and not is_beside and self._session.is_replayed:
            self._check_came_to(unique)
        return _Plan(
            unique, options, code_of(function), arguments_of(function, args, kwargs), trace, is_beside
        )

    def _check_came_to(self, new: str) -> None:
        """Refuse a new step while the one that the run was interrupted in was not asked for yet."""
        for left in self._left_behind():
            # Work that goes on side by side may come in another order; what was done one by one may not.
            if not self._session.data(self._session.past.steps[left].version).get("beside"):
                raise self._differ(left, f"asks for {new!r} first")

    def _left_behind(self) -> list[str]:
        past = self._session.past
        if not self._session.is_replayed:
            return []
        return [name for name in past.unresolved if name not in self._asked and not past.steps[name].decided]

    def _differ(self, left: str, what: str) -> StepsDiffer:
        key = self._session.key
        return StepsDiffer(
            f"run {key!r} was interrupted in step {left!r}, and now {what}, without having asked for that step again: names "
            "of steps must be the same each time, with no times and no random numbers in them. If the code was changed on "
            f"purpose, settle the old step: `airflow agentic runs skip-step {key} {left}`"
        )

    def _answer(self, plan: _Plan) -> Any:
        """Return what came of a step before, or nothing if it is to be done."""
        trace = plan.trace
        if trace is None:
            return _NOTHING
        if trace.is_over:
            return self._recorded(plan, trace)
        if trace.is_ambiguous and not plan.options.pure:
            return self._decided(plan, trace)
        _log.info("run %r: step %r did not end well before, and is done again", self._session.key, plan.name)
        return _NOTHING

    def _recorded(self, plan: _Plan, trace: StepTrace) -> Any:
        said = self._session.data(trace.version)
        if trace.type == RecordType.SKIPPED:
            self._report(plan, "skip", said.get("actor") or "declared", "was not done, and counts as done")
        elif what := _difference(said, plan):
            key, on_change = self._session.key, plan.options.on_change
            if on_change == "fail":
                raise StepChanged(
                    f"step {plan.name!r} of run {key!r} is finished, and its {what} changed since. Give it another name, or "
                    'say on_change="keep" for its old result, or on_change="rerun"'
                )
            about = {"what": what, "decision": on_change}
            plan.first.append(
                Draft(RecordType.CHANGED.value, plan.name, self._session.encoded(about, "step"))
            )
            if on_change == "rerun":
                self._report(plan, on_change, "declared", f"is finished, and its {what} changed")
                return _NOTHING
            _log.warning("run %r: the %s of step %r changed; its result is kept", key, what, plan.name)
            self._session.write_all(plan.first)
        self.flows.passed(plan.name)
        return said["result"]

    def _decided(self, plan: _Plan, trace: StepTrace) -> Any:
        """Handle a step that died between intent and result."""
        session = self._session
        decision = "retry" if trace.decided else plan.options.on_ambiguous
        if decision == "ask":
            raise AmbiguousStep(
                f"step {plan.name!r} of run {session.key!r} began and never said how it ended: look whether its effect took "
                f"place. If it did: `airflow agentic runs skip-step {session.key} {plan.name}`; if not: `… runs retry-step "
                f"{session.key} {plan.name}`",
                session.key,
                plan.name,
            )
        by = "a person" if trace.decided else "declared"
        about = {"decision": decision, "intended": trace.version, "by": by}
        plan.first.append(Draft(RecordType.AMBIGUOUS.value, plan.name, session.encoded(about, "step")))
        self._report(
            plan, decision, by, "died between intent and result, and its effect may have taken place"
        )
        if decision == "retry":
            return _NOTHING
        skipped = {"result": None, "reason": "ambiguous, and declared to be skipped", "actor": ""}
        self._write(plan, RecordType.SKIPPED, session.encoded(skipped, "step"))
        self.flows.passed(plan.name)
        return None

    def _report(self, plan: _Plan, decision: str, by: str, why: str) -> None:
        """Say aloud that an effect may have taken place twice, or not at all; the journal says it, too."""
        self.ambiguities.append(Ambiguity(plan.name, decision, by))
        _log.warning("run %r: step %r %s: %s (%s)", self._session.key, plan.name, why, decision, by)

    # -- while it is done ------------------------------------------------------------------------------

    def _intended(self, plan: _Plan) -> Step:
        step = Step(
            self._session.key,
            plan.name,
            plan.options.idempotency_key or f"{self._session.key}/{plan.name}",
            is_repeat=plan.trace is not None,
        )
        if not plan.options.pure:
            self._write(plan, RecordType.INTENDED, self._intent(plan, step.idempotency_key))
        return step

    def _begin(self, step: Step) -> tuple[float, Token[Step | None]]:
        with self._lock:
            self._going_on += 1
        return time.monotonic(), CURRENT.set(step)

    def _end(self, token: Token[Step | None]) -> None:
        with self._lock:
            self._going_on -= 1
        CURRENT.reset(token)

    def _check_broken(self, plan: _Plan, error: BaseException) -> None:
        """Record how a step broke, or raise what is to be said instead of that."""
        if isinstance(error, RunSuspended):
            raise ConfigurationError(
                f"step {plan.name!r} waits ({error}): a step cannot wait; wait between steps"
            ) from error
        if isinstance(error, _UnrecordedError):
            # Its effect took place: it did not fail, and must not be done again without a word.
            raise error.cause from error.cause.__cause__
        if isinstance(error, Exception):
            self._broke(plan, error)

    def _intent(self, plan: _Plan, key: str) -> bytes:
        how = plan.options.on_ambiguous
        try:
            data = intent_data(plan.code, plan.arguments, key, how, is_beside=plan.is_beside)
        except (TypeError, ValueError):
            raise NotRecordable(
                f"step {plan.name!r}: an idempotency key is a text, and has no half characters: not {key!r}"
            ) from None
        return self._session.packed(data, "step")

    def _done(self, plan: _Plan, step: Step, result: Any, began: float) -> Any:
        try:
            return self._recorded_now(plan, step, result, began)
        except Exception as error:
            raise _UnrecordedError(error) from error

    def _recorded_now(self, plan: _Plan, step: Step, result: Any, began: float) -> Any:
        seconds = round(time.monotonic() - began, 6)
        session, what, sent = self._session, f"the result of step {plan.name!r}", b""
        if step.outbox:
            sent = session.content([getattr(each, "id", str(each)) for each in step.outbox], what)
        said = result if type(result) is str else plain(result)
        content, read = session.content_and_read(said, f"{what}['result']")
        data = done_data(plan.code, plan.arguments, content, seconds, sent)
        self._write(plan, RecordType.DONE, session.packed(data, what), outgoing=step.outbox)
        self.flows.passed(plan.name)
        # As it will be read the next time: what is JSON stays what it is, a tuple becomes a list.
        return read

    def _broke(self, plan: _Plan, error: Exception) -> None:
        if isinstance(error, RunTaken) and error.key == self._session.key:
            return  # It is another one's run now.
        session = self._session
        about = said_of(error, session.options.discreet, session.facilities.category_of)
        try:
            self._write(plan, RecordType.BROKE, self._session.encoded(about, "step"))
        except StoreUnavailable as away:
            # What it raised matters more. It is ambiguous now, and that is said the next time.
            _log.warning(
                "run %r: step %r failed, and that is not recorded: %s", self._session.key, plan.name, away
            )

    def _write(self, plan: _Plan, type_: RecordType, data: bytes, **more: Any) -> None:
        self._session.write(type_, plan.name, data, first=plan.first, step=plan.name, **more)
        plan.first.clear()


def _refuse_awaitable(plan: _Plan, result: Any) -> None:
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result):
        raise ConfigurationError(
            f"step {plan.name!r} returned something to be awaited: use `await run.astep(…)`"
        )


def _difference(said: Mapping[str, Any], plan: _Plan) -> str:
    """Return what is other than it was: ``code``, ``arguments``, both or nothing."""
    found = ["code"] if is_other_code(said["code"], plan.code) else []
    found += ["arguments"] if said["args"] != plan.arguments else []
    return " and ".join(found)
