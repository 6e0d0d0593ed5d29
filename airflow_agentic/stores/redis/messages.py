"""Messages on the way."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow_agentic.errors import MailboxFull
from airflow_agentic.messaging.delivery import stale_lease
from airflow_agentic.messaging.ports import Address, Claim, Outgoing, Settlement, StateChange, Wanted
from airflow_agentic.stores.redis.connections import Argument
from airflow_agentic.stores.redis.scripts import (
    APPEND,
    CLAIM,
    COMMIT,
    COMMIT_WITHOUT_MORE,
    DUE,
    EXTEND,
    SETTLE,
)
from airflow_agentic.stores.redis.server import RedisServer, from_time, to_bytes, to_ms
from airflow_agentic.stores.redis.values import change_arguments, state_conflict

_LONGEST_WAIT = timedelta(seconds=5)


class RedisMessages:
    """Implements :class:`airflow_agentic.messaging.ports.MessageStore`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """See the port."""
        call = secrets.token_hex(4)
        arguments = list(outgoing_arguments(outgoing))
        # Where the answer is lost, the messages may be there already: they tell by which call they came.
        answer = self._server.run(APPEND, call, "0", *arguments, repeated=(call, "1", *arguments))
        check_sent(answer)
        return [flag == "1" for flag in answer[1].decode()]

    def claim(self, wanted: Wanted) -> list[Claim]:
        """See the port."""
        while True:
            claims, found = self._server.run(CLAIM, *_wanted_arguments(wanted))
            # All of them may have been buried: there can be more behind them.
            if claims or not found:
                return _claims(claims)

    def settle(
        self,
        settlements: Sequence[Settlement],
        outgoing: Sequence[Outgoing] = (),
        changes: Sequence[StateChange] = (),
        then: Wanted | None = None,
    ) -> list[Claim]:
        """See the port."""
        settled = _settlement_arguments(settlements)
        if not outgoing and not changes and then is None:
            check_sent(self._server.run(SETTLE, *settled))
            return []
        wanted = (0,) if then is None else (1, *_wanted_arguments(then))
        sent = (*change_arguments(changes), *outgoing_arguments(outgoing))
        script = COMMIT if outgoing or changes else COMMIT_WITHOUT_MORE
        answer = self._server.run(script, *settled, *sent, *wanted)
        check_sent(answer, changes)
        return _claims(answer[1])

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """See the port."""
        pairs = [each for pair in held.items() for each in pair]
        ends = self._server.run(EXTEND, to_ms(lease), len(held), *pairs)
        return {int(ends[i]): from_time(ends[i + 1]) for i in range(0, len(ends), 2)}

    def wait(self, mailbox: str, timeout: timedelta) -> None:
        """See the port."""
        soonest, ids = self._server.run(DUE, mailbox)
        longest = to_ms(min(timeout, _LONGEST_WAIT, timedelta(seconds=self._server.patience / 2)))
        milliseconds = longest if soonest < 0 else min(longest, soonest)
        if milliseconds > 0:
            streams = [self._server.key(f"q:{priority}:{mailbox}") for priority in range(10)]
            self._server.command("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", *streams, *ids)


def _settlement_arguments(settlements: Sequence[Settlement]) -> Iterator[Argument]:
    yield len(settlements)
    for each in settlements:
        yield to_bytes(f"{each.delivery_id} {each.outcome} {to_ms(each.delay)} {each.token}")
        yield to_bytes(each.reason)


def outgoing_arguments(outgoing: Sequence[Outgoing]) -> Iterator[Argument]:
    """Yield messages as scripts take them."""
    yield len(outgoing)
    for message in outgoing:
        yield from _message_arguments(message)


def _message_arguments(message: Outgoing) -> Iterator[Argument]:
    same = message.correlation_id == message.message_id
    yield from (message.message_id, message.source, "" if same else message.correlation_id)
    yield from (message.ordering_key or "", message.envelope)
    ttl = "-" if message.ttl is None else to_ms(message.ttl)
    yield f"{message.priority} {to_ms(message.delay)} {ttl} {len(message.addresses)}"
    for each in message.addresses:
        yield from _address_arguments(each)


def _address_arguments(address: Address) -> tuple[Argument, ...]:
    numbers = f"{address.max_attempts} {address.limit}"
    if address.dead is not None:
        return f"{numbers} dead", address.mailbox, to_bytes(address.dead)
    if address.limit and address.overflow == "dead-letter":
        return f"{numbers} dead-letter", address.mailbox, address.full
    return f"{numbers} refuse", address.mailbox


def _wanted_arguments(wanted: Wanted) -> tuple[Argument, ...]:
    return f"{wanted.limit} {to_ms(wanted.lease)} {secrets.token_hex(16)}", wanted.mailbox, wanted.owner


def check_sent(answer: Any, changes: Sequence[StateChange] = ()) -> None:
    """Raise the error for what a script refused.

    Raises:
        StaleLease: A delivery is not held any more.
        StateConflict: One of the changes is of a value of another version.
        MailboxFull: A message found no room.
    """
    kind, *rest = answer
    if kind == b"stale":
        raise stale_lease(int(rest[0]))
    if kind == b"conflict":
        raise state_conflict(changes[rest[0] - 1], rest[1])
    if kind == b"full":
        raise MailboxFull(Address(rest[0].decode(), 1, rest[1]).full)


def _claims(rows: Any) -> list[Claim]:
    claims = [_claim(*row) for row in rows]
    return sorted(claims, key=lambda claim: (-claim.priority, claim.delivery_id))


def _claim(about: bytes, envelope: bytes, key: bytes | None) -> Claim:
    number, attempt, most, ends, priority, token = about.decode().split()
    ordering_key = None if key is None else key.decode()
    return Claim(
        int(number),
        token,
        int(attempt),
        int(most),
        from_time(int(ends)),
        envelope,
        ordering_key,
        int(priority),
    )
