"""The books of durable runs: what the effects, the journals, the states and the mailbox say, and where they do not agree."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from books import ALL
from runs_workers import BOX, CHECKPOINT, END, SCHEMA, effects, folded

from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.persistence import RunQuery, RunStatus

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_agentic.persistence import RunHead
    from airflow_agentic.stores import Store

_PERSON = "a person"
_ENDS = ("step.done", "step.skipped")


@dataclasses.dataclass
class Books:
    """What became of some runs.

    Attributes:
        name: Of the trial.
        kills: SIGKILLs of workers.
        restarts: Of the server.
        stops: SIGSTOPs of workers past their lease.
        points: Boundaries where that happened.
        runs: How many.
        steps: That are finished, done or skipped.
        effects: That took place.
        repeats: Effects after the first one of a step.
        retried: Steps that were found ambiguous and done again, as the journals say.
        skipped: Steps that were found ambiguous and skipped, as the journals say.
        taken: How often somebody was told that another one has the run.
        silent: Repeats that no journal tells of, and steps that were skipped without a word.
        undeclared: Ambiguous steps about which something else was decided than was declared.
        rerun: Steps that were done, or had an effect, after they were finished.
        lost: Effects, messages, checkpoints and ends that are missing.
        twice: Messages that came more than once.
        differ: Runs whose state, result or checkpoint is not that of an undisturbed one.
        late: Runs that somebody wrote to who did not have them any more, or was not told so.
        damages: Of journals.
    """

    name: str
    kills: int = 0
    restarts: int = 0
    stops: int = 0
    points: int = 0
    runs: int = 0
    steps: int = 0
    effects: int = 0
    repeats: int = 0
    retried: int = 0
    skipped: int = 0
    taken: int = 0
    silent: int = 0
    undeclared: int = 0
    rerun: int = 0
    lost: int = 0
    twice: int = 0
    differ: int = 0
    late: int = 0
    damages: int = 0

    def faults(self) -> dict[str, int]:
        """Return every promise that was broken, and how often."""
        zero = ("silent", "undeclared", "rerun", "lost", "twice", "differ", "late", "damages")
        return {name: count for name in zero if (count := getattr(self, name))}


def table(books: list[Books]) -> str:
    """Write books side by side, one trial a line, and their sum."""
    titles = [field.name for field in dataclasses.fields(Books)]
    sums = [sum(getattr(each, title) for each in books) for title in titles[1:]]
    rows = [[str(getattr(each, title)) for title in titles] for each in books]
    rows = [titles, *rows, ["all", *map(str, sums)]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def account(books: Books, folder: Path, store: Store, steps: int) -> Books:
    """Read everything, when nothing moves any more, and write it into the books.

    Args:
        books: With what was done to the workers.
        folder: Of the effects.
        store: Of the runs.
        steps: Of each run.
    """
    happened = defaultdict(list)
    for key, step, version in effects(folder):
        happened[key, step].append(version)
    sent: Counter[tuple[str, str]] = Counter()
    for record in store.bus.find(DeliveryQuery(mailbox=BOX, limit=ALL)):
        sent[record.message.data["run"], record.message.data["step"]] += 1
    noted = folder / "noted"
    books.taken += len(noted.read_text().splitlines()) if noted.exists() else 0
    heads = store.runs.find_all(RunQuery(limit=ALL))
    for head in heads:
        _Run(books, store, head, steps).account(happened, sent)
    known = {head.stream for head in heads}
    books.lost += len({key for key, _step in {*happened, *sent}} - known)
    return books


class _Run:
    """One run, whose accounts go into books."""

    def __init__(self, books: Books, store: Store, head: RunHead, steps: int):
        self.books, self.store, self.head, self.key = books, store, head, head.stream
        self.names = [f"step-{number}" for number in range(1, steps + 1)]
        self.history = store.history(self.key)
        self.skipped: dict[str, Any] = {}

    def account(self, happened: dict[Any, list[int]], sent: Counter[tuple[str, str]]) -> None:
        books = self.books
        books.runs += 1
        books.lost += self.head.status != RunStatus.FINISHED
        books.damages += len(self.store.verify(self.key))
        for name in self.names:
            self.step(name, happened[self.key, name], sent[self.key, name])
        books.lost += not sent[self.key, END]
        books.twice += max(0, sent[self.key, END] - 1)
        books.differ += not self.is_as_if_undisturbed()

    def step(self, name: str, happened: list[int], sent: int) -> None:
        books = self.books
        events = [event for event in self.history if event.name == name and event.type.startswith("step.")]
        ends = [event for event in events if event.type in _ENDS]
        if not ends:
            books.lost += 1
            return
        [end, *_] = ends
        # What a person says beforehand has a reason, and is told again when it is done.
        ambiguous = [
            each.data for each in events if each.type == "step.ambiguous" and "reason" not in each.data
        ]
        decisions = Counter(said["decision"] for said in ambiguous)
        declared = {each.data["on_ambiguous"] for each in events if each.type == "step.intended"}
        wanted = {(_PERSON, "retry") if each == "ask" else ("declared", each) for each in declared}
        is_skipped = end.type == "step.skipped"
        repeats = max(0, len(happened) - 1)
        books.steps += 1
        books.effects += len(happened)
        books.repeats += repeats
        books.retried += decisions["retry"]
        books.skipped += is_skipped
        books.silent += max(0, repeats - decisions["retry"])
        books.undeclared += sum((said["by"], said["decision"]) not in wanted for said in ambiguous)
        later = [event for event in events if event.version > end.version]
        books.rerun += len(later) + sum(version >= end.version for version in happened)
        books.twice += max(0, sent - 1)
        if is_skipped:
            self.skipped[name] = end.data["result"]
            books.silent += not (decisions["skip"] or end.data["actor"])
        else:
            books.lost += (not happened) + (not sent)

    def is_as_if_undisturbed(self) -> bool:
        """Whether state, result and checkpoint are what they must be; of skipped steps, with what they were given."""
        state, half, results = SCHEMA.initial, None, []
        for number, name in enumerate(self.names, 1):
            value = self.skipped.get(name, number * number)
            results.append(value)
            state = folded(state, {"what": "value", "step": number, "value": value})
            state = folded(state, {"what": "sum", "step": number, "value": state["sum"] + (value or 0)})
            if number == (len(self.names) + 1) // 2:
                half = state
        wanted = state, half, {"sum": state["sum"], "results": results}
        ends = [event for event in self.history if event.type == "run.finished"]
        try:
            now = self.store.runs.at(self.key, self.head.version, SCHEMA).state
            then = self.store.runs.at(self.key, CHECKPOINT, SCHEMA).state
        except AgenticError:
            return False
        return [(now, then, end.data["result"]) for end in ends] == [wanted]
