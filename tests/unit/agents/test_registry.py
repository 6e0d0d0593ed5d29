from __future__ import annotations

import sys
import textwrap

import pytest
from pydantic import BaseModel

from airflow_agentic.agents import (
    AgentContext,
    AgentDefinition,
    AgentRegistry,
    BaseAgent,
    FunctionAgent,
    agent,
)
from airflow_agentic.agents.registry import as_definition
from airflow_agentic.agents.registry import registry as process_registry
from airflow_agentic.errors import ConfigurationError, UnknownAgent
from airflow_agentic.testing import memory_store

# The package has an attribute of the same name, the registry itself.
REGISTRY_MODULE = sys.modules["airflow_agentic.agents.registry"]


class Strictness(BaseModel):
    level: int = 1


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own, which @agent uses, with no agents of installed packages."""
    fresh = AgentRegistry()
    monkeypatch.setattr(REGISTRY_MODULE, "registry", fresh)
    monkeypatch.setattr(REGISTRY_MODULE, "installed", lambda _group: [])
    return fresh


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with agents, importable as ``some_agents``."""
    (tmp_path / "some_agents.py").write_text(
        textwrap.dedent("""
            from airflow_agentic.agents import AgentDefinition, BaseAgent

            class Auditor(BaseAgent[int, int]):
                def process(self, task, ctx):
                    return task

            def count_words(task: str) -> int:
                return len(task.split())

            defined = AgentDefinition("word-counter", count_words)
            NUMBER = 5
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_agents"
    sys.modules.pop("some_agents", None)


def run(made, task):
    return made.run(task, AgentContext(made.name))


class TestDecorator:
    def test_bare_it_takes_the_functions_name_with_dashes(self, registry):
        @agent
        def count_words(task: str) -> int:
            return len(task.split())

        assert registry.names() == ["count-words"]
        assert isinstance(count_words, AgentDefinition)
        assert registry.resolve("count-words") is count_words

    def test_with_brackets_and_nothing_in_them_it_does_the_same(self, registry):
        @agent()
        def count_words(task: str) -> int:
            return len(task.split())

        assert registry.names() == ["count-words"]

    def test_with_a_name_it_takes_that(self, registry):
        @agent("counter")
        def count_words(task: str) -> int:
            return len(task.split())

        assert registry.names() == ["counter"]

    def test_with_a_model_the_agent_has_a_configuration(self, registry):
        @agent("judge", config=Strictness)
        def judge(task: int, ctx: AgentContext) -> int:
            return task * ctx.config.level

        made = registry.resolve("judge").create({"level": 3})
        assert run(made, 2) == 6
        with pytest.raises(ConfigurationError, match="Known keys: level"):
            judge.create({"level": "high"})

    def test_a_decorated_function_can_still_be_called(self, registry):
        @agent
        def double(task, factor=2):
            return task * factor

        assert double(4) == 8
        assert double(4, factor=3) == 12

    def test_a_class_stays_a_class_and_is_known_by_its_name_or_the_one_given(self, registry):
        @agent
        class Auditor(BaseAgent[int, int]):
            def process(self, task, ctx):
                return task

        @agent("strict-auditor")
        class Other(Auditor):
            pass

        assert isinstance(Auditor, type)
        assert registry.names() == ["Auditor", "strict-auditor"]
        assert registry.resolve("strict-auditor").create().name == "strict-auditor"

    def test_a_subclass_does_not_take_its_parents_name(self, registry):
        @agent("parent")
        class Parent(BaseAgent[int, int]):
            def process(self, task, ctx):
                return task

        class Child(Parent):
            pass

        assert as_definition(Parent).name == "parent"
        assert as_definition(Child).name == "Child"

    def test_a_class_that_is_no_agent_is_refused(self, registry):
        with pytest.raises(ConfigurationError, match="is no agent"):

            @agent
            class Plain:
                pass

        assert registry.names() == []


class TestNames:
    def test_two_agents_of_one_name_are_refused_and_both_are_told(self, registry):
        @agent("auditor")
        def first(task):
            return task

        with pytest.raises(
            ConfigurationError, match=r"two agents are named 'auditor': .*first.* and .*second"
        ):

            @agent("auditor")
            def second(task):
                return task

        assert registry.resolve("auditor") is first

    def test_a_file_that_is_parsed_again_registers_its_agents_again(self, registry, tmp_path):
        source = "from airflow_agentic.agents import agent\n\n@agent\ndef audit(task):\n    return {}\n"
        for value in ("1", "2"):
            code = compile(source.format(value), str(tmp_path / "dag.py"), "exec")
            exec(code, {"__name__": "unusual_prefix_dag"})
        assert run(registry.resolve("audit").create(), 0) == 2

    def test_names_are_sorted(self, registry):
        for name in ("zoe", "abe"):
            registry.register(AgentDefinition(name, lambda task: task))
        assert registry.names() == ["abe", "zoe"]


class TestResolve:
    def test_an_unknown_name_is_told_with_the_nearest_and_all_known(self, registry):
        for name in ("license-auditor", "scanner"):
            registry.register(AgentDefinition(name, lambda task: task))
        with pytest.raises(UnknownAgent) as caught:
            registry.resolve("licence-auditor")
        text = str(caught.value)
        assert "there is no agent 'licence-auditor'. Did you mean 'license-auditor'?" in text
        assert "Known here: license-auditor, scanner" in text
        assert '@agent("licence-auditor")' in text

    def test_without_anything_near_nothing_is_suggested(self, registry):
        with pytest.raises(UnknownAgent, match=r"no agent 'xyz'\. Known here: none\."):
            registry.resolve("xyz")

    def test_a_path_leads_to_a_class_a_function_or_a_definition(self, registry, module):
        assert registry.resolve("some_agents:Auditor").create().agent_type == "Auditor"
        function = registry.resolve("some_agents:count_words")
        assert (function.name, run(function.create(), "a b")) == ("count-words", 2)
        assert registry.resolve("some_agents:defined").name == "word-counter"

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("no_such_module:Agent", "no_such_module"),
            ("some_agents:Missing", "Missing"),
            (":Agent", "write package.module:Attribute"),
            (".relative:Agent", "relative"),
            ("some_agents:", "some_agents"),
        ],
    )
    def test_a_path_that_leads_nowhere_is_an_unknown_agent(self, registry, module, path, text):
        with pytest.raises(UnknownAgent, match=f"there is no agent '{path}'.*{text}"):
            registry.resolve(path)

    def test_a_path_to_something_else_is_refused(self, registry, module):
        with pytest.raises(ConfigurationError, match="5 is no agent"):
            registry.resolve("some_agents:NUMBER")

    def test_installed_packages_declare_agents_as_entry_points(self, registry, monkeypatch):
        class Point:
            name = "installed"

            def load(self):
                return lambda task: task + 1

        monkeypatch.setattr(REGISTRY_MODULE, "installed", lambda _group: [Point()])
        assert registry.names() == ["installed"]
        definition = registry.resolve("installed")
        assert (definition.name, run(definition.create(), 1)) == ("installed", 2)

    def test_what_is_registered_here_goes_before_what_is_installed(self, registry, monkeypatch):
        class Point:
            name = "same"

            def load(self):
                raise AssertionError

        monkeypatch.setattr(REGISTRY_MODULE, "installed", lambda _group: [Point()])
        mine = AgentDefinition("same", lambda task: task)
        registry.register(mine)
        assert registry.resolve("same") is mine


class TestCreate:
    def test_a_definition_makes_agents_of_its_name_with_a_store(self):
        with memory_store() as store:
            made = AgentDefinition("worker", lambda task: task).create(store=store.agents)
            assert isinstance(made, FunctionAgent)
            run(made, 1)
            made.shutdown()
            assert store.agents.get("worker").metrics.processed == 1

    def test_a_wrong_configuration_is_refused(self):
        with pytest.raises(ConfigurationError, match="no_such_key"):
            AgentDefinition("worker", lambda task: task).create({"no_such_key": 1})

    def test_the_registry_of_the_process_is_one(self):
        assert isinstance(process_registry, AgentRegistry)


def test_a_class_made_by_itself_has_the_name_that_it_was_registered_under():
    @agent("auditor-by-name")
    class Auditor(BaseAgent[int, int]):
        def process(self, task, ctx):
            return task

    class Stricter(Auditor):
        pass

    assert Auditor().name == "auditor-by-name"
    assert Stricter().name == "Stricter"


def test_a_configuration_model_given_to_the_decorator_of_a_class_is_refused():
    class Limit(BaseModel):
        euros: int = 1

    with pytest.raises(ConfigurationError, match="config_model = Limit"):

        @agent("limited", config=Limit)
        class Limited(BaseAgent[int, int]):
            def process(self, task, ctx):
                return task


def test_two_files_with_functions_of_one_name_do_not_replace_each_other(tmp_path):
    registry = AgentRegistry()
    for number in (1, 2):
        names = {}
        source = "def process(task): return task"
        exec(compile(source, str(tmp_path / f"dag{number}.py"), "exec"), names)
        definition = AgentDefinition("process", names["process"])
        if number == 1:
            registry.register(definition)
        else:
            with pytest.raises(ConfigurationError, match=r"process in .*dag1\.py and process in .*dag2\.py"):
                registry.register(definition)
