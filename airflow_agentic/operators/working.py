"""A task's agent at work: one go, from the opening of the store to its closing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_agentic import runtime
from airflow_agentic.agents.durable import WAITS
from airflow_agentic.agents.runner import AgentRunner, MailboxReport
from airflow_agentic.errors import LimitExceeded, NotAdmitted
from airflow_agentic.hooks.agents import HookTransport
from airflow_agentic.hooks.models import open_model
from airflow_agentic.operators.suspending import Pause
from airflow_agentic.resilience.deadlines import Deadline, deadline
from airflow_agentic.resilience.fallback import Degradation, PersonNeeded

if TYPE_CHECKING:
    from airflow_agentic.agents.base import BaseAgent
    from airflow_agentic.agents.declared import AgentPlan
    from airflow_agentic.agents.identity import RunIdentity

# Turns of rates are set aside for tasks that wait, but not for ever.
_FARTHEST_TURN_SECONDS = 7 * 86_400.0
_KILLED = "the task was killed"


@dataclass(frozen=True)
class Work:
    """What a task has to do.

    Attributes:
        plan: What the agent is made of.
        task: Its input.
        mailbox: Whose messages are its input instead.
        gather: Whether all of them together are.
        inbox: Whether what it handled before is passed over.
        lease: How long a message belongs to it at a time.
        conn_id: The store; see ``AgenticHook``.
    """

    plan: AgentPlan
    task: Any = None
    mailbox: str | None = None
    gather: bool = False
    inbox: bool = False
    lease: timedelta | None = None
    conn_id: str | None = None


@dataclass(frozen=True)
class Came:
    """What came of one go.

    Attributes:
        report: What became of the messages.
        result: What the agent came to, as plain JSON.
        degradation: Why that is not what it should be; ``None`` if it is.
        waits_for: A guard that refused, or a person who is needed; ``None`` for neither.
        has_turn: Whether a turn was set aside with that guard.
        pause: How to wait with the durable run; ``None`` if it does not wait.
        waiting: How many messages were given back because their durable runs wait.
        was_stopped: Whether it was told to stop.
    """

    report: MailboxReport
    result: Any = None
    degradation: Degradation | None = None
    waits_for: NotAdmitted | PersonNeeded | None = None
    has_turn: bool = False
    pause: Pause | None = None
    waiting: int = 0
    was_stopped: bool = False


class Go:
    """One go at the work of a task. Another thread may tell it to stop.

    Args:
        work: What is to be done.
        run: The task.
        has_turn: Whether the rates of its policy let it go now: its turn was set aside.
    """

    def __init__(self, work: Work, run: RunIdentity, *, has_turn: bool = False) -> None:
        self._work = work
        self._run = run
        self._has_turn = has_turn
        self._runner: AgentRunner | None = None
        self._agent: BaseAgent[Any, Any] | None = None
        self._deadline: Deadline | None = None

    @property
    def references(self) -> list[dict[str, Any]]:
        """References of the first messages that were handled."""
        return self._runner.references if self._runner else []

    def stop(self) -> None:
        """Shut the agent down and tell its work to stop; take no further message."""
        if self._deadline is not None:
            self._deadline.cancel(_KILLED)
        if self._runner is not None:
            self._runner.stop()
        if self._agent is not None:
            self._agent.shutdown(_KILLED)

    def done(self) -> Came:
        """Do it.

        Raises:
            AirflowFailException: An error that a retry cannot help.
            NotAdmitted: A guard refuses, and the policy says to fail then.
            Exception: Whatever the agent raises.
        """
        work = self._work
        with (
            runtime.airflow_failures(),
            runtime.workplace(work.conn_id, self._run, HookTransport, models=open_model) as place,
            deadline() as self._deadline,
        ):
            agent = self._agent = place.agent(work.plan)
            self._runner = runner = place.runner(
                agent, work.plan, work.lease, inbox=work.inbox, mailbox=work.mailbox is not None
            )
            if self._has_turn:
                runner.use_turn()
            report, result, held, pause = MailboxReport(work.mailbox or ""), None, None, None
            try:
                report, result = self._tried(runner)
            except (NotAdmitted, PersonNeeded) as error:
                held = error
            except WAITS as waiting:
                pause = Pause(waiting, place.store)
            finally:
                agent.shutdown("the task ended")
            held = held or runner.refusal
            turn = self._turn(held, runner) if isinstance(held, NotAdmitted) else None
            return Came(
                report,
                result,
                runner.degradation,
                turn or held,
                turn is not None,
                pause,
                runner.waiting,
                runner.stopping,
            )

    def _tried(self, runner: AgentRunner) -> tuple[MailboxReport, Any]:
        work = self._work
        if work.mailbox is None:
            if self._run.try_number > 1 or work.plan.run_key:
                # Nobody but an earlier try, or whoever knows its key, can have brought it to its end.
                runner.know()
            return MailboxReport(""), runner.run_task(work.task)
        if work.gather:
            return runner.gather(work.mailbox)
        return runner.drain(work.mailbox), None

    def _turn(self, refusal: NotAdmitted, runner: AgentRunner) -> LimitExceeded | None:
        """Set a turn aside with the rate that refused, if the policy says to wait; ``None`` if it was something else."""
        policy = self._work.plan.policy
        if refusal.final or (policy is not None and policy.when_refused != "wait"):
            raise refusal
        turn = runner.reserve(refusal, _FARTHEST_TURN_SECONDS)
        return None if turn is None else LimitExceeded(str(refusal), refusal.key, turn)
