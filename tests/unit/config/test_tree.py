from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.config.tree import (
    DELETE,
    Node,
    Origin,
    dotted,
    merged,
    nested,
    parse_path,
    planted,
    pruned,
)

# Few keys, so that layers meet.
KEYS = st.sampled_from(["a", "b", "c"])
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x", DELETE])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
MAPS = st.dictionaries(KEYS, VALUES, max_size=3)
TEXTS = st.text(min_size=0, max_size=8) | st.text(alphabet='ab."\\\n 07', max_size=6)


def layer(values, name):
    return planted(values, Origin(name))


def everything(node):
    """All that a tree says: values, and where each map, list and scalar was written."""
    return node.plain(), [(path, leaf.value, leaf.origin) for path, leaf in all_nodes(node)]


def all_nodes(node, path=()):
    yield path, Node(None if node.children() else node.value, node.origin)
    for key, child in node.children():
        yield from all_nodes(child, (*path, key))


def overlaid(low, high):
    """What merging two plain maps means, without origins; deletions are of this moment."""
    if not isinstance(high, dict):
        return high
    low = low if isinstance(low, dict) else {}
    both = dict(low)
    for key, value in high.items():
        both.pop(key, None)
        if value != DELETE:
            both[key] = overlaid(low.get(key), value)
    return both


class TestMerging:
    @given(MAPS, MAPS, MAPS)
    def test_layers_may_be_merged_in_any_grouping(self, a, b, c):
        low, middle, high = layer(a, "a"), layer(b, "b"), layer(c, "c")
        left = merged(merged(low, middle), high)
        right = merged(low, merged(middle, high))
        assert everything(left) == everything(right)
        assert everything(pruned(left)) == everything(pruned(right))

    @given(MAPS, MAPS, MAPS)
    def test_after_pruning_a_tree_says_what_laying_plain_values_over_each_other_says(self, a, b, c):
        trees = [layer(values, name) for values, name in ((a, "a"), (b, "b"), (c, "c"))]
        tree = layer({}, "nowhere")
        plain = {}
        for values, part in zip((a, b, c), trees, strict=True):
            tree, plain = merged(tree, part), overlaid(plain, values)
        assert pruned(tree).plain() == plain

    @given(MAPS)
    def test_an_empty_map_below_changes_nothing(self, values):
        assert everything(merged(layer({}, "nowhere"), layer(values, "a"))) == everything(layer(values, "a"))

    @given(MAPS)
    def test_an_empty_map_above_changes_nothing_but_whose_an_empty_map_is(self, values):
        both = merged(layer(values, "a"), layer({}, "nowhere"))
        assert both.plain() == values
        if values:
            assert everything(both) == everything(layer(values, "a"))

    @given(MAPS, MAPS)
    def test_no_tree_is_changed_by_merging(self, a, b):
        low, high = layer(a, "a"), layer(b, "b")
        pruned(merged(low, high))
        assert (everything(low), everything(high)) == (everything(layer(a, "a")), everything(layer(b, "b")))

    @given(MAPS, MAPS)
    def test_every_scalar_comes_from_one_of_the_two(self, a, b):
        low, high = layer(a, "a"), layer(b, "b")
        for path, leaf in merged(low, high).leaves():
            if leaf.origin.source == "a" and path:
                assert low.find(path) is not None
            elif path:
                assert high.find(path) is not None

    @given(MAPS)
    def test_pruning_twice_is_pruning_once_and_leaves_no_deletion_in_a_map(self, values):
        once = pruned(layer(values, "a"))
        assert everything(pruned(once)) == everything(once)
        in_maps = [leaf for path, leaf in once.leaves() if not any(isinstance(key, int) for key in path)]
        assert not any(leaf.deletes for leaf in in_maps)

    def test_a_map_in_the_place_of_a_deletion_shows_nothing_of_what_was_deleted(self):
        low = layer({"x": {"old": 1}}, "low")
        gone = layer({"x": DELETE}, "gone")
        high = layer({"x": {"new": 2}}, "high")
        assert pruned(merged(merged(low, gone), high)).plain() == {"x": {"new": 2}}
        assert pruned(merged(low, merged(gone, high))).plain() == {"x": {"new": 2}}

    def test_a_deletion_removes_what_is_below_and_not_what_is_above(self):
        low, gone = layer({"x": 1, "y": 2}, "low"), layer({"x": DELETE}, "gone")
        assert pruned(merged(low, gone)).plain() == {"y": 2}
        assert pruned(merged(gone, low)).plain() == {"x": 1, "y": 2}

    def test_lists_are_replaced_as_a_whole(self):
        both = merged(layer({"x": [1, 2, 3]}, "low"), layer({"x": [4]}, "high"))
        assert both.plain() == {"x": [4]}
        assert both.find(("x", 0)).origin.source == "high"


