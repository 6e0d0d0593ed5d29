"""Who is asked next when several agents work on one task: plain rules that know neither Airflow nor a store.

A talk is a generator: it yields whom to ask what, is sent the answer, and returns the result. It must say the same whenever
it gets the same answers: that is how a talk that was interrupted goes on where it was.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import InvalidResult, RoundsSpent
from airflow_agentic.messaging.filters import compiled

NEXT, TASK, RESULT, HANDOFF = "next", "task", "result", "handoff"


@dataclass(frozen=True)
class Turn:
    """One agent is asked.

    Attributes:
        name: Names the turn: the same each time.
        agent: Who, as the talk calls it.
        task: What it gets.
    """

    name: str
    agent: str
    task: Any


Asking = Generator[Turn, Any, Any]


class Talk(Protocol):
    """How agents take turns."""

    @property
    def name(self) -> str:
        """What durable runs of it are called."""
        ...

    @property
    def agents(self) -> tuple[str, ...]:
        """All who may be asked."""
        ...

    @property
    def most_turns(self) -> int:
        """How many turns there can be."""
        ...

    def turns(self, task: Any) -> Asking:
        """Yield the turns, and return the result."""
        ...


@dataclass(frozen=True)
class OneTurn:
    """One agent is asked once.

    Attributes:
        agent: Who.
    """

    agent: str

    @property
    def name(self) -> str:
        """The agent's."""
        return self.agent

    @property
    def agents(self) -> tuple[str, ...]:
        """All who may be asked."""
        return (self.agent,)

    @property
    def most_turns(self) -> int:
        """One."""
        return 1

    def turns(self, task: Any) -> Asking:
        """Ask it, and return what it says."""
        answer = yield Turn(self.agent, self.agent, task)
        return answer


@dataclass(frozen=True)
class Debate:
    """Agents speak in turn, and each knows all that was said before.

    Attributes:
        agents: Who speaks, in order.
        rounds: How often each of them does.
        until: CEL condition on the answers of a round, by agent, that ends the debate; ``None`` for none.
    """

    agents: tuple[str, ...]
    rounds: int
    until: str | None = None
    name: ClassVar[str] = "debate"

    @property
    def most_turns(self) -> int:
        """All in all rounds."""
        return self.rounds * len(self.agents)

    def turns(self, task: Any) -> Asking:
        """Return the task and all that was said: ``{"task", "rounds", "turns": [{"round", "agent", "answer"}]}``."""
        said: list[dict[str, Any]] = []
        number = 0
        for number in range(1, self.rounds + 1):
            answers = {}
            for agent in self.agents:
                asked = {"task": task, "round": number, "rounds": self.rounds, "turns": list(said)}
                answers[agent] = yield Turn(f"round-{number}/{agent}", agent, asked)
                said.append({"round": number, "agent": agent, "answer": answers[agent]})
            if self.until is not None and compiled(self.until, "output").matches(answers)[0]:
                break
        return {"task": task, "rounds": number, "turns": said}


@dataclass(frozen=True)
class Supervision:
    """A supervisor says who works next, until it has a result.

    Attributes:
        supervisor: Who decides.
        workers: Who may work.
        rounds: How often the supervisor may send somebody to work.
    """

    supervisor: str
    workers: tuple[str, ...]
    rounds: int
    name: ClassVar[str] = "supervision"

    @property
    def agents(self) -> tuple[str, ...]:
        """All who may be asked."""
        return (self.supervisor, *self.workers)

    @property
    def most_turns(self) -> int:
        """The supervisor is asked once more than anybody works."""
        return 2 * self.rounds + 1

    def turns(self, task: Any) -> Asking:
        """Return what the supervisor says is the result.

        Raises:
            RoundsSpent: It has none after the last round.
            InvalidResult: It says neither who is next nor what the result is.
        """
        done: list[dict[str, Any]] = []
        for number in range(1, self.rounds + 2):
            left = self.rounds + 1 - number
            asked = {"task": task, "workers": list(self.workers), "rounds_left": left, "turns": list(done)}
            answer = yield Turn(f"round-{number}/{self.supervisor}", self.supervisor, asked)
            if isinstance(answer, Mapping) and RESULT in answer:
                return answer[RESULT]
            worker = _named(answer, NEXT, self.workers, f"supervisor {self.supervisor!r}", RESULT)
            if not left:
                break
            work = answer.get(TASK, task)
            made = yield Turn(f"round-{number}/{worker}", worker, work)
            done.append({"round": number, "agent": worker, "task": work, "answer": made})
        raise RoundsSpent(
            f"supervisor {self.supervisor!r} has no result after {self.rounds} rounds. Allow more rounds, or let it answer "
            '{"result": …} when rounds_left is 0'
        )


@dataclass(frozen=True)
class Handoffs:
    """An agent works, and may hand over to another one.

    Attributes:
        agents: Who may work; the first one begins.
        hops: How often it may be handed over.
    """

    agents: tuple[str, ...]
    hops: int
    name: ClassVar[str] = "handoffs"

    @property
    def most_turns(self) -> int:
        """The first one, and one for each time it is handed over."""
        return self.hops + 1

    def turns(self, task: Any) -> Asking:
        """Return ``{"agent", "result", "path"}``: who had the last word, what it said, and who worked.

        Raises:
            RoundsSpent: It was handed over more often than that.
            InvalidResult: Somebody handed over to nobody who is there.
        """
        agent, path = self.agents[0], [self.agents[0]]
        for number in range(1, self.hops + 2):
            answer = yield Turn(f"hop-{number}/{agent}", agent, task)
            if not (isinstance(answer, Mapping) and HANDOFF in answer):
                return {"agent": agent, "result": answer, "path": path}
            others = tuple(each for each in self.agents if each != agent)
            task = answer.get(TASK, task)
            agent = _named(answer, HANDOFF, others, f"agent {agent!r}", None)
            path.append(agent)
        raise RoundsSpent(
            f"it was handed over more than {self.hops} times: {' -> '.join(path)}. Allow more hops"
        )


def _named(answer: Any, key: str, known: tuple[str, ...], who: str, other: str | None) -> str:
    name = answer.get(key) if isinstance(answer, Mapping) else None
    if isinstance(name, str) and name in known:
        return name
    if name is None:
        wanted = f'{{"{key}": NAME, "{TASK}": …}}' + (f' or {{"{other}": …}}' if other else "")
        raise InvalidResult(f"{who} must answer {wanted}, and answered {answer!r:.200}")
    near = did_you_mean(str(name), known) or f"known: {', '.join(known)}"
    raise InvalidResult(f"{who} names {name!r}, who does not take part here; {near}")
