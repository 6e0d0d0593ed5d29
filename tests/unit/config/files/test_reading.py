from __future__ import annotations

import json
import re
import time
import tracemalloc

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_agentic.config.files.reading import read_bytes, read_text
from airflow_agentic.config.files.toml_lines import MAX_DEPTH, Report, Unreadable
from airflow_agentic.config.files.yaml_nodes import read_yaml
from airflow_agentic.config.tree import Node, Origin
from airflow_agentic.errors import ConfigFault

LINES = """\
# a comment
agents:
  auditor:
    config: {pause: 1,
      deep: x}

    tools:
      - name: a
      -
        name: b
      - c
text: |
  one
  two
last:
  1
"""

TOML_LINES = '''\
# a comment
title = "x"

[agents.auditor]
config.pause = 1
tools = [ # ] " comment
  "a # b", """
  c ] "quoted"\\" """, 'x\\',
]
text = """
one
[no.header]
two"""
"quoted.key" = {a = 1, b = {c = 2}}

[[policies]]
name = "p"
[policies.limits]
most = 1
[[policies.rules]]
at = 1
[[policies.rules]]
at = 2

[[policies]]
name = "q"
[[policies.rules]]
at = 3

[agents]
owner = "me"
'''


def read(text: str, file: str = "agentic.yaml") -> Node:
    root, faults = read_text(text, file)
    assert faults == []
    assert root is not None
    return root


def faulty(text: str, file: str = "agentic.yaml") -> tuple[Node | None, list[tuple[int, str, str]]]:
    root, faults = read_text(text, file)
    assert all(fault.file == file and fault.source == f"{file}:{fault.line}" for fault in faults)
    return root, [(fault.line, fault.key, fault.message) for fault in faults]


def one_fault(text: str, file: str = "agentic.yaml") -> ConfigFault:
    _, faults = read_text(text, file)
    assert len(faults) == 1, faults
    return faults[0]


def lines(root: Node) -> dict[str, int | None]:
    found: dict[str, int | None] = {}

    def walk(node: Node, path: tuple[str, ...]) -> None:
        found["/".join(path)] = node.origin.line
        for key, child in node.children():
            walk(child, (*path, str(key)))

    walk(root, ())
    return found


class TestFiles:
    @pytest.mark.parametrize("file", ["a.yaml", "a.yml", "a.toml", "dir.d/A.YAML", "A.TOML"])
    @pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "\n  # nothing\n\n# more"])
    def test_an_empty_file_is_an_empty_map(self, file, text):
        assert read(text, file) == Node({}, Origin(f"{file}:1", file, 1))

    @pytest.mark.parametrize("text", ["---\n", "---\n# nothing\n", "{}", "--- {}\n...\n"])
    def test_an_empty_yaml_document_is_an_empty_map(self, text):
        assert read(text).plain() == {}

    @pytest.mark.parametrize("file", ["agentic.json", "agentic", "agentic.yaml.bak", ".yaml"])
    def test_another_suffix_is_a_fault_that_names_the_known_ones(self, file):
        root, (fault,) = read_text("a: 1", file)
        assert root is None
        assert (fault.file, fault.line, fault.source) == (file, None, file)
        assert all(suffix in str(fault) for suffix in ("*.yaml", "*.yml", "*.toml"))

    @pytest.mark.parametrize(("file", "text"), [("a.yaml", "a: é\nb: 1\n"), ("a.toml", 'a = "é"\nb = 1\n')])
    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    def test_bytes_are_utf_8_with_or_without_a_byte_order_mark(self, file, text, bom, line_end):
        root, faults = read_bytes(bom + text.replace("\n", line_end).encode(), file)
        assert (root, faults) == read_text(text, file)
        assert lines(root) == {"": 1, "a": 1, "b": 2}

    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"\xff\xfea\x00", 1),
            (b"a: 1\nb: \xe9\n", 2),
            (b"a: 1\r\n\r\nb: \xe9\r\n", 3),
            (b"a: 1\rb: \xc3", 2),
            (b"\xef\xbb\xbfa: 1\n\xff\n\xff", 2),
        ],
    )
    @pytest.mark.parametrize("file", ["a.yaml", "a.toml"])
    def test_the_line_of_the_first_byte_that_is_not_utf_8_is_told(self, data, line, file):
        root, (fault,) = read_bytes(data, file)
        assert root is None
        assert (fault.line, fault.source, fault.suggestion) == (
            line,
            f"{file}:{line}",
            "save the file as UTF-8",
        )

    def test_yaml_and_toml_give_the_same_tree_for_the_same_content(self):
        as_yaml = """
            agents:
              a: {n: 1, x: 1.5, on: true, day: 2026-01-01, at: '12:30:00', list: [1, [2], {k: v}], text: "l\\nm\\n"}
            policies: [{name: p, rules: [{at: 1}, {at: 2}]}, {name: q}]
        """
        as_toml = """
            [agents.a]
            n = 1
            x = 1.5
            on = true
            day = 2026-01-01
            at = 12:30:00
            list = [1, [2], {k = "v"}]
            text = '''
l
m
'''
            [[policies]]
            name = "p"
            [[policies.rules]]
            at = 1
            [[policies.rules]]
            at = 2
            [[policies]]
            name = "q"
        """
        assert read(as_yaml).plain() == read(as_toml, "a.toml").plain()


