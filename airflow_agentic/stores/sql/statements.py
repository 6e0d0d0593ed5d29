"""The SQL of the bus. Every time is the store's clock, in milliseconds since 1970 UTC."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from airflow_agentic.stores.sql.dialects import Dialect


@dataclass(frozen=True)
class Statements:
    """What the bus says to a database. ``{where}`` is filled in from a query.

    Attributes:
        send: Message and delivery in one, or ``None`` where that takes two statements.
        insert_message: Returns ``seq``, or no row for a duplicate.
        insert_delivery: For the ``seq`` of a new message.
        claim: One statement claims what is ready, takes over leases that ended, and buries what spent its last
            attempt.
        settle: By outcome; changes one row, or none if the lease is not held.
        extend: Returns the lease that is still held.
        redrive: Returns the deliveries that were dead.
        find: Deliveries with their envelopes.
        stats: Counts by mailbox and state.
    """

    send: str | None
    insert_message: str
    insert_delivery: str
    claim: str
    settle: dict[str, str]
    extend: str
    redrive: str
    find: str
    stats: str


@functools.cache
def statements_of(dialect: Dialect) -> Statements:
    """Write the statements for a database."""
    return Statements(
        send=_send(dialect) if dialect.one_statement_sends else None,
        insert_message=_insert_message(dialect),
        insert_delivery=_insert_delivery(dialect, "VALUES (:seq, {values})"),
        claim=_claim(dialect),
        settle=_settle(dialect),
        extend=_extend(dialect),
        redrive=_redrive(dialect),
        find=_FIND,
        stats=_stats(dialect),
    )


def _held(dialect: Dialect) -> str:
    # A lease counts only while it lasts: a late ack is refused even if nobody claimed the delivery since.
    return f"delivery_id = :id AND lease_token = :token AND state = 'leased' AND visible_at > {dialect.now}"


def _history(dialect: Dialect, event: str, actor: str, detail: str) -> str:
    entry = (
        f"{dialect.json_object}('at', {dialect.now}, 'event', '{event}', 'attempt', attempts, "
        f"'actor', {actor}, 'detail', {detail})"
    )
    return dialect.appended.format(entry=entry)


def _insert_message(dialect: Dialect) -> str:
    return f"""
    INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)
    VALUES (:message_id, :source, :correlation_id, {dialect.now}, :envelope)
    ON CONFLICT (message_id, source) DO NOTHING
    RETURNING seq"""


def _insert_delivery(dialect: Dialect, rows: str) -> str:
    values = f":mailbox, 'ready', {dialect.now} + :delay, :max_attempts, {dialect.now}"
    return f"""
    INSERT INTO agentic_delivery (message_seq, mailbox, state, visible_at, max_attempts, updated_at)
    {rows.format(values=values)}"""


def _send(dialect: Dialect) -> str:
    delivery = _insert_delivery(dialect, "SELECT seq, {values} FROM message")
    return f"WITH message AS ({_insert_message(dialect)}){delivery}"


def _claim(dialect: Dialect) -> str:
    now, spent = dialect.now, "state = 'leased' AND attempts >= max_attempts"
    expired = _history(
        dialect, "lease-expired", "lease_owner", "'the lease ended before the delivery was settled'"
    )
    query = f"""
        SELECT delivery_id FROM agentic_delivery
        WHERE mailbox = :mailbox AND state IN ('ready', 'leased') AND visible_at <= {now}
        ORDER BY visible_at, delivery_id LIMIT :limit {dialect.skip_locked}"""
    return f"""
    UPDATE agentic_delivery SET
        history = CASE WHEN state = 'leased' THEN {expired} ELSE history END,
        reason = CASE WHEN {spent}
            THEN 'attempts spent: the lease of the last one (' || lease_owner || ') ended'
            ELSE reason END,
        state = CASE WHEN {spent} THEN 'dead' ELSE 'leased' END,
        attempts = CASE WHEN {spent} THEN attempts ELSE attempts + 1 END,
        lease_token = {dialect.token},
        lease_owner = :owner,
        visible_at = {now} + :lease,
        updated_at = {now}
    WHERE delivery_id {dialect.picked.format(query=query)}
    RETURNING delivery_id, state, lease_token, attempts, max_attempts, visible_at,
        (SELECT envelope FROM agentic_message WHERE seq = message_seq) AS envelope"""


def _settle(dialect: Dialect) -> dict[str, str]:
    now, held = dialect.now, _held(dialect)
    # A parameter has no type of its own where a function takes values of any type.
    nack, reject = (
        _history(dialect, event, "lease_owner", "CAST(:reason AS TEXT)") for event in ("nack", "reject")
    )
    return {
        "ack": f"""
        UPDATE agentic_delivery SET state = 'done', lease_token = NULL, reason = NULL, updated_at = {now}
        WHERE {held}""",
        "nack": f"""
        UPDATE agentic_delivery SET
            state = CASE WHEN attempts >= max_attempts THEN 'dead' ELSE 'ready' END,
            reason = CASE WHEN attempts < max_attempts THEN CAST(:reason AS TEXT)
                WHEN CAST(:reason AS TEXT) = '' THEN 'attempts spent'
                ELSE 'attempts spent: ' || CAST(:reason AS TEXT) END,
            history = {nack},
            visible_at = {now} + :delay, lease_token = NULL, updated_at = {now}
        WHERE {held}""",
        "reject": f"""
        UPDATE agentic_delivery SET
            state = 'dead', reason = CAST(:reason AS TEXT), history = {reject},
            lease_token = NULL, updated_at = {now}
        WHERE {held}""",
        "release": f"""
        UPDATE agentic_delivery SET
            state = 'ready', attempts = attempts - 1, visible_at = {now}, lease_token = NULL, updated_at = {now}
        WHERE {held}""",
    }


def _extend(dialect: Dialect) -> str:
    return f"""
    UPDATE agentic_delivery SET visible_at = {dialect.now} + :lease, updated_at = {dialect.now}
    WHERE {_held(dialect)}
    RETURNING delivery_id, visible_at"""


def _redrive(dialect: Dialect) -> str:
    # The state is asked for twice: somebody else may redrive the same ones while this waits for them.
    return f"""
    UPDATE agentic_delivery SET
        history = {_history(dialect, "redrive", "CAST(:actor AS TEXT)", "CAST(:reason AS TEXT)")},
        state = 'ready', attempts = 0, redrives = redrives + 1, reason = NULL,
        visible_at = {dialect.now}, updated_at = {dialect.now}
    WHERE state = 'dead' AND delivery_id IN (
        SELECT d.delivery_id FROM agentic_delivery d JOIN agentic_message m ON m.seq = d.message_seq
        WHERE d.state = 'dead' AND {{where}})
    RETURNING delivery_id"""


_FIND = """
    SELECT d.delivery_id, d.mailbox, d.state, d.attempts, d.max_attempts, d.visible_at, d.updated_at,
        d.reason, d.lease_owner, d.redrives, d.history, m.envelope
    FROM agentic_delivery d JOIN agentic_message m ON m.seq = d.message_seq
    WHERE {where}
    ORDER BY d.delivery_id LIMIT :limit"""


def _stats(dialect: Dialect) -> str:
    now = dialect.now
    return f"""
    SELECT mailbox, state, count(*) AS count, {now} AS now,
        count(CASE WHEN visible_at > {now} THEN 1 END) AS invisible,
        count(CASE WHEN visible_at > {now} AND attempts = 0 THEN 1 END) AS unseen,
        min(CASE WHEN visible_at <= {now} THEN visible_at END) AS oldest,
        max(CASE WHEN visible_at <= {now} THEN delivery_id END) AS newest
    FROM agentic_delivery
    WHERE CAST(:mailbox AS TEXT) IS NULL OR mailbox = :mailbox
    GROUP BY mailbox, state"""
