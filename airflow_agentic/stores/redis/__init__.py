"""The ports on Redis 7 or newer: every operation is one script, so that it happens as a whole or not at all.

All keys begin with a prefix, ``agentic:`` by default. ``M`` is a mailbox, ``P`` a priority, ``N`` the number of a delivery:

============================  =======================================================================================
``q:P:M``                     stream of what is ready since it was sent, oldest first; what is leased leaves it
``c:M``, ``f:M``, ``w:M``     ready deliveries by number: claimable, for later, waiting for their lane
``g0:M``, ``g1:M``            those of ``f:M`` by time: not tried yet, and tried
``t:P:M``                     ready deliveries that are not in the stream, by time
``x:P:M``                     leased deliveries, by the end of the lease
``done:M``, ``dead:M``        ended deliveries, by number; ``dead``: those of all mailboxes
``lane:M/KEY``                open deliveries of a lane, by number
``d:N``, ``h:N``              a delivery, and its history
``e:N``                       the envelope of the message whose first delivery that is
``m:ID``, ``r:CORRELATION``   first deliveries of messages, by message id (and source) and by conversation
``ended``, ``ttl``            messages that are done everywhere, by age; deliveries that can expire, by time
``n``, ``mailboxes``          the last number; mailboxes, and the priorities that they have
``state:S``, ``keys:S``       values of a scope, and their names in order; ``receipts``: those of inboxes, by age
``subscriptions``, ``beats``  who wants to hear what; the last sign of life of each source
``agent:A``, ``instances:A``  a named agent and its instances; ``agents`` and ``names`` find them
``guard:K:NAME``              a document of a guard of kind ``K``; ``guards:K``: their names, in order
``run:S``, ``log:S``          the head of a durable run, and its records by version
``snap:S``, ``snaps:S``       its snapshots, and their versions
``streams``, ``of:C``         names of runs, in order; the same of one correlation
``runs:ST``, ``runs:ST:A``    runs that stand so, and those of one agent, by the time of their last record
``schema``                    the version of all this
============================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_agentic.errors import InvalidOption

if TYPE_CHECKING:
    from airflow_agentic.stores.redis.whole import WholeRedis

__all__ = ["open_redis"]


def open_redis(url: str, *, clock: Callable[[], datetime] | None = None) -> WholeRedis:
    """Connect to a server; an empty one gets this version's schema.

    Args:
        url: ``redis://user:password@host:6379/0``, with ``rediss`` for TLS. Options: ``prefix``, ``timeout`` in seconds,
            and for TLS ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_cert_reqs``.
        clock: Tells the time instead of the server, in tests.

    Raises:
        InvalidOption: The URL cannot be used, or the driver is not installed.
        StoreUnavailable: The server cannot be reached.
        StoreNotWritable: It can be reached and not written.
        StoreError: It is too old.
        SchemaTooNew: The store was made by a newer version.
    """
    try:
        from airflow_agentic.stores.redis.opening import opened
    except ImportError as error:
        if error.name != "redis":
            raise
        raise InvalidOption(
            "a store on Redis needs a driver: pip install 'airflow-provider-agentic[redis]'"
        ) from None
    return opened(url, clock)
