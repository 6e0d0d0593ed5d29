"""What people do with runs: settle a step, set the state, answer, fork. Every intervention is an event of the run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import ConfigurationError, NotRecordable, RunNotFound
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.history import When, copied, head_of, version_at
from airflow_agentic.persistence.journal import Draft, Journal, corrupt, taken
from airflow_agentic.persistence.naming import check_key
from airflow_agentic.persistence.ports import Facilities, IndexEntry, RunHead, RunQuery, RunStatus, RunStores
from airflow_agentic.persistence.progress import RUN, Past
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.state import StateSchema
from airflow_agentic.persistence.verification import verified
from airflow_agentic.security.canonical import canonical

_LEASE = timedelta(seconds=30)
_UNSET: Any = object()


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
            ConfigurationError: Actor or reason are empty, or the step is finished.
        """
        past = self._past(key)
        trace = past.steps.get(step)
        if trace is not None and trace.is_over:
            raise ConfigurationError(f"step {step!r} of run {key!r} is finished: nothing is to be skipped")
        about = {"result": result, "reason": reason, "actor": actor}
        return self._intervene(
            key, actor, reason, RecordType.SKIPPED, step, about, force=force, done=past.done + 1
        )

    def retry_step(self, key: str, step: str, *, actor: str, reason: str, force: bool = False) -> int:
        """Let an ambiguous step be done again, because its effect did not take place; see :meth:`skip_step`.

        Raises:
            ConfigurationError: It is not ambiguous.
        """
        trace = self._past(key).steps.get(step)
        if trace is None or not trace.is_ambiguous:
            raise ConfigurationError(
                f"step {step!r} of run {key!r} is not ambiguous: there is nothing to decide"
            )
        about = {"decision": "retry", "intended": trace.version, "by": actor, "reason": reason}
        return self._intervene(key, actor, reason, RecordType.AMBIGUOUS, step, about, force=force)

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
            ConfigurationError: Actor or reason are empty, or neither or both of patch and state are given.
        """
        if (patch is _UNSET) == (state is _UNSET):
            raise ConfigurationError("give either patch= (merged into the state) or state= (in place of it)")
        about = {"reason": reason, "actor": actor, **_change(patch, state, schema)}
        return self._intervene(key, actor, reason, RecordType.STATE_SET, RUN, about, force=force)

    def answer(self, key: str, question: str, answer: Any, *, actor: str) -> int:
        """Answer a question that a run waits for.

        Args:
            key: The run.
            question: Its name in the journal, for example ``question:approve``.
            answer: Any JSON.
            actor: Who.

        Raises:
            RunNotFound: There is no such run, or it does not ask that.
            RunTaken: Somebody works on it.
        """
        past = self._past(key)
        if not past.version_of(RecordType.ASKED, question):
            raise RunNotFound(
                f"run {key!r} does not ask {question!r}: `airflow agentic runs show {key}` says what it waits for"
            )
        about = {"answer": answer, "actor": actor}
        return self._intervene(key, actor, "an answer", RecordType.ANSWERED, question, about, waiting="")

    def release(self, key: str, *, actor: str, reason: str, force: bool = False) -> int:
        """Let a run go on: end a lease of somebody who is gone, or a quarantine whose cause was mended.

        Raises:
            RunNotFound: There is no such run.
            RunTaken: Somebody works on it, and ``force`` is not given.
            JournalCorrupt: It is in quarantine, and still damaged.
        """
        head = head_of(self._stores, key)
        if head.status == RunStatus.QUARANTINED:
            for damage in verified(self._stores, key):
                raise corrupt(damage)
        about = {"what": "released", "actor": actor, "reason": reason}
        status = RunStatus.FINISHED if head.status == RunStatus.FINISHED else RunStatus.FAILED
        return self._intervene(
            key,
            actor,
            reason,
            RecordType.INTERVENED,
            RUN,
            about,
            force=force,
            status=status.value,
            error="",
            category="",
        )

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
            ConfigurationError: There is a run of the key ``to``.
        """
        head = head_of(self._stores, key)
        version = head.version if at is None else version_at(self._stores, key, at, self._claims)
        records = copied(self._stores, key, version)
        name = self._free_key(check_key(to) if to else f"{key[:450]}~fork-{version}", is_asked=to is not None)
        drafts = [Draft(each.type, each.name, each.data) for each in records]
        about = {"what": "forked", "from": key, "version": version, "digest": records[-1].digest.hex()}
        who = {"actor": actor, "reason": reason}
        drafts.append(self._draft(name, RecordType.INTERVENED, RUN, {**about, **who}))
        if patch is not _UNSET:
            drafts.append(self._draft(name, RecordType.STATE_SET, RUN, {**who, **_change(patch)}))
        self._write_new(head, name, drafts)
        return name

    # -- inside ----------------------------------------------------------------------------------------

    def _past(self, key: str) -> Past:
        head_of(self._stores, key)
        return Past(key, self._stores.journals.index(key))

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
        type_: RecordType,
        name: str,
        about: Any,
        *,
        force: bool = False,
        **head: Any,
    ) -> int:
        if not actor.strip() or not reason.strip():
            raise ConfigurationError("a run is changed by hand with actor= and reason=: both are kept")
        draft = self._draft(key, type_, name, about)
        runs, owner = self._stores.runs, self._facilities.owner()
        before = head_of(self._stores, key)
        is_gone = force or self._facilities.is_gone(before.owner)
        hold = runs.hold(key, owner, _LEASE, instead_of=before.owner if is_gone else None)
        if hold.head is None or not hold.taken:
            raise taken(hold.head, key)
        journal = Journal(self._stores, hold.head, hold.now_ms, _LEASE)
        # Given back at once: whoever had it before cannot write any more.
        return journal.write([draft], lease_until_ms=0, **head)

    def _free_key(self, key: str, *, is_asked: bool) -> str:
        known = {head.stream for head in self._stores.runs.heads(RunQuery(prefix=key, limit=10_000))}
        if key not in known:
            return key
        if is_asked:
            raise ConfigurationError(f"there is a run {key!r} already: give the new one another key")
        return next(name for n in range(2, len(known) + 3) if (name := f"{key}-{n}") not in known)

    def _write_new(self, head: RunHead, key: str, drafts: Sequence[Draft]) -> None:
        hold = self._stores.runs.hold(key, self._facilities.owner(), _LEASE)
        new = RunHead(
            key,
            head.agent,
            head.mode,
            correlation=head.correlation,
            task=head.task,
            owner=self._facilities.owner(),
        )
        journal = Journal(self._stores, new, hold.now_ms, _LEASE)
        past = Past(key, [IndexEntry(n, each.type, each.name) for n, each in enumerate(drafts, 1)])
        # All in one commit: half a run must not be taken for a whole one. It is nobody's: whoever opens it goes on from here.
        journal.write(drafts, status=RunStatus.FAILED.value, lease_until_ms=0, done=past.done)


def _change(patch: Any = _UNSET, state: Any = _UNSET, schema: StateSchema | None = None) -> dict[str, Any]:
    if patch is not _UNSET:
        return {"patch": patch}
    return {"state": state, "schema": schema.version} if schema else {"state": state}
