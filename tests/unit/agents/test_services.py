"""Services of a project file: how they are built, how long they live, and agents as things that agents need."""

from __future__ import annotations

import pytest
from project_steps import Place, Workshop, run

from airflow_agentic.agents import AgentState
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.flags import Flags
from airflow_agentic.config.project import Project
from airflow_agentic.errors import ConfigurationError, UnknownService, UnresolvedReference
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.testing import memory_store

CODE = """
    from typing import TypedDict

    class Shape(TypedDict):
        depth: int

    class Index:
        def __init__(self, url: str = "", size: int = 1, ratio: float = 1.0, tags: list[str] = [],
                     shape: Shape | None = None, untyped=None):
            MADE.append("Index")
            self.url, self.size, self.ratio, self.tags = url, size, ratio, tags
            self.shape, self.untyped = shape, untyped

    class Searcher(BaseAgent[int, Any]):
        def process(self, task, ctx, index: Index):
            ctx.found = index

    class Cache:
        def __init__(self, index: Index):
            self.index = index

    class Port(Protocol):
        def find(self) -> str: ...

    class Found:
        def find(self):
            return "found"

    class Finder(BaseAgent[int, str]):
        def process(self, task, ctx, port: Port):
            return port.find()

    def opened(log: list) -> Index:
        MADE.append("+opened")
        yield Index()
        MADE.append("-opened")

    def above(index: Index) -> Cache:
        MADE.append("+above")
        yield Cache(index)
        MADE.append("-above")

    class Chooser(BaseAgent[int, Any]):
        def process(self, task, ctx, index: Annotated[Index, Named("slow")]):
            ctx.found = index

    class Both(BaseAgent[int, Any]):
        def process(self, task, ctx, cache: Cache, index: Index):
            ctx.found = cache.index, index

    class Given(BaseAgent[int, Any]):
        def process(self, task, ctx, bus: "MessageBus", agents: "AgentStore", flags: "Flags", project: "Project"):
            ctx.found = bus, agents, flags, project

    from airflow_agentic.agents.status import AgentStore
    from airflow_agentic.config.flags import Flags
    from airflow_agentic.config.project import Project
    from airflow_agentic.messaging.bus import MessageBus
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    made = Place(tmp_path)
    made.code(CODE)
    yield made
    made.forget()


@pytest.fixture
def store():
    with memory_store() as opened:
        yield opened


def project(place, services="", agents='searcher: {type: "MODULE:Searcher"}'):
    return place.project(f"services: {{{services}}}\nagents: {{{agents}}}")


class TestArguments:
    def built(self, place, config, leads=None):
        declared = project(place, f'index: {{type: "MODULE:Index", config: {config}}}')
        return Workshop(declared, leads).work("searcher", 1)

    def test_they_are_converted_to_what_the_factory_declares(self, place):
        made = self.built(place, '{size: "7", ratio: 2, tags: [a, b], shape: {depth: 3}, untyped: "8"}')
        assert (made.size, made.ratio, made.tags, made.shape) == (7, 2.0, ["a", "b"], {"depth": 3})
        assert (type(made.ratio), made.untyped) == (float, "8")

    def test_references_are_resolved_when_it_is_built_and_not_before(self, place):
        declared = project(
            place,
            'index: {type: "MODULE:Index", config: {url: "x://${env:HOST}", size: "${var:size}", tags: ["$${a}"]}}',
        )
        workshop = Workshop(declared, {"${env:HOST}": "there", "${var:size}": "42"})
        assert workshop.book.asked == []
        made = workshop.work("searcher", 1)
        assert (made.url, made.size, made.tags) == ("x://there", 42, ["${a}"])
        assert sorted(workshop.book.asked) == ["${env:HOST}", "${var:size}"]

    def test_a_reference_that_leads_nowhere_is_told_when_it_is_built(self, place):
        with pytest.raises(UnresolvedReference, match="HOST") as caught:
            self.built(place, '{url: "${env:HOST}"}')
        assert any("service 'index'" in note for note in caught.value.__notes__)

    def test_what_a_reference_leads_to_may_not_fit_and_is_not_told(self, place):
        with pytest.raises(ConfigurationError) as caught:
            self.built(place, '{size: "${var:size}"}', {"${var:size}": "hush-hush"})
        assert str(caught.value).startswith("config of service 'index': size: ")
        assert "hush-hush" not in str(caught.value)

    def test_what_is_configured_is_not_asked_of_other_services(self, place):
        place.code(
            """
            class Pair:
                def __init__(self, left: int, right: int = 2):
                    self.both = left, right

            class User(BaseAgent[int, Any]):
                def process(self, task, ctx, pair: Pair):
                    ctx.found = pair.both
            """,
            f"{place.module}_pair",
        )
        declared = project(
            place,
            'pair: {type: "MODULE_pair:Pair", config: {left: "1"}}',
            'user: {type: "MODULE_pair:User"}',
        )
        assert Workshop(declared).work("user", 1) == (1, 2)


class TestProvides:
    def test_a_protocol_is_provided_by_who_says_so(self, place):
        declared = project(
            place,
            'finder-service: {type: "MODULE:Found", provides: "MODULE:Port"}',
            'finder: {type: "MODULE:Finder"}',
        )
        assert Workshop(declared).work("finder", 1) == "found"

    def test_what_the_provider_brings_itself_can_be_needed(self, place, store):
        declared = place.project("""
            flags: {fast: true}
            agents: {given: {type: "MODULE:Given"}}
        """)
        workshop = Workshop(declared)
        with workshop.open(store) as scope:
            bus, agents, flags, itself = run(workshop.make(scope, "given"), 1)
        assert (bus, agents, itself) == (store.bus, store.agents, declared)
        assert flags.enabled("fast")
        assert [type(flags), type(itself)] == [Flags, Project]
        assert isinstance(bus, MessageBus)
        assert callable(AgentStore.register)


class TestScopes:
    def indexes(self, place, store, scope):
        workshop = Workshop(project(place, f'index: {{type: "MODULE:Index", scope: {scope}}}'))
        found = []
        for _ in range(2):
            with workshop.open(store) as opened:
                made = [workshop.make(opened, "searcher") for _ in range(2)]
                found.append([run(one, 1) for one in made])
        workshop.services.close()
        return found

    def test_of_a_run_there_is_one_in_each_scope(self, place, store):
        (one, same), (other, _) = self.indexes(place, store, "run")
        assert one is same
        assert one is not other
        assert place.python().MADE == ["Index", "Index"]

    def test_of_the_process_there_is_one_for_all_of_them(self, place, store):
        (one, same), (other, _) = self.indexes(place, store, "process")
        assert one is same is other
        assert place.python().MADE == ["Index"]

    def test_nothing_is_built_that_nobody_needs(self, place, store):
        workshop = Workshop(project(place, 'index: {type: "MODULE:Index"}', ""))
        with workshop.open(store):
            pass
        workshop.services.close()
        assert place.python().MADE == []

    @pytest.mark.parametrize("scope", ["run", "process"])
    def test_the_last_made_is_closed_first(self, place, store, scope):
        declared = project(
            place,
            f'index: {{type: "MODULE:opened", scope: {scope}, config: {{log: []}}}},'
            f' above: {{type: "MODULE:above", scope: {scope}}}',
            'both: {type: "MODULE:Both"}',
        )
        workshop = Workshop(declared)
        with workshop.open(store) as opened:
            left, right = run(workshop.make(opened, "both"), 1)
        closed = list(place.python().MADE)
        workshop.services.close()
        assert left is right
        assert place.python().MADE == ["+opened", "Index", "+above", "-above", "-opened"]
        assert (closed == place.python().MADE) is (scope == "run")


class TestSeveralOfOneType:
    SERVICES = (
        """fast: {type: "MODULE:Index", config: {size: 1}}, slow: {type: "MODULE:Index", config: {size: 2}}"""
    )

    def test_which_is_meant_must_be_said(self, place):
        line, key, text = place.fault(f"""
            services: {{{self.SERVICES}}}
            agents:
              searcher: {{type: "MODULE:Searcher"}}
        """)
        assert (line, key) == (3, "agents.searcher")
        assert "agent 'searcher' needs index: Index, and several provide it: service 'fast'" in text
        assert 'uses: {index: name}` or Annotated[Index, Named("...")]' in text

    @pytest.mark.parametrize(("name", "size"), [("fast", 1), ("slow", 2)])
    def test_uses_says_it(self, place, name, size):
        agents = f'searcher: {{type: "MODULE:Searcher", uses: {{index: {name}}}}}'
        assert Workshop(project(place, self.SERVICES, agents)).work("searcher", 1).size == size

    def test_the_code_says_it(self, place):
        declared = project(place, self.SERVICES, 'chooser: {type: "MODULE:Chooser"}')
        assert Workshop(declared).work("chooser", 1).size == 2

    def test_uses_beats_the_code(self, place):
        agents = 'chooser: {type: "MODULE:Chooser", uses: {index: fast}}'
        assert Workshop(project(place, self.SERVICES, agents)).work("chooser", 1).size == 1

    def test_services_say_it_too(self, place):
        services = self.SERVICES + ', cache: {type: "MODULE:Cache", uses: {index: slow}}'
        agents = 'both: {type: "MODULE:Both", uses: {index: fast}}'
        left, right = Workshop(project(place, services, agents)).work("both", 1)
        assert (left.size, right.size) == (2, 1)


TEAM = """
    class Store: ...

    class Index: ...

    class Strictness(BaseModel):
        level: int = 1

    class Critic(BaseAgent[int, int]):
        config_model = Strictness

        def process(self, task, ctx):
            return task * ctx.config.level

        def on_shutdown(self, previous, reason):
            MADE.append((self.name, reason))

    class Team(BaseAgent[int, Any]):
        def process(self, task, ctx, critic: Critic):
            ctx.found = critic, critic.run(task, ctx)

    class Anyone(BaseAgent[int, Any]):
        def process(self, task, ctx, critic: BaseAgent):
            return critic.run(task, ctx)

    class Fussy(BaseAgent[int, Any]):
        def __init__(self, index: Index, **kwargs):
            super().__init__(**kwargs)
            self.index = index

        def process(self, task, ctx, other: Annotated[Index, Named("slow")], none: Store | None):
            ctx.found = self.index, other, none

    def judge(task: int, ctx: AgentContext, store: Store) -> str:
        return f"{task} {type(store).__name__}"

    def own(task: int) -> int:
        return -task