class TestYamlLines:
    def test_an_entry_has_the_line_of_its_key_and_an_item_its_own(self):
        assert lines(read(LINES)) == {
            "": 1,
            "agents": 2,
            "agents/auditor": 3,
            "agents/auditor/config": 4,
            "agents/auditor/config/pause": 4,
            "agents/auditor/config/deep": 5,
            "agents/auditor/tools": 7,
            "agents/auditor/tools/0": 8,
            "agents/auditor/tools/0/name": 8,
            "agents/auditor/tools/1": 10,
            "agents/auditor/tools/1/name": 10,
            "agents/auditor/tools/2": 11,
            "text": 12,
            "last": 15,
        }

    def test_origins_say_the_file_for_people_and_for_programs(self):
        node = read("a:\n  b: 1\n", "conf/x.yml").find(("a", "b"))
        assert node == Node(1, Origin("conf/x.yml:2", "conf/x.yml", 2))

    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    def test_lines_do_not_depend_on_how_lines_end(self, line_end):
        assert lines(read(LINES.replace("\n", line_end))) == lines(read(LINES))

    def test_separators_that_editors_do_not_count_are_no_lines(self):
        assert lines(read("a: 'x\u2028y\u0085z'\nb: '\U0001f600'\nc: 1\n")) == {"": 1, "a": 1, "b": 2, "c": 3}

    def test_what_came_through_an_alias_keeps_the_line_where_it_was_written(self):
        root = read("base: &base\n  x: 1\n  y: [1,\n    2]\nscalar: &s 5\nuse: *base\nlist:\n  - *s\n")
        assert root.plain()["use"] == {"x": 1, "y": [1, 2]}
        assert root.find(("use",)) == root.find(("base",))
        assert lines(root)["use"] == 1
        assert lines(root)["use/y/1"] == 4
        assert lines(root)["list/0"] == 5

    def test_what_was_merged_keeps_its_line_and_explicit_keys_beat_it(self):
        root = read("base: &b\n  x: 1\n  y: 2\nuse:\n  y: 3\n  <<: *b\n  z: 4\n")
        assert root.plain()["use"] == {"x": 1, "y": 3, "z": 4}
        assert {key: line for key, line in lines(root).items() if key.startswith("use")} == {
            "use": 4,
            "use/x": 2,
            "use/y": 5,
            "use/z": 7,
        }

    def test_of_a_list_of_maps_to_merge_the_first_wins(self):
        root = read("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b, {z: 3, w: 3}]\n")
        assert root.plain()["c"] == {"x": 1, "y": 1, "z": 2, "w": 3}

    def test_a_merge_key_may_lead_to_another(self):
        root = read("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n")
        assert root.plain()["c"] == {"x": 1, "y": 2, "z": 3}
        assert lines(root)["c/x"] == 1

    def test_a_quoted_merge_key_is_a_key(self):
        assert read("a: {'<<': 1}\nb: <<\n").plain() == {"a": {"<<": 1}, "b": "<<"}


class TestYamlScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *[(text, None) for text in ("", "~", "null", "Null", "NULL", "!!null ''")],
            *[(text, True) for text in ("true", "True", "TRUE", "!!bool true")],
            *[(text, False) for text in ("false", "False", "FALSE")],
            ("0", 0),
            ("-12", -12),
            ("+12", 12),
            ("010", 10),
            ("0x1F", 31),
            ("0o17", 15),
            ("!!int '7'", 7),
            ("1.5", 1.5),
            ("-.5", -0.5),
            ("1.", 1.0),
            ("1e3", 1000.0),
            ("1.5E-3", 0.0015),
            ("!!float 1", 1.0),
            ("!!str 1", "1"),
            ("!!str true", "true"),
            ("!!str", ""),
            *[
                (text, text)
                for text in ("yes", "no", "on", "off", "y", "n", "Yes", "OFF", "tRUE", "nULL", "=", "<<")
            ],
            *[
                (text, text)
                for text in ("12:30:00", "2026-01-01", "2026-01-01 10:00:00", "1_000", "0b11", "0X1f")
            ],
            *[
                (text, text)
                for text in ("-0x1F", "-0o17", "0o8", "1e", ".", "-", "+", "e3", "1.2.3", "\u0661")
            ],
            *[
                (f"{quote}{text}{quote}", text)
                for text in ("", "1", "true", "~", ".inf", "1.5")
                for quote in "'\""
            ],
            ("|\n  1\n", "1\n"),
            (">-\n  true\n", "true"),
        ],
    )
    @pytest.mark.parametrize("base", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
    def test_scalars_follow_the_core_schema(self, text, value, base):
        if text in {"-", "+"}:
            text = value = f"{text}a"
        report = Report("a.yaml")
        read_back = read_yaml(f"a: {text}", report, base).plain()["a"]
        assert (read_back, type(read_back), report.faults) == (value, type(value), [])

    def test_explicit_tags_of_collections_are_accepted(self):
        assert read("!!map\na: !!seq [1]\nb: !!map {c: 1}\n").plain() == {"a": [1], "b": {"c": 1}}

    def test_reading_leaves_the_rules_of_pyyaml_as_they_were(self):
        read("a: yes\n")
        assert yaml.safe_load("a: yes") == {"a": True}

    @pytest.mark.parametrize("text", [".inf", "-.INF", "+.Inf", ".nan", ".NaN", "1e999", "9" * 5000])
    def test_a_number_that_json_does_not_have_is_a_fault(self, text):
        root, faults = faulty(f"a:\n  - 1\n  - b: {text}\nc: 1\n")
        assert faults == [(3, "a.1.b", "this number is not a JSON value")]
        assert root.plain() == {"a": [1, {"b": None}], "c": 1}


class TestYamlFaults:
    def test_a_key_that_is_written_twice_is_a_fault_and_the_last_is_kept(self):
        root, faults = faulty("a:\n  x: 1\n  y: 2\n\n  x: 3\n  'x': 4\n")
        assert root.plain() == {"a": {"x": 4, "y": 2}}
        assert faults == [
            (5, "a.x", "'x' is written twice, first in line 2"),
            (6, "a.x", "'x' is written twice, first in line 2"),
        ]

    def test_a_number_as_a_key_becomes_its_text(self):
        assert read("1: a\n1.5: b\n2026-01-01: c\non: d\n").plain() == {
            "1": "a",
            "1.5": "b",
            "2026-01-01": "c",
            "on": "d",
        }
        assert faulty("1: a\n'1': b\n")[1] == [(2, "1", "'1' is written twice, first in line 1")]

    @pytest.mark.parametrize(
        ("text", "key", "message"),
        [
            ("true: 1", "a.true", "a key must be text, and true without quotes is none"),
            ("~: 1", "a.~", "a key must be text, and ~ without quotes is none"),
            ("?\n  : 1", "a", "a key is missing before the colon"),
            ("[x]: 1", "a", "a map or a list cannot be a key"),
            ("{{ name }}: 1", "a", "a map or a list cannot be a key"),
            ("!x y: 1", "a.y", "a tag (!) that is not known"),
        ],
    )
    def test_a_key_that_is_no_text_is_a_fault(self, text, key, message):
        root, faults = faulty(f"a:\n  b: 2\n  {text}\n")
        assert faults == [(3, key, message)]
        assert root.plain()["a"]["b"] == 2

    def test_a_template_without_quotes_is_told_to_be_quoted(self):
        assert "in quotes" in one_fault("a: {{ name }}\n").suggestion

    @pytest.mark.parametrize(
        ("text", "tag"),
        [
            ("!custom x", "!custom"),
            ("!custom [x]", "!custom"),
            ("!!python/object/apply:os.system [x]", "!!python/object/apply:os.system"),
            ("!!python/name:os.system", "!!python/name:os.system"),
            ("!!timestamp 2026-01-01", "!!timestamp"),
            ("!!binary aGk=", "!!binary"),
            ("!!set {x}", "!!set"),
            ("!<tag:x.org,2000:y> x", "tag:x.org,2000:y"),
        ],
    )
    def test_a_tag_that_is_not_of_the_core_schema_is_a_fault_that_names_it(self, text, tag):
        root, faults = faulty(f"b: 1\na: {text}\n")
        named = f"the tag {tag} is not known" if tag.startswith("!!") else "a tag (!) that is not known"
        assert faults == [(2, "a", named)]
        assert root.plain()["b"] == 1

    @pytest.mark.parametrize(
        "text", ["!!int x", "!!bool yes", "!!float a", "!!map x", "!!str [x]", "!!seq {x: 1}"]
    )
    def test_a_core_tag_before_something_else_is_a_fault(self, text):
        tag = text.split()[0]
        assert one_fault(f"a: {text}\n").message == f"the tag {tag} does not fit what it stands before"

    @pytest.mark.parametrize("text", ["[1, 2]", "- a\n- b", "text", "12", "null", '""'])
    def test_a_root_that_is_no_map_is_a_fault(self, text):
        root, faults = faulty(f"# comment\n{text}\n")
        assert root is None
        assert faults == [(2, "", "the file must be a map of sections such as agents: and policies:")]

    @pytest.mark.parametrize("text", ["5", "[1]", "~", "[{x: 1}, 5]", "*s"])
    def test_a_merge_key_whose_value_is_no_map_is_a_fault(self, text):
        root, faults = faulty(f"s: &s text\na:\n  b: 1\n  <<: {text}\n")
        assert faults == [(4, "a.<<", "'<<' takes a map or a list of maps")]
        assert root.plain()["a"]["b"] == 1

    def test_several_documents_are_a_fault(self):
        root, faults = faulty("---\na: 1\n---\nb: 1\n---\nc: 1\n")
        assert (root, faults) == (None, [(3, "", "a second document begins here")])

    @pytest.mark.parametrize(
        "text", ["&x [*x]", "&x {b: *x}", "&x [[{b: *x}]]", "&x {<<: *x}", "&x {<<: [*x]}"]
    )
    def test_an_anchor_that_contains_itself_is_a_fault(self, text):
        root, faults = faulty(f"c: 1\na: {text}\nd: 2\n")
        assert [(line, message) for line, _, message in faults] == [
            (2, "this leads in a circle: what is written in line 2 contains itself")
        ]
        assert (root.plain()["c"], root.plain()["d"]) == (1, 2)

    def test_all_faults_come_together_by_line_and_with_a_tree(self):
        root, faults = faulty("a: .inf\nb: !x 1\nc: {d: 1, d: 2}\n<<: 5\ntrue: 1\n")
        assert [line for line, _, _ in faults] == [1, 2, 3, 4, 5]
        assert root.plain() == {"a": None, "b": "1", "c": {"d": 2}, "true": 1}

    def test_a_fault_under_an_anchor_is_told_once(self):
        assert len(faulty("a: &a {x: .inf}\nb: *a\nc: [*a, *a]\nd: {<<: *a}\n")[1]) == 1


class TestLimits:
    @pytest.mark.parametrize("merge", [False, True])
    def test_an_alias_bomb_is_a_fault_at_once_and_costs_no_memory(self, merge):
        bomb = ["a0: &a0 {x: 1}"]
        for level in range(1, 60):
            aliases = ", ".join([f"*a{level - 1}"] * 9)
            value = f"{{<<: [{aliases}]}}" if merge else f"[{aliases}]"
            bomb.append(f"a{level}: &a{level} {value}")
        tracemalloc.start()
        began = time.perf_counter()
        fault = one_fault("\n".join(bomb))
        took, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "more than 100,000 values" in fault.message
        assert took < 1
        assert peak < 50_000_000

    def test_a_big_map_merged_into_many_is_a_bomb_too(self):
        base = "base: &b {" + ", ".join(f"k{number}: 1" for number in range(1000)) + "}\n"
        fault = one_fault(base + "".join(f"m{number}: {{<<: *b}}\n" for number in range(1000)))
        assert "more than 100,000 values" in fault.message

    def test_aliases_below_the_limit_are_followed(self):
        text = "a: &a [1, 2, 3]\nb: &b [*a, *a]\nc: [*b, *b]\n"
        assert read(text).plain()["c"] == [[[1, 2, 3]] * 2] * 2

    @pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 100_000])
    @pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ("[", ""), ("{a: ", "}"), ("[{a: ", "}]")])
    def test_deep_nesting_in_yaml_is_a_fault_and_not_the_end_of_the_process(self, depth, opened, closed):
        fault = one_fault(f"x: 1\na: {opened * depth}{closed * depth}\n")
        assert (fault.line, fault.message) == (2, "the values are nested more than 100 levels deep")

    def test_deep_nesting_by_aliases_is_a_fault(self):
        levels = (f"a{n}: &a{n} {'[' * 20}*a{n - 1}{']' * 20}" for n in range(1, 30))
        fault = one_fault("\n".join(["a0: &a0 [1]", *levels]))
        assert (fault.line, fault.message) == (6, "the values are nested more than 100 levels deep")

    @pytest.mark.parametrize(
        "text",
        [
            "a = " + "[" * 101 + "]" * 101,
            "a = " + "[" * 5000 + "]" * 5000,
            ".".join("a" * 102) + " = 1",
            "[" + ".".join("a" * 5000) + "]",
        ],
    )
    def test_deep_nesting_in_toml_is_a_fault(self, text):
        fault = one_fault(f"x = 1\n{text}\n", "a.toml")
        assert (fault.line, fault.message) == (2, "the values are nested more than 100 levels deep")

    @pytest.mark.parametrize(
        ("file", "text"),
        [("a.yaml", "a: " + "[" * 98 + "]" * 98), ("a.toml", "a = " + "[" * 98 + "]" * 98)],
    )
    def test_nesting_below_the_limit_is_read(self, file, text):
        assert read(text, file).plain()["a"]

    @pytest.mark.parametrize(
        "text",
        [
            "".join(f"[s{number}]\na = 1\nb.c = 'x'\nd = [1, 2]\n\n" for number in range(400)),
            "[[a]]\nb = {c = 1}\n" * 1000,
            "a = [\n" + "  'item',\n" * 2000 + "]\n",
            'a = """\n' + 'a "line" with [brackets\n' * 2000 + '"""\n',
        ],
    )
    def test_the_lines_of_a_long_toml_file_are_found_in_linear_time(self, text):
        began = time.perf_counter()
        read(text, "a.toml")
        assert time.perf_counter() - began < 0.8  # 2000 lines; the promise is 0.2 s for 500


