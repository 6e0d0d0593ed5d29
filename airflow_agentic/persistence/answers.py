"""Answers of people to what runs ask: which question is meant, whether an answer fits, who gave one before."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_agentic.errors import AlreadyAnswered, InvalidAnswer, RunNotFound
from airflow_agentic.persistence.ports import IndexEntry, Record
from airflow_agentic.persistence.records import QUESTION, RecordType

_log = logging.getLogger(__name__)

_SHOWN_SCHEMA = 500


def asked_as(index: Sequence[IndexEntry], key: str, question: str) -> IndexEntry:
    """Return the record of a question.

    Args:
        index: What the journal has.
        key: The run.
        question: Its name in the journal, or without what all such names begin with.

    Raises:
        RunNotFound: The run never asked that.
    """
    asked = {entry.name: entry for entry in index if entry.type == RecordType.ASKED}
    for name in (question, f"{QUESTION}{question}"):
        if name in asked:
            return asked[name]
    answered = {entry.name for entry in index if entry.type == RecordType.ANSWERED}
    names = ", ".join(name.removeprefix(QUESTION) for name in asked if name not in answered)
    said = f"It asks: {names}" if names else "It asks nothing that nobody answered"
    raise RunNotFound(f"run {key!r} does not ask {question!r} now. {said}")


def answered_before(key: str, record: Record, said: Mapping[str, Any]) -> AlreadyAnswered:
    """Return the error for a question that has an answer.

    Args:
        key: The run.
        record: Of the answer.
        said: What that record says.
    """
    actor, name = str(said.get("actor") or ""), record.name
    when = f"{record.at:%Y-%m-%d %H:%M:%S} UTC"
    if said.get("late"):
        text = f"nobody answered {name!r} of run {key!r} in time, and the run went on without an answer at {when}"
    else:
        text = f"{actor or 'somebody'} answered {name!r} of run {key!r} at {when}, and that answer counts"
    return AlreadyAnswered(f"{text}; nothing was recorded", key, name, actor, record.at)


def check_fits(answer: Any, schema: Mapping[str, Any] | None) -> None:
    """Refuse an answer that does not fit.

    Args:
        answer: Any JSON.
        schema: JSON Schema; ``None`` for anything. What is no schema, or refers to what is not in it, checks nothing:
            otherwise nobody could answer.

    Raises:
        InvalidAnswer: It does not fit; the text names the place in it.
    """
    if schema is None:
        return
    # Most runs ask nobody, and these cost as much time as all of this package.
    from jsonschema.exceptions import SchemaError, best_match  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        kind = validator_for(schema)
        kind.check_schema(schema)
        # With a registry of its own, nothing is fetched from elsewhere.
        fault = best_match(kind(schema, registry=Registry()).iter_errors(answer))
    except (SchemaError, Unresolvable, RecursionError) as error:
        _log.warning("the schema of a question cannot be used, and the answer is not checked: %s", error)
        return
    if fault is not None:
        where = "".join(f"[{part!r}]" for part in fault.absolute_path)
        raise InvalidAnswer(
            f"the answer{where} does not fit what is asked for: {fault.message}; the schema is "
            f"{json.dumps(schema)[:_SHOWN_SCHEMA]}"
        )
