"""What a DAG run did outside of the store, how a test holds it, and whether its journals tell of all that came twice."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psutil
from killing import kill, supervisor_of
from waiting import wait_until

from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import Store
from localairflow.stack import LocalAirflow


class Outside:
    """The folder of a DAG run; see ``dags/outside.py``. Held are those that come to a moment first."""

    def __init__(self, airflow: LocalAirflow, run_id: str, *holds: str, shut: str | None = None) -> None:
        self._folder = airflow.home.path / "outside" / run_id
        self._folder.mkdir(parents=True)
        for moment in holds:
            self.put(f"hold {moment}")
        if shut is not None:
            self.put(f"shut {shut}")

    def put(self, name: str) -> None:
        """Put something into the folder."""
        (self._folder / name).touch()

    def open(self, name: str) -> None:
        """Open a gate."""
        (self._folder / f"shut {name}").unlink()

    def let_go(self, moment: str) -> None:
        """Let go whoever is held there."""
        (self._folder / f"hold {moment}").unlink()

    def at(self, moment: str, seconds: float = 90) -> int:
        """Wait until somebody is held there; return its process id."""
        file = self._folder / f"at {moment}"
        wait_until(lambda: file.exists() and file.read_text(), seconds)
        return int(file.read_text())

    def kill_at(self, moment: str, *, supervisor: bool = False) -> int:
        """SIGKILL whoever is held there, or its supervisor; what is left of them goes on. Return its process id."""
        pid = self.at(moment)
        kill(supervisor_of(pid) if supervisor else psutil.Process(pid))
        self.let_go(moment)
        return pid

    @property
    def effects(self) -> list[dict[str, Any]]:
        """All that was done, in order."""
        file = self._folder / "effects"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def counted(self) -> Counter[str]:
        """How often each thing was done."""
        return Counter(each["what"] for each in self.effects)


@dataclass
class Accounts:
    """What was done for a run, against what its journal says.

    Attributes:
        repeats: Effects beyond the first one of their step.
        told: Ambiguous steps that were done again, as the journal says: at least as many.
        faults: What must not be; empty if all is well.
    """

    repeats: int = 0
    told: int = 0
    faults: list[str] = field(default_factory=list)


def accounts(store: Store, key: str, effects: list[dict[str, Any]], steps: list[str]) -> Accounts:
    """Compare the effects of each step with the journal.

    Args:
        store: Where the run is.
        key: Of the run.
        effects: Those of its steps, each with the version that the run had.
        steps: Their names.
    """
    found, history = Accounts(), store.history(key)
    for name in steps:
        versions = [each["version"] for each in effects if each["what"] == name]
        own = [event for event in history if event.name == name]
        ends = [event.version for event in own if event.type == "step.done"]
        again = sum(event.type == "step.ambiguous" for event in own)
        found.repeats += max(0, len(versions) - 1)
        found.told += again
        if len(ends) != 1:
            found.faults.append(f"{name} is finished {len(ends)} times")
            continue
        if not versions:
            found.faults.append(f"{name} has no effect")
        if len(versions) - 1 > again:
            found.faults.append(f"{name} has {len(versions)} effects, and {again} are told of")
        if any(version >= ends[0] for version in versions):
            found.faults.append(f"{name} was finished, and done again")
        if any(event.version > ends[0] for event in own if event.type.startswith("step.")):
            found.faults.append(f"{name} was finished, and goes on in the journal")
    found.faults += [f"{each}" for each in store.verify(key)]
    return found


def messages(store: Store, mailbox: str, conversation: str) -> list[Any]:
    """Return the data of all messages of a conversation that ever came to a mailbox."""
    query = DeliveryQuery(mailbox=mailbox, correlation_id=conversation, limit=10_000)
    return [record.message.data for record in store.bus.find(query)]
