"""The books of a drill: what a run with faults left in the store, beside what a run without them did."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState
from airflow_agentic.messaging.message import Message

_ENDED = (DeliveryState.DONE, DeliveryState.DEAD)
# What lets a delivery be handed out once more.
_REASONS = ("nack", "lease-expired")
_DELIVERY = re.compile(r"delivery (\d+)")
_DEEPEST = 100

Lineage = tuple[tuple[str | None, ...], ...]
"""What a message is, and what caused it, the cause first: the same in each run of a DAG that does the same."""


class Verdict(StrEnum):
    """What became of a promise."""

    HELD = "held"
    BROKEN = "broken"
    NOT_EXERCISED = "not exercised"


@dataclass(frozen=True)
class Judgement:
    """One promise, judged.

    Attributes:
        promise: Its number, where it has one, and what it says.
        verdict: Whether it held.
        said: What was found, or why it could not be judged.
    """

    promise: str
    verdict: Verdict
    said: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        state: Of the run; empty if it did not end.
        records: The deliveries of its conversation.
        opened: Keys of breakers that opened meanwhile.
        damaged: What was said of each message that was broken: the delivery.
        failing: Points where failures were injected.
        injected: How many faults.
        degraded: Tasks whose result is not what it should be, and whether the result says so.
    """

    state: str
    records: Sequence[DeliveryRecord]
    opened: frozenset[str] = frozenset()
    damaged: tuple[str, ...] = ()
    failing: frozenset[str] = frozenset()
    injected: int = 0
    degraded: tuple[tuple[str, bool], ...] = ()


class Accounts:
    """Compares runs.

    Args:
        without: The run without faults.
        outcome: The run with them.
    """

    def __init__(self, without: Outcome, outcome: Outcome) -> None:
        self._without = without
        self._outcome = outcome
        self._before = _Kept(without.records)
        self._after = _Kept(outcome.records)

    def judge(self) -> list[Judgement]:
        """Judge every promise."""
        checks: tuple[tuple[str, Callable[[], tuple[Verdict, str]]], ...] = (
            ("the run ends as it does without faults", self._run),
            ("P1 no message is lost", self._lost),
            ("P1 no message is made up, or takes effect twice", self._surplus),
            ("P2 nothing is handed out again while its lease lasts", self._handed_out),
            ("P3 messages of one key are handled in order", self._order),
            ("P4 every delivery ends as done or dead", self._ended),
            ("P5 breakers open where calls fail, and nowhere else", self._breakers),
            ("a degraded result says so", self._degraded),
            ("P8 a damaged message is detected and named", self._damage),
        )
        if not self._outcome.injected:
            nothing = "no fault was injected"
            return [Judgement(promise, Verdict.NOT_EXERCISED, nothing) for promise, _ in checks]
        return [Judgement(promise, *check()) for promise, check in checks]

    def _run(self) -> tuple[Verdict, str]:
        state, wanted = self._outcome.state, self._without.state
        if state == wanted:
            return Verdict.HELD, state
        return Verdict.BROKEN, f"it ended as {state}, not {wanted}" if state else "it did not end in time"

    def _lost(self) -> tuple[Verdict, str]:
        missing = self._before.messages - self._after.messages
        dead = self._after.dead - self._before.dead
        unexplained = [each for each in missing.elements() if not _comes_of(each[0], dead)]
        if not self._before.messages:
            return Verdict.NOT_EXERCISED, "the run sends no messages"
        if unexplained and self._outcome.state != self._without.state:
            return Verdict.NOT_EXERCISED, f"{len(unexplained)} were not sent: the run did not get so far"
        if unexplained:
            return Verdict.BROKEN, f"{len(unexplained)} are missing: {_named(unexplained)}"
        explained = missing.total()
        gone = f"; {explained} would have come of dead letters" if explained else ""
        return Verdict.HELD, f"{self._after.messages.total()} deliveries{gone}"

    def _surplus(self) -> tuple[Verdict, str]:
        more = list((self._after.messages - self._before.messages).elements())
        if twice := [key for key, count in self._after.ids.items() if count > 1]:
            return Verdict.BROKEN, f"{len(twice)} are there twice: {', '.join(map(str, twice[:3]))}"
        if more:
            known = sum(each in self._before.messages for each in more)
            return (
                Verdict.BROKEN,
                f"{known} too often and {len(more) - known} of nobody's: {_named(more)}",
            )
        return (Verdict.HELD, "") if self._after.messages else (Verdict.NOT_EXERCISED, "no messages")

    def _handed_out(self) -> tuple[Verdict, str]:
        again = [record for record in self._outcome.records if record.attempts > 1]
        wrong = [record for record in again if record.attempts - 1 > _times(record, _REASONS)]
        if wrong:
            numbers = ", ".join(str(record.delivery_id) for record in wrong[:5])
            return Verdict.BROKEN, f"{len(wrong)} were, without a failure or an expired lease: {numbers}"
        expired = sum(_times(record, ("lease-expired",)) for record in self._outcome.records)
        held = f"{len(again)} were handed out again, {expired} leases ended"
        return (Verdict.HELD, held) if self._outcome.records else (Verdict.NOT_EXERCISED, "no messages")

    def _order(self) -> tuple[Verdict, str]:
        lanes = defaultdict(list)
        for record in self._outcome.records:
            key = record.message.ordering_key if record.message else None
            if key is not None and record.state is DeliveryState.DONE and not record.redrives:
                lanes[record.mailbox, key].append(record)
        judged = {lane: records for lane, records in lanes.items() if len(records) > 1}
        wrong = [lane for lane, records in judged.items() if not _is_in_order(records)]
        if wrong:
            return Verdict.BROKEN, f"key {wrong[0][1]!r} of mailbox {wrong[0][0]!r} was not"
        if not judged:
            return Verdict.NOT_EXERCISED, "no two messages have one key"
        return Verdict.HELD, f"{len(judged)} keys"

    def _ended(self) -> tuple[Verdict, str]:
        left = self._after.open - self._before.open
        if self._outcome.state != self._without.state:
            return Verdict.NOT_EXERCISED, "the run did not get so far"
        if left:
            return Verdict.BROKEN, f"{left.total()} are open: {_named(left.elements())}"
        states = Counter(record.state for record in self._outcome.records)
        held = f"{states[DeliveryState.DONE]} done, {states[DeliveryState.DEAD]} dead"
        waiting = len(self._outcome.records) - sum(states[each] for each in _ENDED)
        waiting_said = f", {waiting} open as without faults" if waiting else ""
        if not self._outcome.records:
            return Verdict.NOT_EXERCISED, "no messages"
        return Verdict.HELD, held + waiting_said

    def _breakers(self) -> tuple[Verdict, str]:
        struck = {point.removeprefix("call:") for point in self._outcome.failing}
        # What fails somewhere fails the agents that need it; and everybody needs the store.
        everywhere = any(
            not point.startswith(("agent:", "call:")) for point in struck & self._outcome.failing
        )
        wrong = sorted(
            key
            for key in self._outcome.opened
            if not everywhere and key not in struck and not (struck and key.startswith("agent:"))
        )
        if wrong:
            return Verdict.BROKEN, f"{', '.join(wrong)} opened, and no failure was injected there"
        if not self._outcome.failing:
            return Verdict.NOT_EXERCISED, "no call failed"
        return Verdict.HELD, f"opened: {', '.join(sorted(self._outcome.opened)) or 'none'}"

    def _degraded(self) -> tuple[Verdict, str]:
        silent = [task for task, says_so in self._outcome.degraded if not says_so]
        if silent:
            return Verdict.BROKEN, f"of {', '.join(silent)} it does not"
        if not self._outcome.degraded:
            return Verdict.NOT_EXERCISED, "no result was degraded"
        return Verdict.HELD, ", ".join(task for task, _ in self._outcome.degraded)

    def _damage(self) -> tuple[Verdict, str]:
        said = [_DELIVERY.search(each) for each in self._outcome.damaged]
        numbers = {int(each[1]) for each in said if each is not None}
        if not numbers:
            return Verdict.NOT_EXERCISED, "no message was damaged"
        by_number = {record.delivery_id: record for record in self._outcome.records}
        passed = [n for n in numbers if n in by_number and by_number[n].state is not DeliveryState.DEAD]
        if passed:
            return (
                Verdict.BROKEN,
                f"{len(passed)} of {len(numbers)} passed as if nothing were wrong: {passed[:5]}",
            )
        found = [by_number[n] for n in numbers if n in by_number]
        if not found:
            return Verdict.NOT_EXERCISED, "it was a message of another conversation"
        return Verdict.HELD, f"{len(found)} in the dead letters: {found[0].reason}"


