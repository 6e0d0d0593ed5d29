"""How the incident triage finds causes: what a log says, which failures belong together, which rule fits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from incident_models import Evidence, Failure, Incident, Raised, Verdict

UNKNOWN = "unknown"

_MOST_LINES, _LONGEST_LINE, _MOST_FRAMES = 30, 300, 5
_AIRFLOW = "/site-packages/airflow/"
_LOUD = ("warning", "error", "critical")
_HIDDEN = (
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
    (r"\b(?:0x)?(?=[0-9a-f]*\d)[0-9a-f]{8,}\b", "<id>"),
    (r"\b\w+://[^\s'\"]+", "<url>"),
    (r"(?<![\w<])(?:[A-Za-z]:)?(?:[/\\][\w.@:+~=%-]+){2,}[/\\]?", "<path>"),
    (r"\d+(?:[.:,]\d+)*", "<number>"),
)


class Rule(BaseModel):
    """A line of a log says what kind of failure it is.

    Attributes:
        category: Which kind.
        pattern: Regular expression, searched in the exception and in the lines of the log.
        confidence: How sure it is, 0 to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    pattern: re.Pattern[str]
    confidence: float = Field(default=0.9, gt=0, le=1)


def evidence_of(failure: Failure, records: Sequence[Mapping[str, Any]], link: str = "") -> Evidence:
    """Read out of a log why a try failed; what the message says counts where the log says nothing."""
    with_error = [record for record in records if record.get("error_detail")]
    # What a callback says of its own troubles comes after it.
    failed = next((each for each in with_error if "Task failed" in str(each.get("event"))), None)
    chosen = failed or (with_error[-1] if with_error else None)
    lines = [line for record in records for line in _lines(record, always=record is chosen)]
    if chosen is None:
        said = failure.exception or Raised(
            type="NoException", message=lines[-1] if lines else "the log says nothing"
        )
        return Evidence(failure=failure, raised=said, lines=lines[-_MOST_LINES:], link=link)
    root = chosen["error_detail"][-1]
    frames = _own(root)
    return Evidence(
        failure=failure,
        raised=Raised(
            type=str(root.get("exc_type")), message=str(root.get("exc_value") or "")[:_LONGEST_LINE]
        ),
        where=_frame(frames[-1]) if frames else None,
        lines=lines[-_MOST_LINES:],
        link=link,
    )


def _lines(record: Mapping[str, Any], *, always: bool) -> list[str]:
    details = record.get("error_detail") or []
    if not (always or details or str(record.get("level")).lower() in _LOUD):
        return []
    texts = [str(record.get("event", ""))]
    for error in details:
        texts += [f"  {_frame(frame)}" for frame in _own(error)[-_MOST_FRAMES:]]
        texts.append(f"{error.get('exc_type')}: {error.get('exc_value')}")
    return [line[:_LONGEST_LINE] for text in texts for line in text.splitlines()]


def _own(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the frames of an exception without those of Airflow, which are the same for every task."""
    return [each for each in error.get("frames") or [] if _AIRFLOW not in str(each.get("filename"))]


def _frame(frame: Mapping[str, Any]) -> str:
    return f"{PurePath(str(frame.get('filename'))).name}:{frame.get('lineno')} in {frame.get('name')}"


def normalized(text: str, also: Iterable[re.Pattern[str]] = ()) -> str:
    """Return a message without what differs from time to time: numbers, ids, paths, addresses."""
    for own in also:
        text = own.sub("<any>", text)
    for pattern, name in _HIDDEN:
        text = re.sub(pattern, name, text, flags=re.IGNORECASE)
    return " ".join(text.split())


def shortened(text: str, most: int) -> str:
    """Return a text on one line, and not longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def correlated(evidence: Sequence[Evidence], also: Iterable[re.Pattern[str]] = ()) -> list[Incident]:
    """Make one incident of all failures with the same signature, in the order in which they came."""
    groups: dict[str, list[Evidence]] = {}
    for each in evidence:
        signature = f"{each.raised.type}: {normalized(each.raised.message, also)}"
        groups.setdefault(signature, []).append(each)
    return [_incident(signature, group) for signature, group in groups.items()]


def _incident(signature: str, group: Sequence[Evidence]) -> Incident:
    first = group[0]
    name = re.sub(r"\W+", "-", first.raised.type.rpartition(".")[2])[:60] or "failure"
    return Incident(
        id=f"{name}-{hashlib.sha256(signature.encode()).hexdigest()[:10]}",
        signature=signature,
        raised=first.raised,
        failures=[each.failure for each in group],
        lines=first.lines,
        links={each.failure.id: each.link for each in group if each.link},
        shared=_shared(group) if len(group) > 1 else {},
    )


_TRAITS: dict[str, Callable[[Evidence], str | None]] = {
    "DAG": lambda each: each.failure.dag_id,
    "run": lambda each: each.failure.run_id,
    "task": lambda each: each.failure.task_id,
    "place": lambda each: each.where,
    "message": lambda each: each.raised.message,
}


def _shared(group: Sequence[Evidence]) -> dict[str, str]:
    found = {name: {trait(each) for each in group} for name, trait in _TRAITS.items()}
    return {
        name: str(next(iter(values))) for name, values in found.items() if len(values) == 1 and all(values)
    }


def judged(incident: Incident, rules: Sequence[Rule]) -> Verdict:
    """Say what kind of incident it is: the surest rule that fits decides.

    Where rules of several categories fit, the evidence contradicts itself, and the confidence is halved.
    """
    lines = [str(incident.raised), *incident.lines]
    fitting = [(rule, line) for rule in rules for line in lines if rule.pattern.search(line)]
    if not fitting:
        return Verdict(incident=incident, category=UNKNOWN, confidence=0, because=[str(incident.raised)])
    best = max((rule for rule, _ in fitting), key=lambda rule: rule.confidence)
    doubted = any(rule.category != best.category for rule, _ in fitting)
    because = dict.fromkeys(
        line.strip() for rule, line in fitting if doubted or rule.category == best.category
    )
    return Verdict(
        incident=incident,
        category=best.category,
        confidence=best.confidence / 2 if doubted else best.confidence,
        because=list(because)[:3],
    )