class TestYamlSyntax:
    @pytest.mark.parametrize(
        ("text", "line", "message", "suggestion"),
        [
            ("a:\n\tb: 1\n", 2, "a tab in the indentation", "use spaces"),
            ("a:\n  b: 1\n\tc: 2\n", 3, "a tab in the indentation", "use spaces"),
            ("a: 1\nb: c: d\n", 2, "a colon where no key can be", "quote"),
            ("a: 1\n  b: 2\n", 2, "a colon where no key can be", "indentation"),
            ("a:\n    b: 1\n  c: 2\n", 3, "this does not fit the lines above", "indentation"),
            ("a:\n  - 1\n  b: 2\n", 3, "this does not fit the lines above", "indentation"),
            ("a: 1\nfoo\nb: 2\n", 2, "this line is no 'key: value'", "colon"),
            ("a: 1\nfoo\n", 2, "this line is no 'key: value'", "colon"),
            ("a: 1\nb: [1, 2\n", 2, "the list opened with [ in line 2 lacks a comma or its ]", None),
            ("a: [1,\n\n\n", 3, "no value can begin here as this one does, or it is missing", "quotes"),
            ("a: [1,\n  2\n\n", 3, "the list opened with [ in line 1 lacks a comma or its ]", None),
            ("a: {x: 1\nb: 2\n", 2, "the map opened with { in line 1 lacks a comma or its }", None),
            ("a: 1\nb: 'x\nc: 1\n", 3, "the quotes opened in line 2 are not closed", None),
            ('a: "x', 1, "the quotes opened in line 1 are not closed", None),
            ('a: "C:\\Users"\n', 1, "an escape that YAML does not know", "single quotes"),
            ('a: "\\q"\n', 1, "an escape that YAML does not know", "single quotes"),
            (
                "b: 1\na: *foo\n",
                2,
                "an alias (*) that stands for nothing: its anchor (&) is not above",
                "quotes",
            ),
            ("a: *.py\n", 1, "an alias (*) or anchor (&) without a name", "quotes"),
            ("a: &x 1\nb: &x 2\n", 2, "the anchor '&x' is written twice, first in line 1", None),
            ("a: 1\nb: @foo\n", 2, "a value begins with a character that none can begin with", "quotes"),
            ("a: - b\n", 1, "a list item where none can be", "line of its own"),
            ("a: | foo\n  b\n", 1, "something follows the | or > of a text block", "next line"),
            ("a: !e!x 1\n", 1, "a tag (!) that cannot be read", "quotes"),
            ("{a: 1}\nb: 2\n", 2, "something follows after the end of the document", None),
            ("%YAML 2.0\n---\na: 1\n", 1, "a line that begins with % and is not understood", "take it out"),
            ("a: 1\nb: \x07\n", 2, "a character that cannot be in YAML: U+0007", None),
            ("a: 1\nb: '\ud800'\n", 2, "a character that cannot be in YAML: U+D800", None),
        ],
    )
    @pytest.mark.parametrize("base", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
    def test_a_syntax_error_is_told_in_plain_words_with_its_line(self, text, line, message, suggestion, base):
        report = Report("a.yaml")
        with pytest.raises(Unreadable):
            read_yaml(text, report, base)
        (fault,) = report.faults
        if text.startswith("%YAML") and base is yaml.SafeLoader:
            line = fault.line  # it marks the end of the directive, or its beginning
        assert (fault.line, fault.key, fault.message) == (line, "", message)
        assert suggestion is None or suggestion in fault.suggestion

    def test_of_a_file_with_a_syntax_error_there_is_no_tree(self):
        root, faults = read_text("a: [1\n", "a.yaml")
        assert root is None
        assert len(faults) == 1


class TestToml:
    def test_a_key_has_the_line_of_its_statement_and_a_table_that_of_its_header(self):
        root = read(TOML_LINES, "agentic.toml")
        assert root.plain()["agents"]["auditor"]["tools"] == ["a # b", '  c ] "quoted"" ', "x\\"]
        assert lines(root) == {
            "": 1,
            "title": 2,
            "agents": 30,
            "agents/owner": 31,
            "agents/auditor": 4,
            "agents/auditor/config": 5,
            "agents/auditor/config/pause": 5,
            "agents/auditor/tools": 6,
            "agents/auditor/tools/0": 6,
            "agents/auditor/tools/1": 6,
            "agents/auditor/tools/2": 6,
            "agents/auditor/text": 10,
            "agents/auditor/quoted.key": 14,
            "agents/auditor/quoted.key/a": 14,
            "agents/auditor/quoted.key/b": 14,
            "agents/auditor/quoted.key/b/c": 14,
            "policies": 16,
            "policies/0": 16,
            "policies/0/name": 17,
            "policies/0/limits": 18,
            "policies/0/limits/most": 19,
            "policies/0/rules": 20,
            "policies/0/rules/0": 20,
            "policies/0/rules/0/at": 21,
            "policies/0/rules/1": 22,
            "policies/0/rules/1/at": 23,
            "policies/1": 25,
            "policies/1/name": 26,
            "policies/1/rules": 27,
            "policies/1/rules/0": 27,
            "policies/1/rules/0/at": 28,
        }

    def test_lines_do_not_depend_on_how_lines_end(self):
        assert read(TOML_LINES.replace("\n", "\r\n"), "a.toml") == read(TOML_LINES, "a.toml")

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("x = '''\n=\n''''\na.\"b = [\".'c' = 1", 4),
            ('x = """"""\na."b = [".\'c\' = 1', 2),
            ('x = """\n\\""" [ """""\n\n a . "b = [" . \'c\' = 1', 4),
            ("x = ''\ny = \"\"\n[ a . 'b = [' ] # ]\nc = 1", 4),
        ],
    )
    def test_quotes_in_keys_and_values_do_not_move_the_lines(self, text, line):
        node = read(text, "a.toml").find(("a", "b = [", "c"))
        assert (node.value, node.origin.line) == (1, line)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("2026-01-01", "2026-01-01"),
            ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00+00:00"),
            ("2026-01-01 10:00:00", "2026-01-01T10:00:00"),
            ("12:30:00", "12:30:00"),
        ],
    )
    def test_dates_and_times_become_their_text(self, text, value):
        assert read(f"a = {text}", "a.toml").plain() == {"a": value}

    @pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999"])
    def test_a_number_that_json_does_not_have_is_a_fault(self, text):
        root, faults = faulty(f"b = 1\n[a]\nc = [1, {text}]\n", "a.toml")
        assert faults == [(3, "a.c.1", "this number is not a JSON value")]
        assert root.plain() == {"b": 1, "a": {"c": [1, None]}}

    def test_a_number_with_thousands_of_digits_is_a_fault(self):
        root, faults = faulty(f"b = 1\na = {'9' * 5000}\n", "a.toml")
        assert (root, faults) == (None, [(2, "", "this number is not a JSON value")])

    @pytest.mark.parametrize(
        ("text", "line", "key", "message"),
        [
            ("a = 1\nb = 2\na = 3\n", 3, "a", "'a' is written twice, first in line 1"),
            ("[a]\nx = 1\n[b]\n[a]\n", 4, "a", "'a' is written twice, first in line 1"),
            ("[s]\na = [\n1]\nb = 1\na = [\n2]\n", 5, "s.a", "'a' is written twice, first in line 2"),
            ("[[a]]\nx = 1\n[[a]]\nx = 1\nx = 2\n", 5, "a.1.x", "'x' is written twice, first in line 4"),
            ("a = [1]\n[[a]]\n", 2, "a", "'a' is written twice, first in line 1"),
            ("x = 1\na = {b = 1, b = 2}\n", 2, "a.b", "'b' is written twice, first in line 2"),
            ("a = {b = 1}\n[a.c]\n", 2, "a.c", "'a' is complete in line 1: nothing can be added to it"),
            ("[x]\na = 1\na.b = 2\n", 3, "x.a.b", "'x.a' is complete in line 2: nothing can be added to it"),
            ("[a.b]\n[a]\nb.c = 1\n", 3, "a.b.c", "'a.b' is complete in line 1: nothing can be added to it"),
            ("[a]\n[a\n", 2, "", "the header of this section is not closed"),
        ],
    )
    def test_a_key_that_is_written_twice_is_told_as_in_yaml(self, text, line, key, message):
        assert faulty(text, "a.toml") == (None, [(line, key, message)])

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("a: 1\n", 1, "there is no = after the key"),
            ("x = 1\na = yes\n", 2, "a value is missing or is none of TOML"),
            ("a =", 1, "a value is missing or is none of TOML"),
            ("a = 1 2\n", 1, "something follows after the value"),
            ("x = 1\n[a\nb = 1\n", 2, "the header of this section is not closed"),
            ("[[a]\n", 1, "the header of this section is not closed"),
            ("= 3\n", 1, "this line is no setting, section or comment"),
            ('a = "C:\\Users"\n', 1, "an escape that TOML does not know"),
            ('a = "x\nb = 1\n', 1, "the quotes are not closed"),
            ('a = "x', 1, "the quotes are not closed"),
            ('a = "\x07"\n', 1, "a character that cannot be in TOML"),
            ("x = 1\na = {b = 1\n", 2, "the map is not closed, or lacks a comma"),
            ("x = 1\na = [1,\n2\n\n", 4, "the list is not closed, in the statement that begins in line 2"),
            ('x = 1\na = """b\nc', 3, "the quotes are not closed, in the statement that begins in line 2"),
            ("a = 2026-02-30\n", 1, "there is no such date or time"),
        ],
    )
    def test_a_syntax_error_is_told_in_plain_words_with_its_line(self, text, line, message):
        assert faulty(text, "a.toml") == (None, [(line, "", message)])


