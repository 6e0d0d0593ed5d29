"""A store that fails as the rules of fault injection say; the real one is behind it.

What a fault means for whoever calls: ``error``, the request never arrived: nothing was done, and :class:`StoreUnavailable`
says so. ``drop``, the answer was lost: all was done and is on disk, and the caller sees the same error. ``duplicate``, the
request arrived twice. ``sigkill``, the process ended between the commit and the answer. ``corrupt``, a byte of a message is
broken on its way out. ``slow_store``, it took longer. ``clock_jump``, this process's clock is off: it sees leases end, and
lets messages expire, so much sooner than they should; the leases themselves are the store's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_agentic.config.faults import FaultKind
from airflow_agentic.errors import StoreUnavailable
from airflow_agentic.messaging.ports import (
    BusStore,
    Claim,
    MessageStore,
    Outgoing,
    Settlement,
    StateChange,
    Wanted,
)
from airflow_agentic.resilience.fault_rules import Injection
from airflow_agentic.resilience.faults import Faults, kill, linger
from airflow_agentic.resilience.ports import GuardChange, GuardEntry, GuardKey, GuardReading, GuardStore, Kind

_STORE = "store"
_REQUEST: tuple[FaultKind, ...] = ("slow_store", "latency", "error")
_ANSWER: tuple[FaultKind, ...] = ("sigkill", "drop")
_ERROR: tuple[FaultKind, ...] = ("error",)
_LATENCY: tuple[FaultKind, ...] = ("latency",)
_CORRUPT: tuple[FaultKind, ...] = ("corrupt",)
_DUPLICATE: tuple[FaultKind, ...] = ("duplicate",)
_CLOCK: tuple[FaultKind, ...] = ("clock_jump",)


def faulty_bus(store: BusStore, faults: Faults) -> BusStore:
    """Return a bus store whose messages on the way suffer what the rules say; books and state do not."""
    return replace(store, messages=FaultyMessages(store.messages, faults))


class FaultyMessages:
    """Implements :class:`airflow_agentic.messaging.ports.MessageStore`.

    Args:
        store: Does the work.
        faults: Says what goes wrong.
    """

    def __init__(self, store: MessageStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """See the port.

        Raises:
            StoreUnavailable: A rule says so, or it is so.
        """
        points = _sends(outgoing)
        self._request(_STORE, *points)
        stored = self._store.append(self._aged(outgoing))
        self._again(outgoing)
        self._answer(*points, _STORE)
        return stored

    def claim(self, wanted: Wanted) -> list[Claim]:
        """See the port.

        Raises:
            StoreUnavailable: A rule says so, or it is so.
        """
        point = f"receive:{wanted.mailbox}"
        self._request(_STORE)
        self._request(point, only=_ERROR)
        return self._received(point, self._store.claim(wanted))

    def settle(
        self,
        settlements: Sequence[Settlement],
        outgoing: Sequence[Outgoing] = (),
        changes: Sequence[StateChange] = (),
        then: Wanted | None = None,
    ) -> list[Claim]:
        """See the port.

        Raises:
            StoreUnavailable: A rule says so, or it is so.
        """
        points = _sends(outgoing)
        self._request(_STORE, *points)
        if then is not None:
            self._request(f"receive:{then.mailbox}", only=_ERROR)
        claims = self._store.settle(settlements, self._aged(outgoing), changes, then)
        self._again(outgoing)
        self._answer(*points)
        return self._received("" if then is None else f"receive:{then.mailbox}", claims)

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """See the port.

        Raises:
            StoreUnavailable: A rule says so, or it is so.
        """
        self._request(_STORE)
        ends = self._store.extend(held, lease)
        self._answer(_STORE)
        off = self._clock()
        return {number: end - off for number, end in ends.items()}

    def wait(self, mailbox: str, timeout: timedelta) -> None:
        """See the port."""
        self._store.wait(mailbox, timeout)

    # -- inside ----------------------------------------------------------------------------------------

    def _request(self, *points: str, only: Sequence[FaultKind] = _REQUEST) -> None:
        for point in points:
            suffer(self._faults.at(point, only))

    def _answer(self, *points: str) -> None:
        for point in points:
            suffer(self._faults.at(point, _ANSWER))

    def _received(self, point: str, claims: list[Claim]) -> list[Claim]:
        """Let happen what happens to an answer; one that brings no message is the store's alone."""
        if claims:
            suffer(self._faults.at(point, _LATENCY))
            self._answer(point)
        self._answer(_STORE)
        off = self._clock()
        return [self._damaged(point, replace(each, lease_until=each.lease_until - off)) for each in claims]

    def _damaged(self, point: str, claim: Claim) -> Claim:
        for each in self._faults.at(point, _CORRUPT, f"delivery {claim.delivery_id}"):
            claim = replace(claim, envelope=damaged(claim.envelope, each.chance))
        return claim

    def _again(self, outgoing: Sequence[Outgoing]) -> None:
        for each in outgoing:
            if any(self._faults.at(point, _DUPLICATE, each.message_id) for point in _sends([each])):
                self._store.append([each])

    def _aged(self, outgoing: Sequence[Outgoing]) -> Sequence[Outgoing]:
        if all(each.ttl is None for each in outgoing):
            return outgoing
        off = self._clock()
        return [each if each.ttl is None else replace(each, ttl=each.ttl - off) for each in outgoing]

    def _clock(self) -> timedelta:
        jumps = self._faults.at(_STORE, _CLOCK)
        return timedelta(seconds=sum(each.seconds for each in jumps))


class FaultyGuards:
    """Implements :class:`airflow_agentic.resilience.ports.GuardStore`: what guards share suffers what the store does.

    Args:
        store: Does the work.
        faults: Says what goes wrong; has a store of its own, or the same without this around it.
    """

    def __init__(self, store: GuardStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        """See the port.

        Raises:
            StoreUnavailable: A rule says so, or it is so.
        """
        suffer(self._faults.at(_STORE, _REQUEST))
        reading = self._store.read(keys)
        suffer(self._faults.at(_STORE, _ANSWER))
        return reading

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        """See the port.

        Raises:
            StoreUnavailable: A rule says so, or it is so.
        """
        suffer(self._faults.at(_STORE, _REQUEST))
        done = self._store.change(changes)
        suffer(self._faults.at(_STORE, _ANSWER))
        return done

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        """See the port."""
        return self._store.entries(kind, prefix, limit)

    def purge(self) -> int:
        """See the port."""
        return self._store.purge()


def suffer(found: Iterable[Injection]) -> None:
    """Let faults of a store happen: wait, end the process, or fail.

    Raises:
        StoreUnavailable: The request, or its answer, was lost.
    """
    for each in found:
        if each.what in ("slow_store", "latency"):
            linger(each.seconds)
        elif each.what == "sigkill":
            kill()
        else:
            raise StoreUnavailable(each.text)


def damaged(envelope: bytes, chance: int) -> bytes:
    """Return bytes of which one is broken, so that they are no text any more.

    Args:
        envelope: The bytes: a text.
        chance: Decides which byte.
    """
    position = chance % len(envelope)
    broken = bytearray(envelope)
    broken[position] ^= 0x80
    return bytes(broken)


def _sends(outgoing: Iterable[Outgoing]) -> list[str]:
    return list(dict.fromkeys(f"send:{to.mailbox}" for each in outgoing for to in each.addresses))
