"""What ``load_project`` finds wrong with services, and with what agents need."""

from __future__ import annotations

import pytest
from project_steps import Place

CODE = """
    class Index:
        def __init__(self, url: str = "", size: int = 1, log: Any = None):
            self.size = size

    class Cache:
        def __init__(self, index: Index):
            self.index = index

    class Ring:
        def __init__(self, other: "Gnir"):
            self.other = other

    class Gnir:
        def __init__(self, other: Ring):
            self.other = other

    class Open:
        def __init__(self, **anything):
            self.anything = anything

    class Lost:
        def __init__(self, index: "NoSuchType"):
            self.index = index

    class NeedsIndex(BaseAgent[int, int]):
        def process(self, task, ctx, index: Index):
            return task

    class NeedsCache(BaseAgent[int, int]):
        def process(self, task, ctx, cache: Cache):
            return task

    class NeedsRing(BaseAgent[int, int]):
        def process(self, task, ctx, ring: Ring):
            return task

    class Team(BaseAgent[int, int]):
        def process(self, task, ctx, critic: NeedsIndex):
            return task

    class Left(BaseAgent[int, int]):
        def process(self, task, ctx, other: "Right"):
            return task

    class Right(BaseAgent[int, int]):
        def process(self, task, ctx, other: Left):
            return task

    class Above(BaseAgent[int, int]):
        def process(self, task, ctx, left: Left, right: Right):
            return task

    def double(task: int) -> int:
        return 2 * task

    NUMBER = 5
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    made = Place(tmp_path)
    made.code(CODE)
    yield made
    made.forget()


class TestType:
    @pytest.mark.parametrize(
        ("type_", "text"),
        [
            ("MODULE:Indx", "has no 'Indx' (did you mean 'Index'?)"),
            ("MODULE.Indx", "has no 'Indx' (did you mean 'Index'?)"),
            ("no_such_module:Index", "module 'no_such_module' cannot be imported"),
            ("MODULE:NUMBER", ":NUMBER' is no class or function, and makes no service"),
            ("index", "no installed package declares a service 'index'"),
        ],
    )
    def test_what_makes_no_service_is_told_at_the_line_of_the_type(self, place, type_, text):
        line, key, found = place.fault(f"""
            services:
              index:
                scope: process
                type: "{type_}"
        """)
        assert (line, key) == (4, "services.index.type")
        assert text in found

    def test_without_a_type_its_name_must_be_installed(self, place):
        line, key, found = place.fault("services:\n  index: {}")
        assert (line, key) == (2, "services.index.type")
        assert 'give type: "package.module:factory"' in found

    def test_what_it_provides_must_be_there(self, place):
        _, key, found = place.fault("""
            services: {index: {type: "MODULE:Index", provides: "MODULE:Port"}}
        """)
        assert key == "services.index.provides"
        assert "has no 'Port'" in found

    def test_while_a_type_is_wrong_nobody_is_told_that_a_service_is_missing(self, place):
        place.fault("""
            services: {index: {type: "MODULE:Indx"}}
            agents: {a: {type: "MODULE:NeedsIndex"}, b: {type: "MODULE:NeedsIndex"}}
        """)

    def test_a_type_in_its_signature_that_cannot_be_found_is_told(self, place):
        line, key, found = place.fault("""
            agents: {}
            services:
              lost: {type: "MODULE:Lost"}
        """)
        assert (line, key) == (3, "services.lost")
        assert "a type in the signature of 'Lost.__init__' cannot be found" in found


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "key", "text"),
        [
            ("sise: 1", "sise", "MODULE:Index takes no argument 'sise' (did you mean 'size'?)"),
            ("zzz: 1", "zzz", "MODULE:Index takes no argument 'zzz' (it takes url, size, log)"),
            ('zzz: "${env:X}"', "zzz", "MODULE:Index takes no argument 'zzz' (it takes url, size, log)"),
        ],
    )
    def test_one_that_it_does_not_take_is_told_with_the_nearest(self, place, argument, key, text):
        line, name, found = place.fault(f"""
            services:
              index:
                type: "MODULE:Index"
                config:
                  url: x
                  {argument}
        """)
        assert (line, name) == (6, f"services.index.config.{key}")
        assert found == text.replace("MODULE", place.module)

    def test_one_of_a_wrong_type_is_told_at_its_line_without_the_value(self, place):
        line, key, found = place.fault("""
            services:
              index:
                type: "MODULE:Index"
                config:
                  size: hush-hush
        """)
        assert (line, key) == (5, "services.index.config.size")
        assert found == "must be a whole number"

    @pytest.mark.parametrize("argument", ['size: "${var:size}"', 'size: "3"', "log: [anything]"])
    def test_what_fits_or_depends_on_a_reference_is_not_judged(self, place, argument):
        place.project(f"""services: {{index: {{type: "MODULE:Index", config: {{{argument}}}}}}}""")

    def test_a_factory_that_takes_any_takes_any(self, place):
        place.project("""services: {open: {type: "MODULE:Open", config: {x: 1, y: [2]}}}""")

    def test_what_is_configured_and_said_in_uses_is_said_twice(self, place):
        line, key, found = place.fault("""
            services:
              index: {type: "MODULE:Index"}
              cache: {type: "MODULE:Cache", config: {index: x}, uses: {index: index}}
        """)
        assert (line, key) == (3, "services.cache.uses.index")
        assert "'index' is said in `uses` and in config" in found


class TestMissing:
    def test_what_an_agent_needs_is_told_at_the_agent_with_what_to_write(self, place):
        line, key, found = place.fault("""
            agents:
              double: {type: "MODULE:double"}
              a: {type: "MODULE:NeedsIndex"}
        """)
        assert (line, key) == (3, "agents.a")
        assert found == (
            "agent 'a' needs index: Index, and nothing provides it (a -> index: Index) "
            '(Provide it: services: {index: {type: "package.module:factory"}})'
        )

    def test_what_a_service_needs_is_told_once_at_the_service(self, place):
        line, key, found = place.fault("""
            agents:
              a: {type: "MODULE:NeedsCache"}
              b: {type: "MODULE:NeedsCache"}
            services:
              cache: {type: "MODULE:Cache"}
        """)
        assert (line, key) == (5, "services.cache")
        assert found.startswith(
            "service 'cache' needs index: Index, and nothing provides it (cache -> index: Index) (Provide it: "
        )

    def test_what_a_used_agent_needs_is_told_once_at_that_agent(self, place):
        line, key, found = place.fault("""
            agents:
              team: {type: "MODULE:Team", uses: {critic: critic}}
              critic: {type: "MODULE:NeedsIndex"}
        """)
        assert (line, key) == (3, "agents.critic")
        assert found.startswith("agent 'critic' needs index: Index, and nothing provides it (critic -> index")

    def test_what_several_need_for_themselves_is_told_of_each(self, place):
        faults = place.faults("""
            agents:
              a: {type: "MODULE:NeedsIndex"}
              b: {type: "MODULE:NeedsCache"}
              c: {type: "MODULE:NeedsIndex"}
            services: {cache: {type: "MODULE:Cache"}}
        """)
        assert [(line, key) for line, key, _ in faults] == [
            (2, "agents.a"),
            (4, "agents.c"),
            (5, "services.cache"),
        ]

    def test_an_agent_by_type_alone_is_not_there(self, place):
        line, key, found = place.fault("""
            agents:
              team: {type: "MODULE:Team"}
              critic: {type: "MODULE:double"}
        """)
        assert (line, key) == (2, "agents.team")
        assert "needs critic: NeedsIndex, and nothing provides it" in found


class TestUses:
    @pytest.mark.parametrize(
        ("uses", "text"),
        [
            ("indx: index", "'indx' is said in `uses`, and is no parameter (a) (did you mean 'index'?)"),
            ("index: other", "(a -> index: Index)"),
        ],
    )
    def test_a_wrong_parameter_or_the_wrong_thing_is_told_where_it_is_said(self, place, uses, text):
        line, key, found = place.fault(f"""
            services:
              index: {{type: "MODULE:Index"}}
              other: {{type: "MODULE:Open"}}
            agents:
              a: {{type: "MODULE:NeedsIndex", uses: {{{uses}}}}}
        """)
        assert (line, key) == (5, f"agents.a.uses.{uses.partition(':')[0]}")
        assert text in found

    def test_the_wrong_agent_is_told_with_both_types(self, place):
        line, _, found = place.fault("""
            agents:
              team: {type: "MODULE:Team", uses: {critic: left}}
              left: {type: "MODULE:double"}
        """)
        assert line == 2
        assert "is a BaseAgent, not a NeedsIndex" in found

    def test_while_the_code_of_a_used_agent_is_missing_only_that_is_told(self, place):
        _, key, _ = place.fault("""
            agents:
              team: {type: "MODULE:Team", uses: {critic: critic}}
              critic: {type: "MODULE:NeedsIndx"}
        """)
        assert key == "agents.critic.type"


class TestCircles:
    def test_services_that_need_each_other_are_told_once_with_the_circle(self, place):
        line, key, found = place.fault("""
            agents:
              a: {type: "MODULE:NeedsRing"}
            services:
              ring: {type: "MODULE:Ring"}
              gnir: {type: "MODULE:Gnir"}
        """)
        assert (line, key) == (5, "services.gnir")
        assert found == "service 'gnir' needs other: Ring, which is circular: ring -> gnir -> ring"

    def test_agents_that_need_each_other_by_type_are_told_once_with_the_circle(self, place):
        line, key, found = place.fault("""
            agents:
              left: {type: "MODULE:Left"}
              right: {type: "MODULE:Right"}
              above: {type: "MODULE:Above", uses: {left: left, right: right}}
        """)
        assert (line, key) == (3, "agents.right")
        assert found == "agent 'right' needs other: Left, which is circular: left -> right -> left"


def test_a_service_of_the_process_may_not_need_one_of_a_run(place):
    line, key, found = place.fault("""
        services:
          index: {type: "MODULE:Index"}
          cache: {type: "MODULE:Cache", scope: process}
    """)
    assert (line, key) == (3, "services.cache")
    assert "and lives longer than service 'index'" in found
    assert "(Set scope: run for service 'cache')" in found
