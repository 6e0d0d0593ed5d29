"""The promises of a store of the bus, as checks that any store can be put through.

::

    from airflow_agentic.testing import conformance
    from airflow_agentic.testing.conformance import Capability

    CAN = {Capability.DURABLE, Capability.SHARED, Capability.DEDUP, Capability.ORDERING}


    def test_my_store_conforms():
        conformance.assert_store_conforms(open_my_store, CAN)

or, one test for each promise::

    @pytest.mark.parametrize("check", conformance.checks(CAN), ids=str)
    def test_my_store_keeps(check):
        conformance.run(check, conformance.Bench(open_my_store))

No test framework is imported.
"""

from __future__ import annotations

from airflow_agentic.testing.conformance.bench import Bench, MovableClock
from airflow_agentic.testing.conformance.promises import EVERYTHING, Capability, Check
from airflow_agentic.testing.conformance.running import (
    CHECKS,
    Verdict,
    assert_store_conforms,
    checks,
    run,
    verdict,
)

__all__ = [
    "CHECKS",
    "EVERYTHING",
    "Bench",
    "Capability",
    "Check",
    "MovableClock",
    "Verdict",
    "assert_store_conforms",
    "checks",
    "run",
    "verdict",
]
