"""Messages with any of their fields set, for hypothesis; and numbers that a test can read."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from hypothesis import strategies as st

from airflow_agentic.messaging import Kind, Message

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones())  # noqa: DTZ001
identifiers = st.text(min_size=1, max_size=50)
mailboxes = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
topics = st.from_regex(r"[A-Za-z0-9_-]{1,5}(\.[A-Za-z0-9_-]{1,5}){0,3}", fullmatch=True)
audiences = st.sampled_from(["all", "role:auditor", "tag:gpu"])
traces = st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)
addresses = st.one_of(
    st.fixed_dictionaries({"recipient": mailboxes}),
    st.fixed_dictionaries({"topic": topics}),
    st.fixed_dictionaries({"audience": audiences}),
)
claims = st.fixed_dictionaries(
    {"data_ref": identifiers, "data_digest": st.from_regex(r"[0-9a-f]{64}", fullmatch=True)}
)
fields = st.fixed_dictionaries(
    {"source": identifiers},
    optional={
        "id": identifiers,
        "type": identifiers,
        "kind": st.sampled_from(Kind),
        "subject": identifiers,
        "time": times,
        "correlation_id": identifiers,
        "causation_id": identifiers,
        "reply_to": mailboxes,
        "ordering_key": identifiers,
        "priority": st.integers(0, 9),
        "expires_at": times,
        "run": identifiers,
        "traceparent": traces,
    },
)


@st.composite
def messages(draw):
    content = draw(claims | st.fixed_dictionaries({"data": json_values}))
    return Message(**draw(fields), **draw(addresses), **content)


class Counted:
    """Metrics that a test can read."""

    def __init__(self):
        self.counts = Counter()

    def count(self, name, value=1, tags=None):
        self.counts[(name, *sorted((tags or {}).values()))] += value

    def gauge(self, name, value, tags=None):
        raise AssertionError(name)

    def timing(self, name, seconds, tags=None):
        raise AssertionError(name)