class TestSecrets:
    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("a.yaml", 'a: "hunter2\n'),
            ("a.yaml", "a: 'hunter2' hunter2\n"),
            ("a.yaml", "a: @hunter2\n"),
            ("a.yaml", "a: x: hunter2\n"),
            ("a.yaml", "a: 1\nhunter2\n"),
            ("a.yaml", 'a: "\\hunter2"\n'),
            ("a.yaml", "a: !!int hunter2\n"),
            ("a.yaml", "a: [hunter2\n"),
            ("a.yaml", "a: {<<: hunter2}\n"),
            ("a.yaml", "hunter2"),
            ("a.yaml", "a: hunter2\na: hunter2\n"),
            ("a.toml", "a = hunter2\n"),
            ("a.toml", 'a = "hunter2\n'),
            ("a.toml", "a = 'hunter2"),
            ("a.toml", 'a = "\\hunter2"\n'),
            ("a.toml", "a = 1 hunter2\n"),
            ("a.toml", "a = 'hunter2'\na = 'hunter2'\n"),
        ],
    )
    def test_no_message_quotes_a_value(self, file, text):
        _, faults = read_text(text, file)
        assert faults
        assert "unter2" not in "".join(repr(fault) for fault in faults)


# No control characters, surrogates or non-characters, none of the separators that YAML folds.
TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff\ufffe\uffff"),
    max_size=20,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
