"""``airflow agentic doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

from airflow_agentic.cli.access import completed, find_target, sqlite_file
from airflow_agentic.cli.checks import (
    Finding,
    Result,
    durability,
    examined,
    guards,
    installation,
    project,
    runs,
    storage,
    work,
)
from airflow_agentic.cli.command import command
from airflow_agentic.cli.output import count, listing, say
from airflow_agentic.errors import AgenticError, ProjectInvalid
from airflow_agentic.runtime import StoreTarget

_INDENT = 9


@command
def examine(args: Namespace) -> None:
    """Look at the installation, the project, the store and the work in it; exit 1 if something fails."""
    # The project is that of Airflow, whichever store is looked at.
    declared = examined(project.CHECK, project.declared)
    # Of a project that cannot be read no rule can be looked at.
    rules = () if declared.result is Result.FAIL else (examined("failures", guards.failures),)
    found = (*installation.findings(), declared, *rules, *_store(args))
    findings = [finding if finding is declared else _completed(finding, args) for finding in found]
    if args.output == "table":
        say(*_lines(findings))
    else:
        listing(args.output, [asdict(finding) for finding in findings], map(asdict, findings))
    if any(finding.result is Result.FAIL for finding in findings):
        raise SystemExit(1)


def _store(args: Namespace) -> list[Finding]:
    try:
        target = find_target(args)
    except ProjectInvalid:
        # Its faults stand above already.
        text = "the project may say where it is, and cannot be read"
        return [Finding("store", Result.FAIL, text, "correct the project first")]
    except AgenticError as error:
        return [Finding("store", Result.FAIL, str(error))]
    findings = [examined("store", partial(storage.location, target))]
    if findings[0].result is Result.FAIL:
        return findings
    path = sqlite_file(target)
    if path is not None:
        findings.append(examined("file system", partial(storage.filesystem, path)))
        findings.append(examined("disk", partial(storage.disk, path)))
    if findings[0].result is Result.WARNING:
        return [*findings, examined("writable", partial(storage.directory, path))] if path else findings
    findings.append(examined("claim checks", partial(storage.claim_checks, target)))
    opening = examined("schema and write access", partial(storage.schema_of, target))
    findings.append(opening)
    if durability.is_redis(target):
        findings.append(examined(durability.CHECK, partial(durability.durability, target)))
    if opening.result is Result.OK:
        findings.extend(_work(target))
    return findings


def _work(target: StoreTarget) -> list[Finding]:
    with target.open() as store:
        return [
            examined("dead letters", partial(work.dead_letters, store)),
            examined("routes", partial(work.unroutable, store)),
            examined("readers", partial(work.unread, store)),
            examined("leases", partial(work.leases, store)),
            examined("heartbeats", partial(work.heartbeats, store)),
            examined("agents", partial(work.agents, store)),
            examined("breakers", partial(guards.breakers, store)),
            examined("budgets", partial(guards.budgets, store)),
            examined("journals", partial(runs.journals, store)),
            examined("steps", partial(runs.ambiguous, store)),
            examined("runs", partial(runs.stale, store)),
        ]


def _completed(finding: Finding, args: Namespace) -> Finding:
    return replace(finding, text=completed(finding.text, args), way_out=completed(finding.way_out, args))


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.result:<{_INDENT}}{finding.check}: {finding.text}"
        if finding.way_out:
            yield f"{'':<{_INDENT}}-> {finding.way_out}"
    failed = sum(finding.result is Result.FAIL for finding in findings)
    warned = sum(finding.result is Result.WARNING for finding in findings)
    if failed or warned:
        yield f"{count(len(findings), 'check')}: {failed} FAIL, {count(warned, 'warning')}"
    else:
        yield f"{count(len(findings), 'check')}, all ok"
