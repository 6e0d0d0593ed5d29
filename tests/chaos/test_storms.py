"""Promises P1 to P4 while processes are killed and stopped, servers lose their power, and networks fail.

The books are in ``books.py``, what the workers do in ``workers.py``, and which storms there are in ``storms.py``.
"""

from __future__ import annotations

import pytest
import storms

BROKEN = {
    "sqlite: acks early": "lost",
    "sqlite: no leases": "lost",
    "sqlite: no tokens": "twice",
    "sqlite: no lanes": "disorder",
    "sqlite: no inbox": "twice",
    "postgresql: commits late": "lost",
    "redis: keeps nothing": "lost",
}


@pytest.mark.parametrize("storm", storms.STORMS)
def test_no_message_is_lost_made_up_out_of_order_or_done_twice(storm, found):
    assert not found.faults(), f"\n{found}"
    assert found.sent > 50, f"the storm had nothing to destroy\n{found}"
    assert found.dead > 0, f"no dead letter was made\n{found}"


@pytest.mark.parametrize("storm", [name for name in storms.STORMS if name.endswith("stops")])
def test_a_consumer_that_was_stopped_past_its_lease_came_late(storm, found):
    assert found.late > 0, f"nobody came late\n{found}"


@pytest.mark.parametrize("storm", [name for name in storms.STORMS if name.endswith("clocks")])
def test_a_consumer_whose_clock_is_off_holds_its_leases_as_long_as_others(storm, found):
    # Each of its leases would have ended before it began, or would be held for ten minutes more.
    assert found.late <= found.sent / 50, f"\n{found}"


def test_every_mutant_has_a_test():
    assert set(BROKEN) == set(storms.MUTANTS)


@pytest.mark.parametrize("storm", storms.MUTANTS)
def test_the_books_show_which_promise_is_broken(storm, found, tmp_path):
    for again in range(2):
        # A short storm on a busy machine may break nothing.
        if BROKEN[storm] in found.faults():
            break
        folder = tmp_path / str(again)
        folder.mkdir()
        found = storms.run(storm, storms.MUTANTS[storm], folder)
    assert BROKEN[storm] in found.faults(), f"\n{found}"
