"""The SQL of the bus. Every time is the store's clock, in milliseconds since 1970 UTC."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from airflow_agentic.messaging.ports import EXPIRED
from airflow_agentic.stores.sql.dialects import Dialect


@dataclass(frozen=True)
class Statements:
    """What the bus says to a database. ``{where}`` is filled in from a query.

    Attributes:
        now: The time.
        send: Message and one delivery in one statement, or ``None`` where that takes two.
        send_many: The same for many plain messages, all of them different, whose values come as arrays; returns the
            positions, from 1, of those that were sent before.
        deliver: The delivery of a plain message: ready, in no lane, without history.
        last_number: The time, and the number of the last message, where the writer is alone and may count itself.
        number_message: A message with a number of the writer's own; nothing happens for a duplicate.
        insert_message: Returns ``seq`` and ``created_at``, or no row for a duplicate.
        insert_messages: The same for many, where their values can come as arrays.
        insert_delivery: For the ``seq`` of a new message.
        insert_deliveries: The same for many, where their values can come as arrays.
        enter_lane: Count a delivery of a lane; returns how many are open, and locks the lane.
        lock_lane: Lock a lane that something leaves.
        leave_lane: Count one less.
        end_lane: Forget a lane without open deliveries.
        promote: Let the first of those that wait in a lane be claimed.
        count_open: Open deliveries of a mailbox, counted up to ``:limit``.
        claim: One statement claims what is ready, takes over leases that ended, and buries what is spent or expired.
            In a lane it only marks what is to be buried: then the next one has to be let in, in one transaction.
        bury: Bury what a claim marked.
        settle: By outcome; returns the new state, or no row if the lease is not held.
        ack_many: Acks many, where ids and tokens can come as arrays; elsewhere one of many.
        extend: Returns the lease that is still held.
        redrive: One dead delivery.
        copy: One more delivery of the message of another one.
        dead: Numbers of dead deliveries.
        find: Deliveries with their envelopes.
        stats: Counts by mailbox and state.
        stats_of: The same for one mailbox, in parts.
        late: Ready deliveries that have expired.
        expire: Bury one of them.
        old: Messages that are done everywhere.
    """

    now: str
    send: str | None
    send_many: str | None
    deliver: str
    last_number: str
    number_message: str
    insert_message: str
    insert_messages: str
    insert_delivery: str
    insert_deliveries: str
    enter_lane: str
    lock_lane: str
    leave_lane: str
    end_lane: str
    promote: str
    count_open: str
    claim: str
    bury: str
    settle: dict[str, str]
    ack_many: str
    extend: str
    redrive: str
    copy: str
    dead: str
    find: str
    stats: str
    stats_of: str
    late: str
    expire: str
    old: str


@functools.cache
def statements_of(dialect: Dialect) -> Statements:
    """Write the statements for a database."""
    return Statements(
        now=f"SELECT {dialect.now} AS now",
        send=_send(dialect) if dialect.one_statement_sends else None,
        send_many=_SEND_MANY.format(now=dialect.now) if dialect.one_statement_sends else None,
        deliver=_DELIVER,
        last_number=_LAST_NUMBER.format(now=dialect.now),
        number_message=_NUMBER_MESSAGE,
        insert_message=_insert_message(
            dialect, "VALUES (:message_id, :source, :correlation_id, {now}, :envelope)"
        ),
        insert_messages=_insert_message(dialect, _MESSAGES_OF_ARRAYS),
        insert_delivery=_insert_delivery(f"VALUES ({', '.join(f':{name}' for name in _DELIVERY)})"),
        insert_deliveries=_insert_delivery(_DELIVERIES_OF_ARRAYS),
        enter_lane=_ENTER_LANE,
        lock_lane=f"{_LANE} {dialect.for_update}",
        leave_lane="UPDATE agentic_lane SET deliveries = deliveries - 1 WHERE mailbox = :mailbox AND ordering_key = :key",
        end_lane="DELETE FROM agentic_lane WHERE mailbox = :mailbox AND ordering_key = :key AND deliveries <= 0",
        promote=_PROMOTE,
        count_open=_COUNT_OPEN,
        claim=_claim(dialect),
        bury=_bury(dialect),
        settle=_settle(dialect),
        ack_many=_ack_many(dialect),
        extend=_extend(dialect),
        redrive=_redrive(dialect),
        copy=_COPY.format(now=dialect.now),
        dead=_DEAD.format(
            where="{where}", for_update=f"{dialect.for_update} OF d" if dialect.for_update else ""
        ),
        find=_FIND,
        stats=_stats(dialect).format(where="1 = 1"),
        stats_of=" UNION ALL ".join(_stats(dialect).format(where=part) for part in STATES_OF_MAILBOX),
        late=_LATE.format(now=dialect.now, for_update=dialect.for_update),
        expire=_expire(dialect),
        old=_OLD.format(now=dialect.now),
    )


_DELIVERY = (
    "seq", "mailbox", "state", "visible_at", "attempts", "max_attempts", "updated_at", "priority", "ordering_key",
    "waiting", "expires_at", "reason", "history",
)  # fmt: skip

_DELIVER = """
    INSERT INTO agentic_delivery
        (message_seq, mailbox, state, visible_at, max_attempts, updated_at, priority, expires_at)
    VALUES (?, ?, 'ready', ?, ?, ?, ?, ?)"""

_SEND_MANY = """
    WITH given AS (
        SELECT * FROM unnest(CAST(:message_id AS TEXT[]), CAST(:source AS TEXT[]), CAST(:correlation_id AS TEXT[]),
            CAST(:envelope AS BYTEA[]), CAST(:mailbox AS TEXT[]), CAST(:delay AS BIGINT[]),
            CAST(:max_attempts AS INT[]), CAST(:priority AS SMALLINT[]), CAST(:ttl AS BIGINT[])) WITH ORDINALITY
            AS given(message_id, source, correlation_id, envelope, mailbox, delay, max_attempts, priority, ttl, position)
    ), message AS (
        INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)
        SELECT message_id, source, correlation_id, {now}, envelope FROM given ORDER BY position
        ON CONFLICT (message_id, source) DO NOTHING
        RETURNING seq, created_at, message_id, source
    ), delivery AS (
        INSERT INTO agentic_delivery
            (message_seq, mailbox, state, visible_at, max_attempts, updated_at, priority, expires_at)
        SELECT message.seq, given.mailbox, 'ready', message.created_at + given.delay, given.max_attempts,
            message.created_at, given.priority, message.created_at + given.ttl
        FROM message JOIN given ON given.message_id = message.message_id AND given.source = message.source
        ORDER BY message.seq
    )
    SELECT position FROM given WHERE NOT EXISTS (
        SELECT 1 FROM message WHERE message.message_id = given.message_id AND message.source = given.source)"""

_LAST_NUMBER = """
    SELECT {now} AS now, COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'agentic_message'), 0) AS number"""

_NUMBER_MESSAGE = """
    INSERT INTO agentic_message (seq, message_id, source, correlation_id, created_at, envelope)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (message_id, source) DO NOTHING"""

_MESSAGES_OF_ARRAYS = """
    SELECT message_id, source, correlation_id, {now}, envelope
    FROM unnest(CAST(:message_id AS TEXT[]), CAST(:source AS TEXT[]), CAST(:correlation_id AS TEXT[]),
        CAST(:envelope AS BYTEA[])) WITH ORDINALITY AS given(message_id, source, correlation_id, envelope, position)
    ORDER BY position"""

_DELIVERIES_OF_ARRAYS = """
    SELECT seq, mailbox, state, visible_at, attempts, max_attempts, updated_at, priority, ordering_key, waiting,
        expires_at, reason, history
    FROM unnest(CAST(:seq AS BIGINT[]), CAST(:mailbox AS TEXT[]), CAST(:state AS TEXT[]),
        CAST(:visible_at AS BIGINT[]), CAST(:attempts AS INT[]), CAST(:max_attempts AS INT[]),
        CAST(:updated_at AS BIGINT[]), CAST(:priority AS SMALLINT[]), CAST(:ordering_key AS TEXT[]),
        CAST(:waiting AS SMALLINT[]), CAST(:expires_at AS BIGINT[]), CAST(:reason AS TEXT[]),
        CAST(:history AS TEXT[])) WITH ORDINALITY
        AS given(seq, mailbox, state, visible_at, attempts, max_attempts, updated_at, priority, ordering_key, waiting,
            expires_at, reason, history, position)
    ORDER BY position"""

_LANE = "SELECT deliveries FROM agentic_lane WHERE mailbox = :mailbox AND ordering_key = :key"

_ENTER_LANE = """
    INSERT INTO agentic_lane (mailbox, ordering_key, deliveries) VALUES (:mailbox, :key, 1)
    ON CONFLICT (mailbox, ordering_key) DO UPDATE SET deliveries = agentic_lane.deliveries + 1
    RETURNING deliveries"""

_PROMOTE = """
    UPDATE agentic_delivery SET waiting = 0
    WHERE delivery_id = (
        SELECT min(delivery_id) FROM agentic_delivery
        WHERE mailbox = :mailbox AND ordering_key = :key AND waiting = 1)"""

_COUNT_OPEN = """
    SELECT count(*) FROM (
        SELECT 1 AS one FROM agentic_delivery
        WHERE mailbox = :mailbox AND state IN ('ready', 'leased') AND waiting = 0
        UNION ALL
        SELECT 1 FROM agentic_delivery WHERE mailbox = :mailbox AND waiting = 1
        LIMIT :limit) AS open"""

_COPY = """
    INSERT INTO agentic_delivery
        (message_seq, mailbox, state, visible_at, max_attempts, updated_at, priority, ordering_key, waiting)
    SELECT message_seq, CAST(:mailbox AS TEXT), 'ready', :visible_at, max_attempts, {now}, priority, ordering_key,
        :waiting
    FROM agentic_delivery WHERE delivery_id = :id"""

_DEAD = """
    SELECT d.delivery_id, d.mailbox, d.ordering_key
    FROM agentic_delivery d JOIN agentic_message m ON m.seq = d.message_seq
    WHERE d.state = 'dead' AND {where}
    ORDER BY d.delivery_id {for_update}"""

_LATE = """
    SELECT delivery_id, mailbox, ordering_key, waiting FROM agentic_delivery
    WHERE state = 'ready' AND expires_at IS NOT NULL AND expires_at <= {now}
    ORDER BY delivery_id LIMIT :limit {for_update}"""

_OLD = """
    SELECT seq, envelope FROM agentic_message
    WHERE created_at < {now} - :age AND NOT EXISTS (
        SELECT 1 FROM agentic_delivery WHERE message_seq = seq AND state <> 'done')
    ORDER BY seq LIMIT :limit"""

_FIND = """
    SELECT d.delivery_id, d.mailbox, d.state, d.attempts, d.max_attempts, d.visible_at, d.updated_at,
        d.reason, d.lease_owner, d.waiting, d.redrives, d.history, m.envelope
    FROM agentic_delivery d JOIN agentic_message m ON m.seq = d.message_seq
    WHERE {where}
    ORDER BY d.delivery_id LIMIT :limit"""


def held(dialect: Dialect) -> str:
    """Return the condition that a lease is held: a late ack is refused even if nobody claimed the delivery since."""
    return f"delivery_id = :id AND lease_token = :token AND state = 'leased' AND visible_at > {dialect.now}"


def history(dialect: Dialect, event: str, actor: str, detail: str, before: str = "history") -> str:
    """Return the history with one more entry."""
    entry = (
        f"{dialect.json_object}('at', {dialect.now}, 'event', '{event}', 'attempt', attempts, "
        f"'actor', {actor}, 'detail', {detail})"
    )
    return dialect.appended.format(history=before, entry=entry)


def _insert_message(dialect: Dialect, rows: str) -> str:
    return f"""
    INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)
    {rows.format(now=dialect.now)}
    ON CONFLICT (message_id, source) DO NOTHING
    RETURNING seq, created_at, message_id, source"""


def _insert_delivery(rows: str) -> str:
    return f"""
    INSERT INTO agentic_delivery (message_seq, mailbox, state, visible_at, attempts, max_attempts, updated_at, priority,
        ordering_key, waiting, expires_at, reason, history)
    {rows}"""


def _send(dialect: Dialect) -> str:
    message = _insert_message(dialect, "VALUES (:message_id, :source, :correlation_id, {now}, :envelope)")
    return f"""
    WITH message AS ({message})
    INSERT INTO agentic_delivery
        (message_seq, mailbox, state, visible_at, max_attempts, updated_at, priority, expires_at)
    SELECT seq, :mailbox, 'ready', created_at + :delay, :max_attempts, created_at, :priority,
        created_at + CAST(:ttl AS BIGINT)
    FROM message"""


def _claim(dialect: Dialect) -> str:
    now = dialect.now
    marked = "attempts > max_attempts"
    spent = "state = 'leased' AND attempts >= max_attempts"
    late = f"expires_at <= {now}"
    bury = f"(({spent}) OR {late})"
    ended = history(
        dialect, "lease-expired", "lease_owner", "'the lease ended before the delivery was settled'"
    )
    noted = f"CASE WHEN state = 'leased' THEN {ended} ELSE history END"
    expired = history(dialect, "expired", "''", f"'{EXPIRED}'", noted)
    query = f"""
        SELECT delivery_id FROM agentic_delivery
        WHERE mailbox = :mailbox AND priority = {{priority}} AND state IN ('ready', 'leased') AND waiting = 0
            AND visible_at <= {now}
        ORDER BY visible_at, delivery_id {dialect.skip_locked}"""
    return f"""
    UPDATE agentic_delivery SET
        history = CASE WHEN {marked} THEN history WHEN {spent} THEN {ended} WHEN {late} THEN {expired} ELSE {noted} END,
        reason = CASE WHEN {marked} THEN reason
            WHEN {spent} THEN 'attempts spent: the lease of the last one (' || lease_owner || ') ended'
            WHEN {late} THEN '{EXPIRED}'
            ELSE reason END,
        state = CASE WHEN {bury} AND ordering_key IS NULL THEN 'dead' ELSE 'leased' END,
        -- More attempts than there may be: marked, to be buried.
        attempts = CASE WHEN {marked} THEN attempts WHEN NOT {_true(bury)} THEN attempts + 1
            WHEN ordering_key IS NULL THEN attempts ELSE max_attempts + 1 + attempts END,
        lease_token = {dialect.token},
        lease_owner = CASE WHEN {bury} THEN lease_owner ELSE :owner END,
        visible_at = {now} + :lease,
        updated_at = {now}
    WHERE delivery_id {dialect.picked.format(query=dialect.by_priority(query))}
    RETURNING delivery_id, state, lease_token, attempts, max_attempts, visible_at,
        (SELECT envelope FROM agentic_message WHERE seq = message_seq) AS envelope, ordering_key, priority"""


def _true(condition: str) -> str:
    # A comparison with nothing is neither true nor false.
    return f"COALESCE({condition}, 1 = 0)"


def _bury(dialect: Dialect) -> str:
    return f"""
    UPDATE agentic_delivery SET
        state = 'dead', attempts = attempts - max_attempts - 1, lease_token = NULL, updated_at = {dialect.now}
    WHERE delivery_id = :id AND lease_token = :token AND state = 'leased'
    RETURNING state"""


def _settle(dialect: Dialect) -> dict[str, str]:
    now, is_held = dialect.now, held(dialect)
    # A parameter has no type of its own where a function takes values of any type.
    nack, reject = (
        history(dialect, event, "lease_owner", "CAST(:reason AS TEXT)") for event in ("nack", "reject")
    )
    return {
        "ack": f"""
        UPDATE agentic_delivery SET state = 'done', lease_token = NULL, reason = NULL, updated_at = {now}
        WHERE {is_held}
        RETURNING state""",
        "nack": f"""
        UPDATE agentic_delivery SET
            state = CASE WHEN attempts >= max_attempts THEN 'dead' ELSE 'ready' END,
            reason = CASE WHEN attempts < max_attempts THEN CAST(:reason AS TEXT)
                WHEN CAST(:reason AS TEXT) = '' THEN 'attempts spent'
                ELSE 'attempts spent: ' || CAST(:reason AS TEXT) END,
            history = {nack},
            visible_at = {now} + :delay, lease_token = NULL, updated_at = {now}
        WHERE {is_held}
        RETURNING state""",
        "reject": f"""
        UPDATE agentic_delivery SET
            state = 'dead', reason = CAST(:reason AS TEXT), history = {reject},
            lease_token = NULL, updated_at = {now}
        WHERE {is_held}
        RETURNING state""",
        "release": f"""
        UPDATE agentic_delivery SET
            state = 'ready', attempts = attempts - 1, visible_at = {now} + :delay,
            lease_token = NULL, updated_at = {now}
        WHERE {is_held}
        RETURNING state""",
    }


def _ack_many(dialect: Dialect) -> str:
    change = f"UPDATE agentic_delivery SET state = 'done', lease_token = NULL, reason = NULL, updated_at = {dialect.now}"
    if not dialect.takes_arrays:
        return f"{change} WHERE {held(dialect)}"
    return f"""
    {change}
    -- Not by a join with the arrays, as which the planner may read the whole table.
    WHERE delivery_id = ANY(CAST(:id AS BIGINT[]))
        AND lease_token = (CAST(:token AS TEXT[]))[array_position(CAST(:id AS BIGINT[]), delivery_id)]
        AND state = 'leased' AND visible_at > {dialect.now}"""


def _extend(dialect: Dialect) -> str:
    return f"""
    UPDATE agentic_delivery SET visible_at = {dialect.now} + :lease, updated_at = {dialect.now}
    WHERE {held(dialect)}
    RETURNING delivery_id, visible_at"""


def _redrive(dialect: Dialect) -> str:
    # The state is asked for again: somebody else may redrive the same one while this waits for it.
    return f"""
    UPDATE agentic_delivery SET
        history = {history(dialect, "redrive", "CAST(:actor AS TEXT)", "CAST(:reason AS TEXT)")},
        state = 'ready', attempts = 0, redrives = redrives + 1, reason = NULL, expires_at = NULL,
        mailbox = CAST(:mailbox AS TEXT), waiting = :waiting, visible_at = :visible_at, updated_at = {dialect.now}
    WHERE state = 'dead' AND delivery_id = :id"""


def _expire(dialect: Dialect) -> str:
    return f"""
    UPDATE agentic_delivery SET
        state = 'dead', waiting = 0, reason = '{EXPIRED}', history = {history(dialect, "expired", "''", f"'{EXPIRED}'")},
        updated_at = {dialect.now}
    WHERE delivery_id = :id AND state = 'ready'"""


def _stats(dialect: Dialect) -> str:
    now = dialect.now
    return f"""
    SELECT mailbox, state, count(*) AS count, {now} AS now,
        sum(waiting) AS waiting,
        count(CASE WHEN waiting = 0 AND visible_at > {now} THEN 1 END) AS invisible,
        count(CASE WHEN waiting = 0 AND visible_at > {now} AND attempts = 0 THEN 1 END) AS unseen,
        min(CASE WHEN waiting = 0 AND visible_at <= {now} THEN visible_at END) AS oldest,
        max(CASE WHEN waiting = 0 AND visible_at <= {now} THEN delivery_id END) AS newest
    FROM agentic_delivery
    WHERE {{where}}
    GROUP BY mailbox, state"""


STATES_OF_MAILBOX = (
    "mailbox = :mailbox AND state IN ('ready', 'leased') AND waiting = 0",
    "mailbox = :mailbox AND waiting = 1",
    "mailbox = :mailbox AND state = 'done'",
    "mailbox = :mailbox AND state = 'dead'",
)
"""All deliveries of a mailbox, in the parts that there is an index for."""
