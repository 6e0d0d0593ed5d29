"""The agents of the licence audit, each alone, and what the project files make of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.config import ProjectInvalid, load_project
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.testing import assert_agent_contract, run_agent
from audit_agents import LicenseAuditor, Reporter, StrictLicenseAuditor, review, take_inventory
from licenses import ApprovedLicenses, Family, Verdict, read_installed

DAGS = Path(__file__).parents[3] / "dags"
BASE, STRICT = DAGS / "agentic.yaml", DAGS / "agentic.strict.yaml"
AUDITORS = [LicenseAuditor, StrictLicenseAuditor]
MIT_ONLY = {ApprovedLicenses: ApprovedLicenses(["MIT"])}


def record(expression=None, field=None):
    return {
        "name": "thing", "version": "1.0", "license_expression": expression, "license": field,
        "classifiers": [], "license_files": {}, "location": "/nowhere",
    }  # fmt: skip


def told(run):
    return [message.recipient for message in run.outbox]


@pytest.mark.parametrize("auditor", AUDITORS)
def test_auditors_keep_the_contract(auditor):
    bad_tasks = [{}, "text", record("MIT") | {"version": "one"}]
    assert_agent_contract(auditor, task=record("MIT"), bad_tasks=bad_tasks, services=MIT_ONLY)


@pytest.mark.parametrize("auditor", AUDITORS)
def test_what_is_clear_and_approved_is_nobodys_business(auditor):
    run = run_agent(auditor, record("MIT"), services=MIT_ONLY)
    assert run.result["needs_review"] is False
    assert told(run) == ["reporter"]


def test_what_is_not_approved_is_a_finding_in_the_strict_company_only():
    liberal = run_agent(LicenseAuditor, record("ISC"))
    strict = run_agent(StrictLicenseAuditor, record("ISC"), services=MIT_ONLY)
    assert told(liberal) == ["reporter"]
    assert told(strict) == ["reporter", "reviewer"]
    reason = f"{liberal.result['reason']} ISC is not approved."
    assert strict.result == liberal.result | {"needs_review": True, "reason": reason}
    assert [message.data for message in strict.outbox] == [strict.result, strict.result]


def test_a_licence_that_nothing_names_is_not_approved():
    run = run_agent(StrictLicenseAuditor, record(field="BSD"), services=MIT_ONLY)
    assert run.result["spdx"] is None
    assert run.result["reason"].endswith("What has no SPDX expression is not approved.")


def test_an_approved_licence_does_not_hide_a_doubt():
    contradictory = record("MIT", field="GPLv3")
    run = run_agent(StrictLicenseAuditor, contradictory, services=MIT_ONLY)
    assert run.result == run_agent(LicenseAuditor, contradictory).result
    assert run.result["needs_review"] is True


def test_the_strict_auditor_needs_to_know_what_is_approved():
    with pytest.raises(ConfigurationError, match="ApprovedLicenses"):
        run_agent(StrictLicenseAuditor, record("MIT"))


def test_the_inventory_sends_a_message_for_each_distribution_and_one_that_is_broken():
    run = run_agent(take_inventory, {"plant_broken_record": True})
    installed = len(list(read_installed()))
    assert run.result == {"installed": installed, "planted": 1}
    assert told(run) == ["license-auditor"] * (installed + 1)
    assert run.outbox[-1].subject == "planted-broken-record"


def test_a_report_without_an_inventory_does_not_add_up(tmp_path):
    run = run_agent(Reporter, [], config={"directory": tmp_path, "inventory": {"installed": 1, "planted": 0}})
    assert run.state == "degraded"
    assert run.result["adds_up"] is False
    assert {path.name for path in tmp_path.iterdir()} == {"dependency_audit.json", "dependency_audit.md"}


FINDING = Verdict(
    name="thing", version="1", family=Family.WEAK_COPYLEFT, spdx="MPL-2.0", evidence="expression",
    reason="it says so.", needs_review=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("services", "advice"),
    [
        ({}, "Keep it a separate"),
        (MIT_ONLY, "Have its licence approved"),
        ({ApprovedLicenses: ApprovedLicenses(["MPL-2.0"])}, "Keep it a separate"),
    ],
)
def test_a_review_knows_whether_there_is_a_list_of_approved_licences(services, advice):
    (note,) = run_agent(review, [FINDING.model_dump(mode="json")], services=services).result
    assert note["advice"].startswith(advice)
    assert (note["distribution"], note["reason"]) == ("thing 1", FINDING.reason)


APPROVED = ApprovedLicenses(["mit", "Apache-2.0", "GPL-2.0", "Apache-2.0 with llvm-exception"])


@pytest.mark.parametrize(
    ("expression", "suffice"),
    [
        *(
            (one, True)
            for one in ("MIT", "GPL-2.0-only", "MIT AND Apache-2.0", "Apache-2.0 WITH LLVM-exception")
        ),
        *(
            (one, True)
            for one in ("MIT OR ISC", "(ISC AND MIT) OR Apache-2.0", "MIT AND (ISC OR Apache-2.0)")
        ),
        *(
            (one, False)
            for one in (None, "ISC", "MIT AND ISC", "MIT AND (ISC OR MPL-2.0)", "GPL-2.0-or-later")
        ),
        ("MIT WITH LLVM-exception", False),
    ],
)
def test_approved_licences_suffice_for_all_of_an_and_or_one_of_an_or(expression, suffice):
    assert APPROVED.cover(expression) is suffice


@given(st.lists(st.sampled_from(["MIT", "ISC", "MPL-2.0"]), min_size=1))
def test_more_approved_licences_never_suffice_for_less(spdx):
    approved, more = ApprovedLicenses(spdx), ApprovedLicenses([*spdx, "Apache-2.0"])
    for expression in ("MIT", "MIT OR ISC", "MIT AND Apache-2.0"):
        assert approved.cover(expression) <= more.cover(expression)


@pytest.mark.parametrize("text", ["MTI", "MIT OR ISC", "", "GPL-3.0-only WITH nothing"])
def test_what_is_no_identifier_cannot_be_approved(text):
    with pytest.raises(ValueError, match="not the SPDX identifier of one licence"):
        ApprovedLicenses(["MIT", text])


def where(project, *path):
    (found,) = project.explain(("agents", "license-auditor", *path))
    return found.value, Path(found.source.rpartition(":")[0]).name


def test_both_environments_are_valid_and_say_what_the_auditor_is():
    base, strict = load_project([BASE], env={}), load_project([BASE, STRICT], env={})
    assert {"inventory", "license-auditor", "reporter", "reviewer"} <= set(base.agents) == set(strict.agents)
    assert where(base, "type") == ("audit_agents:LicenseAuditor", "agentic.yaml")
    assert where(strict, "type") == ("audit_agents:StrictLicenseAuditor", "agentic.strict.yaml")
    assert where(base, "policy") == ("patient", "agentic.yaml")
    assert where(strict, "policy") == ("strict", "agentic.strict.yaml")
    assert base.agents["license-auditor"].overridable == ("pause_seconds",)
    assert strict.agents["license-auditor"].overridable == ()


def test_a_mistyped_licence_in_the_project_file_is_found_before_anything_runs():
    wrong = {"services.approved-licenses.config.spdx": ["MIT", "Apache 2"]}
    with pytest.raises(ProjectInvalid, match=r"'Apache 2' is not the SPDX identifier"):
        load_project([BASE, STRICT], env={}, overrides=wrong)


def test_without_the_service_the_strict_auditor_is_refused():
    lost = {"services.approved-licenses": "${delete}"}
    with pytest.raises(ProjectInvalid, match=r"agents\.license-auditor.*ApprovedLicenses"):
        load_project([BASE, STRICT], env={}, overrides=lost)