class TestPaths:
    @given(st.lists(TEXTS.filter(lambda key: not key.isdecimal()), min_size=1, max_size=4).map(tuple))
    def test_a_written_path_reads_as_itself(self, path):
        assert parse_path(dotted(path)) == path

    @given(st.lists(st.integers(0, 10**6) | TEXTS, min_size=1, max_size=4).map(tuple))
    def test_a_written_path_names_the_same_keys_numbers_too(self, path):
        # A number may be an index or a key: only the tree that the path leads through knows.
        assert tuple(map(str, parse_path(dotted(path)))) == tuple(map(str, path))

    @given(st.lists(st.integers(0, 10**6) | TEXTS, min_size=1, max_size=4).map(tuple), SCALARS)
    def test_what_is_nested_at_a_path_is_found_there_by_the_written_path(self, path, value):
        node = planted(value, Origin("x"))
        assert nested(path, node).find(parse_path(dotted(path))) == node

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("settings", ("settings",)),
            (
                "agents.license-auditor.config.pause_seconds",
                ("agents", "license-auditor", "config", "pause_seconds"),
            ),
            ('agents."eu.auditor".type', ("agents", "eu.auditor", "type")),
            ("imports.0", ("imports", 0)),
            ("flags.007", ("flags", "007")),
            ("flags.٣", ("flags", "٣")),
            ('flags."7"', ("flags", "7")),
            ('flags."a\\"b\\\\c"', ("flags", 'a"b\\c')),
            ('flags.""', ("flags", "")),
        ],
    )
    def test_people_write_paths_so(self, text, path):
        assert parse_path(text) == path

    @pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", 'a"b', '"a"b', '"a', 'a."', '"a".'])
    def test_what_is_no_path_is_refused_by_name(self, text):
        with pytest.raises(ValueError, match="is no key") as caught:
            parse_path(text)
        assert repr(text) in str(caught.value)


class TestLooking:
    TREE = planted({"a": {"b": [1, {"c": 2}], "empty": {}, "none": []}, "7": "x"}, Origin("file"))

    @pytest.mark.parametrize(
        ("path", "value"),
        [(("a", "b", 1, "c"), 2), (("a", "b", 0), 1), ((7,), "x"), (("7",), "x"), (("a", "empty"), {})],
    )
    def test_what_is_there_is_found(self, path, value):
        assert self.TREE.find(path).plain() == value

    @pytest.mark.parametrize(
        ("path", "rest"),
        [
            (("a", "b", 2), (2,)),
            (("a", "b", "0"), ("0",)),
            (("a", "b", -1), (-1,)),
            (("a", "x", "y"), ("x", "y")),
            (("a", "b", 0, "x"), ("x",)),
        ],
    )
    def test_what_is_not_there_leads_to_the_nearest_thing_above(self, path, rest):
        assert self.TREE.find(path) is None
        node, left = self.TREE.nearest(path)
        assert left == rest
        assert node == self.TREE.find(path[: len(path) - len(rest)])

    def test_leaves_are_scalars_and_what_is_empty(self):
        assert {path: leaf.plain() for path, leaf in self.TREE.leaves()} == {
            ("a", "b", 0): 1,
            ("a", "b", 1, "c"): 2,
            ("a", "empty"): {},
            ("a", "none"): [],
            ("7",): "x",
        }