"""


class TestAgentsAsNeeds:
    @pytest.fixture
    def team(self, place):
        place.code(TEAM, f"{place.module}_team")
        return place

    def workshop(self, place, agents, services="", leads=None):
        return Workshop(project(place, services, agents.replace("TEAM", f"{place.module}_team")), leads)

    def test_one_is_built_with_its_own_name_and_configuration(self, team, store):
        workshop = self.workshop(
            team,
            'team: {type: "TEAM:Team", uses: {critic: critic}},'
            'critic: {type: "TEAM:Critic", config: {level: "${var:level}"}}',
            leads={"${var:level}": "3"},
        )
        with workshop.open(store) as scope:
            critic, result = run(workshop.make(scope, "team"), 5)
            assert (critic.name, result) == ("critic", 15)
            assert critic.state is AgentState.READY
        assert critic.get_status().profile.configuration == {"level": "${var:level}"}
        assert store.agents.get("critic").metrics.processed == 1

    def test_it_is_shut_down_when_the_scope_closes(self, team, store):
        workshop = self.workshop(
            team, 'team: {type: "TEAM:Team", uses: {critic: critic}}, critic: {type: "TEAM:Critic"}'
        )
        with workshop.open(store) as scope:
            critic, _ = run(workshop.make(scope, "team"), 5)
            made = team.python(f"{team.module}_team").MADE
            assert made == []
        assert critic.state is AgentState.SHUTDOWN
        assert made == [("critic", "the agent that needed it ended")]

    def test_each_gets_the_one_that_it_uses(self, team):
        workshop = self.workshop(
            team,
            'one: {type: "TEAM:Team", uses: {critic: mild}}, other: {type: "TEAM:Team", uses: {critic: hard}},'
            'mild: {type: "TEAM:Critic"}, hard: {type: "TEAM:Critic", config: {level: 9}}',
        )
        assert workshop.work("one", 2)[1] == 2
        assert workshop.work("other", 2)[1] == 18

    def test_a_function_agent_may_be_needed(self, team):
        workshop = self.workshop(
            team, 'any: {type: "TEAM:Anyone", uses: {critic: own}}, own: {type: "TEAM:own"}'
        )
        assert workshop.work("any", 4) == -4

    def test_one_may_need_things_itself_by_name_by_type_or_none_and_one_that_is_called_store(self, team):
        services = 'fast: {type: "TEAM:Index"}, slow: {type: "TEAM:Index"}'.replace(
            "TEAM", f"{team.module}_team"
        )
        workshop = self.workshop(
            team,
            'any: {type: "TEAM:Anyone", uses: {critic: fussy}}, fussy: {type: "TEAM:Fussy", uses: {index: fast}}',
            services,
        )
        index, other, none = workshop.work("any", 1)
        assert index is not other
        assert none is None

    def test_one_may_need_something_that_it_calls_store(self, team):
        workshop = self.workshop(
            team,
            'any: {type: "TEAM:Anyone", uses: {critic: judge}}, judge: {type: "TEAM:judge"}',
            f'blobs: {{type: "{team.module}_team:Store"}}',
        )
        assert workshop.work("any", 1) == "1 Store"

    def test_only_the_code_of_agents_that_are_used_is_imported(self, team):
        team.code("raise AssertionError", f"{team.module}_idle")
        declared = team.unchecked(f"""
            agents:
              team: {{type: "{team.module}_team:Team", uses: {{critic: critic}}}}
              critic: {{type: "{team.module}_team:Critic"}}
              idle: {{type: "MODULE_idle:Agent"}}
              other: {{type: "no_such_module:Agent"}}
        """)
        workshop = Workshop(declared)
        assert workshop.imported == ["critic"]
        assert workshop.work("team", 3)[1] == 3

    def test_without_uses_no_agent_is_imported_at_all(self, team):
        declared = team.unchecked(f"""agents: {{team: {{type: "{team.module}_team:Team"}}}}""")
        assert Workshop(declared).imported == []
        assert not team.imported(f"{team.module}_team")

    def test_an_agent_that_nobody_uses_is_nothing_that_others_get_by_type(self, team):
        declared = team.unchecked(f"""
            agents: {{team: {{type: "{team.module}_team:Team"}}, critic: {{type: "{team.module}_team:Critic"}}}}
        """)
        with pytest.raises(UnknownService, match="agent 'team' needs critic: Critic, and nothing provides"):
            Workshop(declared).work("team", 1)