MAPS = st.dictionaries(TEXT, VALUES, max_size=5)


def has_number_as_text(value: object) -> bool:
    """Say whether there is a text such as ``1e5``: a number in YAML 1.2, so PyYAML (1.1) writes it without quotes."""
    if isinstance(value, dict):
        return any(has_number_as_text(each) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(has_number_as_text(each) for each in value)
    return isinstance(value, str) and re.fullmatch(r"(?=.*[0-9])[-+.0-9a-fA-Fox]+", value) is not None


class TestRoundTrips:
    @settings(deadline=None)
    @given(MAPS)
    @example({"a": {"": [{}, [], None, "", "yes", "~", "<<", "1", 1e20, 1e-7, -0.0]}})
    def test_what_is_written_as_json_is_read_back_from_yaml(self, value):
        for text in (json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, indent=2)):
            assert read(text).plain() == value

    @settings(deadline=None)
    @given(MAPS)
    @example({"a": {"": [{}, [], None, "", "yes", "~", "<<", "1", 1e20, 1e-7, -0.0]}})
    def test_what_pyyaml_dumps_is_read_back(self, value):
        same = [value, value]  # the second one is dumped as an alias
        if not has_number_as_text(value):
            assert read(yaml.safe_dump({"root": same})).plain() == {"root": same}
            assert read(yaml.safe_dump(value, allow_unicode=True, default_flow_style=True)).plain() == value

    @settings(deadline=None)
    @given(
        st.dictionaries(TEXT, SCALARS.filter(lambda value: value is not None and abs(_size(value)) < 2**63))
    )
    def test_what_is_written_as_toml_is_read_back_with_the_line_of_each_key(self, value):
        text = "\n".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items())
        root = read(text, "a.toml")
        assert root.plain() == value
        assert [child.origin.line for _, child in root.children()] == list(range(1, len(value) + 1))


def _size(value: object) -> int:
    return value if isinstance(value, int) else 0


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
