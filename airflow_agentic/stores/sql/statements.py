"""The SQL of the bus, for SQLite. Every time is the store's clock, in milliseconds since 1970 UTC."""

from __future__ import annotations

from airflow_agentic.stores.sql.clock import NOW

# A lease counts only while it lasts: a late ack is refused even if nobody claimed the delivery since.
_HELD = f"delivery_id = :id AND lease_token = :token AND state = 'leased' AND visible_at > {NOW}"


def _history(event: str, actor: str, detail: str) -> str:
    return (
        f"json_insert(history, '$[#]', json_object('at', {NOW}, 'event', '{event}', 'attempt', attempts, "
        f"'actor', {actor}, 'detail', {detail}))"
    )


INSERT_MESSAGE = f"""
    INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)
    VALUES (:message_id, :source, :correlation_id, {NOW}, :envelope)
    ON CONFLICT (message_id, source) DO NOTHING
    RETURNING seq"""

INSERT_DELIVERY = f"""
    INSERT INTO agentic_delivery (message_seq, mailbox, state, visible_at, max_attempts, updated_at)
    VALUES (:seq, :mailbox, 'ready', {NOW} + :delay, :max_attempts, {NOW})"""

# One statement claims what is ready, takes over leases that ended, and buries what spent its last attempt.
CLAIM = f"""
    UPDATE agentic_delivery SET
        history = CASE WHEN state = 'leased'
            THEN {_history("lease-expired", "lease_owner", "'the lease ended before the delivery was settled'")}
            ELSE history END,
        reason = CASE WHEN state = 'leased' AND attempts >= max_attempts
            THEN 'attempts spent: the lease of the last one (' || lease_owner || ') ended'
            ELSE reason END,
        state = CASE WHEN state = 'leased' AND attempts >= max_attempts THEN 'dead' ELSE 'leased' END,
        attempts = CASE WHEN state = 'leased' AND attempts >= max_attempts THEN attempts ELSE attempts + 1 END,
        lease_token = lower(hex(randomblob(16))),
        lease_owner = :owner,
        visible_at = {NOW} + :lease,
        updated_at = {NOW}
    WHERE delivery_id IN (
        SELECT delivery_id FROM agentic_delivery
        WHERE mailbox = :mailbox AND state IN ('ready', 'leased') AND visible_at <= {NOW}
        ORDER BY visible_at, delivery_id LIMIT :limit)
    RETURNING delivery_id, state, lease_token, attempts, max_attempts, visible_at,
        (SELECT envelope FROM agentic_message WHERE seq = message_seq) AS envelope"""

SETTLE = {
    "ack": f"""
        UPDATE agentic_delivery SET state = 'done', lease_token = NULL, reason = NULL, updated_at = {NOW}
        WHERE {_HELD}""",
    "nack": f"""
        UPDATE agentic_delivery SET
            state = CASE WHEN attempts >= max_attempts THEN 'dead' ELSE 'ready' END,
            reason = CASE WHEN attempts >= max_attempts
                THEN 'attempts spent' || iif(:reason = '', '', ': ' || :reason) ELSE :reason END,
            history = {_history("nack", "lease_owner", ":reason")},
            visible_at = {NOW} + :delay, lease_token = NULL, updated_at = {NOW}
        WHERE {_HELD}""",
    "reject": f"""
        UPDATE agentic_delivery SET
            state = 'dead', reason = :reason, history = {_history("reject", "lease_owner", ":reason")},
            lease_token = NULL, updated_at = {NOW}
        WHERE {_HELD}""",
    "release": f"""
        UPDATE agentic_delivery SET
            state = 'ready', attempts = attempts - 1, visible_at = {NOW}, lease_token = NULL, updated_at = {NOW}
        WHERE {_HELD}""",
}

EXTEND = f"""
    UPDATE agentic_delivery SET visible_at = {NOW} + :lease, updated_at = {NOW}
    WHERE {_HELD}
    RETURNING delivery_id, visible_at"""

REDRIVE = f"""
    UPDATE agentic_delivery SET
        history = {_history("redrive", ":actor", ":reason")},
        state = 'ready', attempts = 0, redrives = redrives + 1, reason = NULL,
        visible_at = {NOW}, updated_at = {NOW}
    WHERE delivery_id IN (
        SELECT d.delivery_id FROM agentic_delivery d JOIN agentic_message m ON m.seq = d.message_seq
        WHERE d.state = 'dead' AND {{where}})
    RETURNING delivery_id"""

FIND = """
    SELECT d.delivery_id, d.mailbox, d.state, d.attempts, d.max_attempts, d.visible_at, d.updated_at,
        d.reason, d.lease_owner, d.redrives, d.history, m.envelope
    FROM agentic_delivery d JOIN agentic_message m ON m.seq = d.message_seq
    WHERE {where}
    ORDER BY d.delivery_id LIMIT :limit"""

STATS = f"""
    SELECT mailbox, state, count(*) AS count, {NOW} AS now,
        sum(visible_at > {NOW}) AS invisible,
        sum(visible_at > {NOW} AND attempts = 0) AS unseen,
        min(CASE WHEN visible_at <= {NOW} THEN visible_at END) AS oldest,
        max(CASE WHEN visible_at <= {NOW} THEN delivery_id END) AS newest
    FROM agentic_delivery
    WHERE :mailbox IS NULL OR mailbox = :mailbox
    GROUP BY mailbox, state"""
