"""Every project of ``tests/broken_projects``, and all that is said of it: file, line, key, message and suggestion."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from airflow_agentic.config import ProjectInvalid, load_project

SHALLOW = Path(__file__).parents[2] / "broken_projects"
DEEP = SHALLOW / "deep"
# What a message says when nothing need be suggested: what must be, or what is there once too often or not at all.
ACTIONABLE = re.compile(
    r"\bmust\b|did you mean|is written twice|not closed|lacks a|not a JSON value|give a|cannot be imported"
    r"|is circular|is a \w+, not a"
)


def cases(folder):
    others = {"deep", "__pycache__", "expected.yaml", "broken_agents.py"}
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in others)


def expected(folder):
    return yaml.safe_load((folder / "expected.yaml").read_text())


def faults_of(case):
    with pytest.raises(ProjectInvalid) as caught:
        load_project(case, env={})
    return caught.value.errors


def told(fault):
    """A fault as ``expected.yaml`` has it."""
    values = asdict(fault)
    del values["source"]
    return values | {"file": Path(fault.file).name if fault.file else None}


@pytest.fixture(params=[SHALLOW, DEEP], ids=["files", "code"])
def folder(request, monkeypatch):
    # Files are told as they are named: so they are named without the place of this checkout.
    monkeypatch.chdir(request.param)
    monkeypatch.syspath_prepend(DEEP)
    return request.param


@pytest.fixture
def shallow(monkeypatch):
    monkeypatch.chdir(SHALLOW)


@pytest.fixture
def deep(monkeypatch):
    monkeypatch.chdir(DEEP)
    monkeypatch.syspath_prepend(DEEP)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("case", cases(SHALLOW))
def test_all_that_is_wrong_with_a_file_is_told_with_its_line_and_what_to_write(case):
    assert [told(fault) for fault in faults_of(case)] == expected(SHALLOW)[case]


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("case", cases(DEEP))
def test_all_that_does_not_fit_the_code_is_told_with_its_line(case):
    assert [told(fault) for fault in faults_of(case)] == expected(DEEP)[case]


def test_there_are_many_cases_and_each_has_its_expectation(folder):
    assert set(expected(folder)) == set(cases(folder))
    assert all(expected(folder).values())
    assert len(cases(folder)) >= {SHALLOW: 30, DEEP: 6}[folder]


def test_every_fault_can_be_acted_on(folder):
    found = [fault for case in cases(folder) for fault in faults_of(case)]
    assert [
        str(fault) for fault in found if not fault.suggestion and not ACTIONABLE.search(fault.message)
    ] == []


def test_no_two_faults_of_one_project_are_told_in_the_same_words(folder):
    for case in cases(folder):
        texts = [str(fault) for fault in faults_of(case)]
        assert len(set(texts)) == len(texts), case


def test_every_line_is_one_of_the_file(folder):
    for case in cases(folder):
        for fault in faults_of(case):
            if fault.line is not None:
                lines = Path(fault.file).read_bytes().splitlines()
                assert 1 <= fault.line <= len(lines), (case, fault)


def test_where_a_fault_has_a_key_its_last_part_or_one_above_it_is_written_in_the_line(folder):
    for case in cases(folder):
        for fault in faults_of(case):
            if fault.line is None or not fault.key:
                continue
            line = Path(fault.file).read_bytes().splitlines()[fault.line - 1].decode()
            # The item of a list has a line of its own, and its index is not written there.
            parts = fault.key.split(".")
            assert parts[-1].isdecimal() or any(part in line for part in parts), (case, fault)


def test_the_whole_text_names_every_fault_on_a_line_of_its_own(folder):
    for case in cases(folder):
        faults = faults_of(case)
        with pytest.raises(ProjectInvalid) as caught:
            load_project(case, env={})
        head, *lines = str(caught.value).splitlines()
        assert head == f"the project configuration has {len(faults)} fault{'s' if len(faults) > 1 else ''}:"
        assert lines == [str(fault) for fault in faults]


@pytest.mark.usefixtures("shallow")
def test_no_secret_of_a_broken_file_is_told():
    (fault,) = faults_of("bad-reference-in-a-secret.yaml")
    assert "hunter" in Path("bad-reference-in-a-secret.yaml").read_text()
    assert "hunter" not in repr(fault)