class _Kept:
    """What a run left, by what it is: messages have other ids in each run."""

    def __init__(self, records: Sequence[DeliveryRecord]) -> None:
        by_id: dict[str, Message] = {}
        for record in records:
            if record.message is not None:
                by_id.setdefault(record.message.id, record.message)
        keys = [(_lineage(record.message, by_id), record.mailbox) for record in records]
        told = list(zip(keys, records, strict=True))
        self.messages = Counter(keys)
        self.open = Counter(key for key, record in told if record.state not in _ENDED)
        self.dead = Counter(key[0] for key, record in told if record.state is DeliveryState.DEAD)
        self.ids = Counter(
            (record.message.source, record.message.id, record.mailbox)
            for record in records
            if record.message is not None
        )


def _lineage(message: Message | None, by_id: Mapping[str, Message]) -> Lineage:
    lineage: list[tuple[str | None, ...]] = []
    while message is not None and len(lineage) < _DEEPEST:
        lineage.append((message.source, message.type, message.subject, message.ordering_key, message.topic))
        message = by_id.get(message.causation_id or "")
    return tuple(reversed(lineage))


def _comes_of(lineage: Lineage, dead: Mapping[Lineage, int]) -> bool:
    return any(lineage[:length] in dead for length in range(1, len(lineage)))


def _named(keys: Iterable[tuple[Lineage, str]]) -> str:
    said = []
    for lineage, mailbox in itertools.islice(keys, 3):
        source, kind, subject = lineage[-1][:3] if lineage else ("?", "?", None)
        said.append(f"{kind} of {source} to {mailbox}" + (f" about {subject}" if subject else ""))
    return "; ".join(said)


def _times(record: DeliveryRecord, events: Sequence[str]) -> int:
    return sum(entry.event in events for entry in record.history)


def _is_in_order(records: Sequence[DeliveryRecord]) -> bool:
    times = [record.updated_at for record in sorted(records, key=lambda record: record.delivery_id)]
    return all(one <= other for one, other in itertools.pairwise(times))
