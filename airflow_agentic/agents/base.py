"""The one lifecycle that every agent has."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel
from uuid6 import uuid7

from airflow_agentic.agents.configuration import NoConfiguration, validate
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.contracts import Contract, type_parameters
from airflow_agentic.agents.durable import RunOver
from airflow_agentic.agents.ledger import Ledger
from airflow_agentic.agents.lifecycle import AgentState, check_transition
from airflow_agentic.agents.status import (
    AgentProfile,
    AgentStatus,
    AgentStore,
    Instance,
    PerformanceMetrics,
    summarise,
)
from airflow_agentic.config.masking import shown
from airflow_agentic.config.references import Resolved
from airflow_agentic.errors import ConfigurationError, InvalidTask, LifecycleError, RejectMessage
from airflow_agentic.persistence import RunSuspended, StateSchema

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

_log = logging.getLogger(__name__)


class BaseAgent(ABC, Generic[InputT, OutputT]):
    """An agent: a named capability with a lifecycle, typed input and output, and numbers.

    Subclasses name their types, ``class Auditor(BaseAgent[Record, Verdict])``, and implement :meth:`process`.
    They may set ``config_model`` to a pydantic model, ``state_schema`` to what their events mean, and override the ``on_<state>`` hooks. A hook that raises
    fails the agent; ``on_failed`` and ``on_shutdown`` are logged instead, since nothing can follow them.

    What an agent needs it declares by type: parameters of its own ``__init__``, which hands ``**kwargs`` up, or
    parameters of ``process`` after ``ctx``.

    Args:
        name: What it is resolved by; default the name given to ``@agent``, else the class's.
        config: Values for ``config_model``. Of resolved references the store sees only where they lead from.
        store: Where state and numbers of the name are kept; without one they live with the instance.

    Raises:
        ConfigurationError: ``config`` does not fit ``config_model``.
    """

    config_model: ClassVar[type[BaseModel]] = NoConfiguration
    state_schema: ClassVar[StateSchema] = StateSchema()

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | BaseModel | Resolved | None = None,
        store: AgentStore | None = None,
    ) -> None:
        self._references = config if isinstance(config, Resolved) else Resolved.nothing()
        self._equipment: Mapping[str, Any] = {}
        self.name: str = name or vars(type(self)).get("agent_name") or type(self).__name__
        self._agent_id = f"{self.name}-{uuid7().hex}"
        self._state = AgentState.INITIALIZED
        self._reason = ""
        self._changed_at = datetime.now(UTC)
        self._metrics = PerformanceMetrics()
        self._lock = threading.RLock()
        self._contract = Contract(self.name, *self._types())
        self._configuration = self._validated(config.values if isinstance(config, Resolved) else config or {})
        self._ledger = Ledger(store, self._agent_id, self._profile()) if store is not None else None

    # -- what subclasses write -------------------------------------------------------------------------

    @abstractmethod
    def process(self, task: InputT, ctx: AgentContext) -> OutputT:
        """Do one piece of work.

        Args:
            task: The validated input.
            ctx: How to speak to other agents, and who this work is for.

        Returns:
            The result; it is validated against the output type.

        Raises:
            RejectMessage: This task can never be done; its message goes to the dead letters.
        """

    def on_ready(self, previous: AgentState, reason: str) -> None:
        """Called after the agent became ready: configured, reset, or done with a task."""

    def on_processing(self, previous: AgentState, reason: str) -> None:
        """Called before ``process``."""

    def on_degraded(self, previous: AgentState, reason: str) -> None:
        """Called after a task whose result is usable but not what it should be."""

    def on_failed(self, previous: AgentState, reason: str) -> None:
        """Called after a task raised or configuring failed."""

    def on_shutdown(self, previous: AgentState, reason: str) -> None:
        """Called when the agent ends, also while it is processing: let go of what it holds."""

    # -- what everybody sees ---------------------------------------------------------------------------

    @property
    def agent_id(self) -> str:
        """Unique for this instance."""
        return self._agent_id

    @property
    def agent_type(self) -> str:
        """Kind of agent: the class's name."""
        return type(self).__name__

    @property
    def configuration(self) -> BaseModel:
        """The validated configuration."""
        return self._configuration

    @property
    def state(self) -> AgentState:
        """Where this instance stands in the lifecycle."""
        return self._state

    @property
    def performance_metrics(self) -> PerformanceMetrics:
        """Numbers of the name, over all its instances, if it has a store; of this instance otherwise."""
        status = self._ledger.status() if self._ledger else None
        return status.metrics if status else self._metrics

    @property
    def contract(self) -> Contract:
        """What it takes and gives."""
        return self._contract

    def configure(self, config: Mapping[str, Any] | BaseModel | None = None, **changes: Any) -> None:
        """Set the configuration and become ready.

        Args:
            config: The whole configuration; default: keep the present one.
            changes: Single values on top of it.

        Raises:
            ConfigurationError: A value does not fit ``config_model``; the old configuration stays.
            LifecycleError: The agent is processing, failed or shut down.
        """
        with self._lock:
            if self._state not in (AgentState.INITIALIZED, AgentState.READY, AgentState.DEGRADED):
                raise LifecycleError(f"agent {self.name!r} cannot be configured while {self._state}")
            base = self._configuration if config is None else config
            if changes:
                base = {
                    **(base.model_dump(by_alias=True) if isinstance(base, BaseModel) else base),
                    **changes,
                }
            self._configuration = self._validated(base)
            if self._state is not AgentState.READY:
                self._move(AgentState.READY, "configured")

    def get_status(self) -> AgentStatus:
        """Return state, configuration and numbers: of the name if it has a store, else of this instance."""
        status = self._ledger.status() if self._ledger else None
        if status is not None:
            return status
        now = datetime.now(UTC)
        mine = Instance(self._agent_id, self._state, self._reason, "", self._changed_at, now)
        return summarise(self._profile(), self._metrics, [mine], now)

    def reset(self, reason: str = "reset") -> None:
        """Make a failed or degraded agent ready again.

        Raises:
            LifecycleError: The agent is processing or shut down.
        """
        with self._lock:
            if self._state is AgentState.PROCESSING:
                raise LifecycleError(f"agent {self.name!r} cannot be reset while {self._state}")
            if self._state is not AgentState.READY:
                self._move(AgentState.READY, reason)

    def shutdown(self, reason: str = "shutdown") -> None:
        """End the agent. Can be called from any state, and more than once."""
        with self._lock:
            if self._state is not AgentState.SHUTDOWN:
                self._move(AgentState.SHUTDOWN, reason)

    def run(self, task: Any, ctx: AgentContext) -> OutputT:
        """Validate ``task``, process it and validate the result, with the lifecycle around it.

        Args:
            task: Raw input, for example JSON from a message.
            ctx: The context.

        Raises:
            InvalidTask: The input does not fit.
            InvalidResult: The output does not fit or is not JSON.
            IllegalTransition: The agent is failed, shut down or processing already.
            Exception: Whatever ``process`` raises.
        """
        with self._work(ctx):
            return self._checked(self.process(self._contract.task(task), ctx, **self._equipment))

    def equip(self, things: Mapping[str, Any]) -> None:
        """Give it what ``process`` declares to need besides task and context.

        Args:
            things: By parameter.
        """
        self._equipment = things

    def discreet(self, text: str) -> str:
        """Return a text in which references stand for the values that they led to in the configuration."""
        return self._references.hide_text(text)

    def heartbeat(self) -> None:
        """Tell the store that this instance is alive; called while long work is going on."""
        if self._ledger:
            self._ledger.flush()

    # -- inside ----------------------------------------------------------------------------------------

    def _types(self) -> tuple[Any, Any]:
        return type_parameters(type(self), BaseAgent)

    def _profile(self) -> AgentProfile:
        return AgentProfile(
            name=self.name,
            agent_type=self.agent_type,
            description=self._description(),
            configuration=self._shown_configuration(),
            input_schema=self._contract.input_schema(),
            output_schema=self._contract.output_schema(),
        )

    def _shown_configuration(self) -> dict[str, Any]:
        """Return the configuration as it may be stored: references as they are written, literal secrets masked."""
        values = self._references.hide(self._configuration.model_dump(mode="json"))
        return {key: shown(value, ("agents", self.name, "config", key)) for key, value in values.items()}

    def _description(self) -> str:
        return (inspect.getdoc(type(self)) or "").split("\n\n")[0]

    def _validated(self, config: Mapping[str, Any] | BaseModel) -> BaseModel:
        try:
            return validate(self.name, self.config_model, config)
        except ConfigurationError as error:
            raise ConfigurationError(self.discreet(str(error))) from None

    def _checked(self, result: Any) -> OutputT:
        valid: OutputT = self._contract.result(result)
        self._contract.to_json(valid)
        return valid

    @contextlib.contextmanager
    def _work(self, ctx: AgentContext) -> Iterator[None]:
        """The lifecycle around one task: processing, then ready, degraded or failed, and the numbers."""
        if self._state is AgentState.INITIALIZED:
            self.configure()
        before, ctx.config = ctx.config, self._configuration
        self._move(AgentState.PROCESSING, "")
        started = time.monotonic()
        try:
            yield
        except (RejectMessage, InvalidTask) as error:
            # The task was wrong, not the agent.
            self._finish(AgentState.READY, f"{error}", started, error)
            raise
        except (RunSuspended, RunOver) as pause:
            # It waits, or was done before: neither is a failure, nor a piece of work.
            self._finish(AgentState.READY, f"{pause}", started, None, counts=False)
            raise
        except BaseException as error:
            self._finish(AgentState.FAILED, f"{type(error).__name__}: {error}", started, error)
            raise
        finally:
            ctx.config = before  # an agent may ask another one in the middle of its own work
        state = AgentState.DEGRADED if ctx.degraded else AgentState.READY
        self._finish(state, ctx.degraded or "", started, None)

    def _finish(
        self,
        state: AgentState,
        reason: str,
        started: float,
        error: BaseException | None,
        *,
        counts: bool = True,
    ) -> None:
        seconds = time.monotonic() - started
        done = (
            PerformanceMetrics()
            if not counts
            else PerformanceMetrics(
                processed=1,
                succeeded=int(error is None),
                failed=int(error is not None),
                degraded=int(state is AgentState.DEGRADED),
                total_seconds=seconds,
                max_seconds=seconds,
                last_error=self.discreet(reason) if error is not None else None,
            )
        )
        with self._lock:
            self._metrics += done
            if self._state is AgentState.PROCESSING:
                self._move(state, reason, done)
            elif self._ledger:
                # Shut down while it was processing: the numbers still count.
                self._ledger.note(self._state, self._reason, done)

    def _move(self, state: AgentState, reason: str, add: PerformanceMetrics | None = None) -> None:
        with self._lock:
            previous = self._state
            check_transition(self.name, previous, state)
            reason = self.discreet(reason)
            self._state, self._reason, self._changed_at = state, reason, datetime.now(UTC)
            if self._ledger:
                self._ledger.note(state, reason, add)
            hook = getattr(self, f"on_{state}")
            try:
                hook(previous, reason)
            except Exception as error:
                if state in (AgentState.FAILED, AgentState.SHUTDOWN):
                    _log.exception("hook on_%s of agent %r failed", state, self.name)
                    return
                self._move(AgentState.FAILED, f"hook on_{state}: {type(error).__name__}: {error}")
                raise
