"""Projects of real files and modules, for the tests of what is planned and wired."""

from __future__ import annotations

import importlib
import sys
import textwrap
import uuid

import pytest

from airflow_agentic.agents import AgentContext
from airflow_agentic.agents.declared import implementation
from airflow_agentic.agents.services import services_of
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.flags import Flags
from airflow_agentic.config.project import Project, assemble, load_project
from airflow_agentic.config.references import SecretResolver
from airflow_agentic.errors import ProjectInvalid, UnresolvedReference
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.observability import Metrics, NoMetrics
from airflow_agentic.testing import memory_store

HEAD = """
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field

from airflow_agentic.agents import AgentContext, BaseAgent, agent
from airflow_agentic.config.injection.container import Named

MADE = []
"""


class Place:
    """A folder with a project file and modules; in both, MODULE stands for the name of the first module."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "agentic.yaml"
        self.module = f"agents_{uuid.uuid4().hex}"
        self.modules = []

    def code(self, source, name=None):
        """Write a module, and return its name."""
        name = name or self.module
        self.modules.append(name)
        text = HEAD + textwrap.dedent(source).replace("MODULE", self.module)
        (self.folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return name

    def python(self, name=None):
        """Return the module as the project imported it."""
        return importlib.import_module(name or self.module)

    def imported(self, name=None):
        return (name or self.module) in sys.modules

    def write(self, text):
        self.file.write_text(textwrap.dedent(text).strip().replace("MODULE", self.module) + "\n")

    def project(self, text):
        self.write(text)
        return load_project(self.file, env={})

    def unchecked(self, text):
        """The project as an operator reads it: the code of its agents was not looked at."""
        self.write(text)
        return assemble([(str(self.file), self.file.read_bytes())])

    def faults(self, text):
        """The faults of a project: line, key and the text of each, by line."""
        with pytest.raises(ProjectInvalid) as caught:
            self.project(text)
        assert {fault.file for fault in caught.value.errors} == {str(self.file)}
        return [(fault.line, fault.key, said(fault)) for fault in caught.value.errors]

    def fault(self, text):
        (found,) = self.faults(text)
        return found

    def forget(self):
        for name in self.modules:
            sys.modules.pop(name, None)


def said(fault):
    return f"{fault.message} ({fault.suggestion})" if fault.suggestion else fault.message


class Book:
    """Where references lead: a map of their texts."""

    def __init__(self, leads=None):
        self.leads = leads or {}
        self.asked = []

    def resolve(self, reference):
        self.asked.append(reference.text)
        if reference.text not in self.leads:
            raise UnresolvedReference(f"{reference.text} leads nowhere")
        return self.leads[reference.text]


class Workshop:
    """Services of a project on a store in memory, and scopes of them."""

    def __init__(self, project, leads=None):
        self.declared = project
        self.book = Book(leads)
        self.imported = []
        self.services = services_of(project, self._implementation, self.book)

    def _implementation(self, name):
        self.imported.append(name)
        return implementation(self.declared, name)

    def open(self, store):
        return self.services.open(
            {
                MessageBus: store.bus,
                AgentStore: store.agents,
                Project: self.declared,
                Flags: Flags(self.declared.flags),
                Metrics: NoMetrics(),
                SecretResolver: self.book,
            }
        )

    def make(self, scope, name, store=None):
        """Build an agent as the place of work does."""
        definition = implementation(self.declared, name)
        uses = self.declared.agents[name].uses
        return definition.create(None, store, scope.supply(definition.needs, uses, f"agent {name!r}"))

    def work(self, name, task):
        """Let an agent do one task in a scope of its own."""
        with memory_store() as store, self.open(store) as scope:
            return run(self.make(scope, name), task)


def run(made, task):
    """Return what the agent kept in ``ctx.found``, which need not be JSON; else its result."""
    ctx = AgentContext(made.name)
    result = made.run(task, ctx)
    return getattr(ctx, "found", result)
