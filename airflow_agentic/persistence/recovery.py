"""What people do with runs: settle a step, set the state, answer, fork. Every intervention is an event of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from time import sleep
from typing import Any

from airflow_agentic.errors import ConfigurationError, JournalCorrupt, NotRecordable, RunTaken
from airflow_agentic.persistence.answers import answered_before, asked_as, check_fits
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.history import When, copied, head_of, version_at
from airflow_agentic.persistence.journal import Draft, Journal, corrupt, taken
from airflow_agentic.persistence.naming import check_key
from airflow_agentic.persistence.ports import (
    Facilities,
    Hold,
    IndexEntry,
    RunHead,
    RunStatus,
    RunStores,
)
from airflow_agentic.persistence.progress import RUN, Past, last_beginning
from airflow_agentic.persistence.reading import head_at
from airflow_agentic.persistence.records import BEGINNINGS, RecordType
from airflow_agentic.persistence.restoring import check_format
from airflow_agentic.persistence.state import StateSchema
from airflow_agentic.persistence.verification import verified
from airflow_agentic.security.canonical import canonical

_LEASE = timedelta(seconds=30)
_UNSET: Any = object()
# Of those who change a run at the same moment one is first, and the others look again.
_ROUNDS = 10
_MOMENT_SECONDS = 0.05
_LIVES = BEGINNINGS | {RecordType.FINISHED}


@dataclass(frozen=True)
class _Deed:
    """What is recorded of an intervention, and what the head says then."""

    type: RecordType
    name: str
    about: Mapping[str, Any]
    head: Mapping[str, Any] = field(default_factory=dict)


_Decide = Callable[[RunHead], _Deed]


class Interventions:
    """Changes runs by hand. Each call says who and why; both are kept in the journal.

    Args:
        stores: Where.
        facilities: What runs use beside the store's tables.
        claims: Reads data that lies elsewhere.
    """

    def __init__(self, stores: RunStores, facilities: Facilities, claims: Claims) -> None:
        self._stores = stores
        self._facilities = facilities
        self._claims = claims

    def skip_step(
        self, key: str, step: str, *, actor: str, reason: str, result: Any = None, force: bool = False
    ) -> int:
        """Let a step count as done, with a result; for one that is ambiguous, fails, or must not be done at all.

        Args:
            key: The run.
            step: The step, as its journal calls it (``name`` or ``name#2``).
            actor: Who.
            reason: Why.
            result: What the step returns from now on: any JSON.
            force: Take the run from whoever works on it.

        Returns:
            The version of the event.

        Raises:
            RunNotFound: There is no such run.
            RunTaken: Somebody works on it.
            JournalCorrupt: It is in quarantine.
            JournalTooNew: It was written by a newer version.
            ConfigurationError: Actor or reason are empty, or the step is finished.
        """

        def decide(head: RunHead) -> _Deed:
            past = Past(key, self._index(head))
            trace = past.steps.get(step)
            if trace is not None and trace.is_over:
                raise ConfigurationError(
                    f"step {step!r} of run {key!r} is finished: nothing is to be skipped"
                )
            about = {"result": result, "reason": reason, "actor": actor}
            return _Deed(RecordType.SKIPPED, step, about, {"done": past.done + 1})

        return self._intervene(key, actor, reason, decide, force=force)

    def retry_step(self, key: str, step: str, *, actor: str, reason: str, force: bool = False) -> int:
        """Let an ambiguous step be done again, because its effect did not take place; see :meth:`skip_step`.

        Raises:
            ConfigurationError: It is not ambiguous.
        """

        def decide(head: RunHead) -> _Deed:
            trace = Past(key, self._index(head)).steps.get(step)
            if trace is None or not trace.is_ambiguous:
                raise ConfigurationError(
                    f"step {step!r} of run {key!r} is not ambiguous: there is nothing to decide"
                )
            about = {"decision": "retry", "intended": trace.version, "by": actor, "reason": reason}
            return _Deed(RecordType.AMBIGUOUS, step, about)

        return self._intervene(key, actor, reason, decide, force=force)

    def set_state(
        self,
        key: str,
        *,
        actor: str,
        reason: str,
        patch: Any = _UNSET,
        state: Any = _UNSET,
        schema: StateSchema | None = None,
        force: bool = False,
    ) -> int:
        """Change the state of a run.

        Args:
            key: The run.
            actor: Who.
            reason: Why.
            patch: Merged into the state (RFC 7396).
            state: In place of it.
            schema: Of what version ``state`` is; default the version of the agent that goes on with the run.
            force: Take the run from whoever works on it.

        Returns:
            The version of the event.

        Raises:
            RunNotFound: There is no such run.
            RunTaken: Somebody works on it.
            JournalCorrupt: It is in quarantine.
            JournalTooNew: It was written by a newer version.
            ConfigurationError: Actor or reason are empty, or neither or both of patch and state are given.
        """
        if (patch is _UNSET) == (state is _UNSET):
            raise ConfigurationError("give either patch= (merged into the state) or state= (in place of it)")
        about = {"reason": reason, "actor": actor, **_change(patch, state, schema)}

        def decide(head: RunHead) -> _Deed:
            self._index(head)
            return _Deed(RecordType.STATE_SET, RUN, about)

        return self._intervene(key, actor, reason, decide, force=force)

    def answer(self, key: str, question: str, answer: Any, *, actor: str) -> int:
        """Answer a question that a run waits for. One answer counts: the first one that fits.

        Args:
            key: The run.
            question: Its name in the journal, for example ``question:approve``, or without ``question:``.
            answer: JSON that fits the schema of the question.
            actor: Who.

        Returns:
            The version of the event.

        Raises:
            RunNotFound: There is no such run, or it does not ask that.
            AlreadyAnswered: It has an answer, from somebody and of some time.
            InvalidAnswer: It does not fit; the text names the place in it.
            RunTaken: Somebody works on it.
            JournalCorrupt: It is in quarantine.
            JournalTooNew: It was written by a newer version.
        """

        def decide(head: RunHead) -> _Deed:
            index = self._index(head)
            asked = asked_as(index, key, question)
            read = Journal(self._stores, head, 0, _LEASE).record
            if version := Past(key, index).version_of(RecordType.ANSWERED, asked.name):
                before = read(version)
                raise answered_before(key, before, self._claims.unpacked(before.data))
            check_fits(answer, self._claims.unpacked(read(asked.version).data)["schema"])
            return _Deed(RecordType.ANSWERED, asked.name, {"answer": answer, "actor": actor}, {"waiting": ""})

        return self._intervene(key, actor, "an answer", decide, is_patient=True)

    def release(self, key: str, *, actor: str, reason: str, force: bool = False) -> int:
        """Let a run go on: end a lease of somebody who is gone, or a quarantine whose cause was mended.

        Raises:
            RunNotFound: There is no such run.
            RunTaken: Somebody works on it, and ``force`` is not given.
            JournalCorrupt: It is in quarantine, and still damaged.
        """

        def decide(head: RunHead) -> _Deed:
            is_over = head.status == RunStatus.FINISHED
            if head.status == RunStatus.QUARANTINED:
                for damage in verified(self._stores, key):
                    raise corrupt(damage)
                is_over = self._was_over(key)
            status = RunStatus.FINISHED if is_over else RunStatus.FAILED
            about = {"what": "released", "actor": actor, "reason": reason}
            return _Deed(
                RecordType.INTERVENED, RUN, about, {"status": status.value, "error": "", "category": ""}
            )

        return self._intervene(key, actor, reason, decide, force=force, may_be_damaged=True)

    def fork(
        self,
        key: str,
        *,
        at: When | None = None,
        to: str | None = None,
        patch: Any = _UNSET,
        actor: str = "",
        reason: str = "",
    ) -> str:
        """Begin a new run from a past moment of another one, which stays as it is.

        What was finished by then is finished in the new run; what came later has not happened to it. Effects outside stay.

        Args:
            key: The run.
            at: Version, checkpoint or time; default as it is now.
            to: Key of the new run; default ``KEY~fork-VERSION``, with a number behind it if there is one.
            patch: Merged into the state of the new run.
            actor: Who.
            reason: Why.

        Returns:
            The key of the new run.

        Raises:
            RunNotFound: There is no such run or moment, or its first records are forgotten.
            JournalCorrupt: It is damaged before that moment.
            ConfigurationError: There is a run of the key ``to``, or it cannot be one.
        """
        head = head_of(self._stores, key)
        version = head.version if at is None else version_at(self._stores, key, at, self._claims)
        records = copied(self._stores, key, version)
        name = self._free_key(f"{key[:450]}~fork-{version}") if to is None else self._unused(check_key(to))
        # With large data of its own: that of the other run is forgotten with it.
        moved = self._claims.moved
        drafts = [Draft(each.type, each.name, moved(each.data, name, "large data")) for each in records]
        about = {"what": "forked", "from": key, "version": version, "digest": records[-1].digest.hex()}
        who = {"actor": actor, "reason": reason}
        drafts.append(self._draft(name, RecordType.INTERVENED, RUN, {**about, **who}))
        if patch is not _UNSET:
            drafts.append(self._draft(name, RecordType.STATE_SET, RUN, {**who, **_change(patch)}))
        self._write_new(head, name, drafts)
        return name

    # -- inside ----------------------------------------------------------------------------------------

    def _index(self, head: RunHead) -> list[IndexEntry]:
        """Return what the journal has, if this version may add to it."""
        index = self._stores.journals.index(head.stream)
        began = last_beginning(index)
        for record in self._stores.journals.read(head.stream, began - 1, 1) if began else ():
            check_format(head.stream, self._claims.unpacked(record.data))
        return index

    def _draft(self, key: str, type_: RecordType, name: str, about: Any) -> Draft:
        what = "what is recorded"
        try:
            return Draft(type_, name, self._claims.packed(canonical(about, what), key, what))
        except ValueError as error:
            raise NotRecordable(f"{error}; only JSON can be kept") from None

    def _intervene(
        self,
        key: str,
        actor: str,
        reason: str,
        decide: _Decide,
        *,
        force: bool = False,
        may_be_damaged: bool = False,
        is_patient: bool = False,
    ) -> int:
        """Record what was decided of a run, if it still stands as it did then; else decide again.

        Who is patient waits a moment for somebody else who has the run: he may be answering, too.
        """
        if not actor.strip() or not reason.strip():
            raise ConfigurationError("a run is changed by hand with actor= and reason=: both are kept")
        for rest in reversed(range(_ROUNDS)):
            before = head_of(self._stores, key)
            if before.status == RunStatus.QUARANTINED and not may_be_damaged:
                raise _quarantined(before)
            deed = decide(before)
            draft = self._draft(key, deed.type, deed.name, deed.about)
            hold = self._hold(before, force=force)
            if hold.head is not None and not hold.taken and is_patient and rest:
                sleep(_MOMENT_SECONDS)
                continue
            if hold.head is None or not hold.taken:
                raise taken(hold.head, key)
            if (hold.head.version, hold.head.status) == (before.version, before.status):
                journal = Journal(self._stores, hold.head, hold.now_ms, _LEASE)
                try:
                    # Given back at once: whoever had it before cannot write any more.
                    return journal.write([draft], lease_until_ms=0, **deed.head)
                except RunTaken:
                    pass  # By another thread: threads of a process have one name.
            self._stores.runs.hold(key, self._facilities.owner(), timedelta(0))
        raise taken(None, key)

    def _hold(self, head: RunHead, *, force: bool) -> Hold:
        gone = head.owner if force or self._facilities.is_gone(head.owner) else None
        return self._stores.runs.hold(head.stream, self._facilities.owner(), _LEASE, instead_of=gone)

    def _was_over(self, key: str) -> bool:
        """Whether a run had come to its end: of those that are not finished nothing is forgotten."""
        index = self._stores.journals.index(key)
        last = next((entry.type for entry in reversed(index) if entry.type in _LIVES), RecordType.FINISHED)
        return last == RecordType.FINISHED

    def _unused(self, key: str) -> str:
        if head_at(self._stores.runs, key) is not None:
            raise ConfigurationError(f"there is a run {key!r} already: give the new one another key")
        return key

    def _free_key(self, key: str) -> str:
        return next(
            name
            for n in count(1)
            if head_at(self._stores.runs, (name := key if n == 1 else f"{key}-{n}")) is None
        )

    def _write_new(self, head: RunHead, key: str, drafts: Sequence[Draft]) -> None:
        hold = self._stores.runs.hold(key, self._facilities.owner(), _LEASE)
        # No task works on it yet: the other one's does not when it is cleared.
        owner = self._facilities.owner()
        new = RunHead(key, head.agent, head.mode, correlation=head.correlation, owner=owner)
        journal = Journal(self._stores, new, hold.now_ms, _LEASE)
        past = Past(key, [IndexEntry(n, each.type, each.name) for n, each in enumerate(drafts, 1)])
        # All in one commit: half a run must not be taken for a whole one. It is nobody's: whoever opens it goes on from here.
        journal.write(drafts, status=RunStatus.FAILED.value, lease_until_ms=0, done=past.done)


def _quarantined(head: RunHead) -> JournalCorrupt:
    key = head.stream
    return JournalCorrupt(
        f"the run {key!r} is in quarantine: {head.error}. Nothing was changed. When what is wrong was mended, "
        f"`airflow agentic runs resume {key} --reason TEXT` ends the quarantine; else `airflow agentic runs fork {key} "
        "--at VERSION --reason TEXT` begins a new run from a version before the damage, and that one can be changed",
        key,
        0,
        head.error,
    )


def _change(patch: Any = _UNSET, state: Any = _UNSET, schema: StateSchema | None = None) -> dict[str, Any]:
    if patch is not _UNSET:
        return {"patch": patch}
    return {"state": state, "schema": schema.version} if schema else {"state": state}
