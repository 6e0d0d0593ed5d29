"""The local Airflow: which project files it gives to the DAGs, and what it says about them."""

import json
from pathlib import Path

import pytest

from localairflow import project
from localairflow.environment import Environment, Ports
from localairflow.errors import ProjectFileError, UnknownEnvironmentError
from localairflow.home import Home
from localairflow.stack import LocalAirflow

DAGS = Path(__file__).parents[3] / "dags"
BASE, STRICT = DAGS / "agentic.yaml", DAGS / "agentic.strict.yaml"


def folder(path, *names):
    for name in names:
        (path / name).write_text("{}\n")
    return path


def environment(home, **settings):
    database = {"psycopg2": "postgresql+psycopg2://", "asyncpg": "postgresql+asyncpg://"}
    secrets = {"jwt": "j", "session": "s", "fernet": "f"}
    return Environment(Home(home), DAGS, database, Ports(1, 2, 3), secrets, **settings)


def test_an_environment_is_a_file_over_the_first(tmp_path):
    dags = folder(tmp_path, "agentic.yaml", "agentic.strict.yaml", "agentic.a.b.yaml", "other.yaml")
    assert project.environments(dags) == ["a.b", "strict"]
    assert project.project_files(dags) == (dags / "agentic.yaml",)
    assert project.project_files(dags, "a.b") == (dags / "agentic.yaml", dags / "agentic.a.b.yaml")


def test_a_folder_without_a_project_file_has_none(tmp_path):
    dags = folder(tmp_path, "agentic.strict.yaml")
    assert project.project_files(dags) == ()
    with pytest.raises(UnknownEnvironmentError, match="It has none"):
        project.project_files(dags, "strict")


@pytest.mark.parametrize("name", ["Strict", "", "../agentic", "*"])
def test_an_unknown_environment_is_refused_and_the_known_ones_are_named(tmp_path, name):
    with pytest.raises(UnknownEnvironmentError, match=r"It has: strict\."):
        LocalAirflow(tmp_path / "home", DAGS, environment=name)


def test_the_dags_folder_says_which_project_an_airflow_has(tmp_path):
    assert LocalAirflow(tmp_path / "home", tmp_path).project == ""
    assert LocalAirflow(tmp_path / "home", DAGS).project == str(BASE)
    assert LocalAirflow(tmp_path / "home", DAGS, environment="strict").project == f"{BASE},{STRICT}"


def test_the_project_reaches_airflow_and_the_callers_own_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", "/of/the/caller.yaml")
    monkeypatch.setenv("AGENTIC__AGENTS__LICENSE_AUDITOR__TYPE", "of_the:caller")
    mine = environment(tmp_path, project=str(BASE)).variables()
    assert mine["AIRFLOW__AGENTIC__PROJECT_FILE"] == str(BASE)
    assert not [name for name in mine if name.startswith("AGENTIC__")]
    assert "AIRFLOW__AGENTIC__PROJECT_FILE" not in environment(tmp_path).variables()


def test_dags_can_ask_this_airflow_itself(tmp_path):
    own = environment(tmp_path)
    api = json.loads(own.variables()["AIRFLOW_CONN_AIRFLOW_API"])
    assert api == {"conn_type": "http", "host": own.url, "login": "admin", "password": "admin"}
    other = environment(tmp_path, extra={"AIRFLOW_CONN_AIRFLOW_API": "mine"})
    assert other.variables()["AIRFLOW_CONN_AIRFLOW_API"] == "mine"


def test_people_read_what_the_auditor_is_made_of_and_what_it_took_the_place_of(monkeypatch):
    monkeypatch.chdir(DAGS.parent)
    files = (BASE, STRICT)
    lines = project.described(project.load(files), files, "license-auditor").splitlines()
    assert lines[0].split() == ["Project", "dags/agentic.yaml,", "dags/agentic.strict.yaml"]
    told = [line.split()[-2:] for line in lines[1:]]
    assert [value for value, _ in told] == [
        "audit_agents:StrictLicenseAuditor", "audit_agents:LicenseAuditor", "strict", "patient",
    ]  # fmt: skip
    for value, place in told:
        file, _, line = place.rpartition(":")
        assert value in Path(file).read_text().splitlines()[int(line) - 1]


def test_a_broken_project_file_is_told_with_its_line(tmp_path):
    (tmp_path / "agentic.yaml").write_text("agents:\n  auditor:\n    polcy: none\n")
    with pytest.raises(ProjectFileError, match=r"agentic\.yaml:3: agents\.auditor\.polcy: unknown key"):
        project.load(project.project_files(tmp_path))
