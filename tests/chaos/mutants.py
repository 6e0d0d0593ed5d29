"""Buses and stores with one promise broken each. A harness that does not find them proves nothing."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from airflow_agentic.messaging import BusOptions, MessageBus
from airflow_agentic.messaging.ports import BusStore, Settlement
from airflow_agentic.stores import Store, open_store
from airflow_agentic.stores.sql import dialects, statements


class Inside:
    """A message store around another one."""

    def __init__(self, inner: Any):
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WithoutLeases(Inside):
    """What is handed out is off the books: nobody has to come back for it."""

    def claim(self, wanted):
        claims = self._inner.claim(wanted)
        if claims:
            self._inner.settle([_ack(claim, wanted.mailbox) for claim in claims])
        return claims

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        # With nothing to settle, what else is to happen can still happen in one commit.
        if outgoing or changes:
            self._inner.settle([], outgoing, changes)
        return self.claim(then) if then else []


class WithoutLanes(Inside):
    """Whoever comes first takes what is there, whatever its key."""

    def append(self, outgoing):
        return self._inner.append([dataclasses.replace(each, ordering_key=None) for each in outgoing])

    def settle(self, settlements, outgoing=(), changes=(), then=None):
        outgoing = [dataclasses.replace(each, ordering_key=None) for each in outgoing]
        return self._inner.settle(settlements, outgoing, changes, then)


class AcksEarly(MessageBus):
    """Takes a message off the books when it is received instead of when it was handled."""

    def receive(self, *arguments, **values):
        deliveries = super().receive(*arguments, **values)
        if deliveries:
            super().ack(*deliveries)
        return deliveries

    def ack(self, *deliveries, send=(), state=None, versions=None, inbox=None):
        self.send_many(send)
        for key, value in (state or {}).items():
            self.state(deliveries[0].mailbox).put(key, value, (versions or {}).get(key))

    def ack_and_receive(self, *deliveries, send=(), max_messages=1, lease=None):
        return self.receive(deliveries[0].mailbox, max_messages=max_messages, lease=lease)

    def _settled_before(self, *_arguments, **_values):
        """Nacks and rejects come too late: it is done already."""

    nack = reject = release = _settled_before


class WithoutInbox(MessageBus):
    """Notes nothing when a consumer says that it handled a message."""

    def ack(self, *deliveries, send=(), state=None, versions=None, inbox=None):
        super().ack(*deliveries, send=send, state=state, versions=versions)


def _ack(claim, mailbox):
    return Settlement(claim.delivery_id, claim.token, "ack", mailbox=mailbox, ordering_key=claim.ordering_key)


def _without_tokens(messages: Any) -> None:
    """Let everybody settle everything at any time (SQLite)."""
    said, held = messages._sql, statements.held(dialects.SQLITE)
    anybody = {name: text.replace(held, "delivery_id = :id") for name, text in said.settle.items()}
    messages._sql = dataclasses.replace(
        said, settle=anybody, ack_many=said.ack_many.replace(held, "delivery_id = :id")
    )


def _without_durability() -> None:
    """Let commits of this process return before they are on disk (PostgreSQL)."""
    from airflow_agentic.stores.sql import postgresql

    postgresql._SETTINGS = "SELECT set_config('synchronous_commit', 'off', false)"


_BUSES = {"acks early": AcksEarly, "no inbox": WithoutInbox}
_MESSAGES = {"no leases": WithoutLeases, "no lanes": WithoutLanes}
MUTANTS = ("acks early", "no leases", "no tokens", "no lanes", "no inbox", "commits late", "keeps nothing")
"""The last one is a server that is told to; the others are made here."""


def opened(url: str, options: BusOptions, mutant: str = "") -> Store:
    """Open a store; with a mutant's name, one that breaks that promise."""
    assert not mutant or mutant in MUTANTS
    if mutant == "commits late":
        _without_durability()
    if mutant == "keeps nothing":
        # The store warns of such a server, and it is right.
        logging.getLogger("airflow_agentic.stores.redis").setLevel(logging.ERROR)
    store = open_store(url, options=options)
    inner: BusStore = store.bus._store
    if mutant == "no tokens":
        _without_tokens(inner.messages)
    if mutant in _MESSAGES:
        inner = dataclasses.replace(inner, messages=_MESSAGES[mutant](inner.messages))
    return dataclasses.replace(store, bus=_BUSES.get(mutant, MessageBus)(inner, options))
