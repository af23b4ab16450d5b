from convsmith.arch.differences import differences, shown


def test_each_leaf_that_differs_is_named_by_its_path():
    there = {"a": 1, "b": {"c": [1, 2, {"d": 3}], "same": 0}, "gone": True}
    here = {"a": 1, "b": {"c": [1, 5, {"d": 4}, 6], "same": 0}, "new": "x"}
    assert list(differences(there, here)) == [
        ("b.c[1]", 2, 5),
        ("b.c[2].d", 3, 4),
        ("b.c[3]", None, 6),
        ("gone", True, None),
        ("new", None, "x"),
    ]
    assert not list(differences(there, there))


def test_a_value_of_another_kind_is_one_difference():
    assert list(differences({"a": [1]}, {"a": {"b": 1}})) == [("a", [1], {"b": 1})]


def test_long_values_are_cut():
    assert shown({"a": None}) == '{"a": null}'
    assert len(shown(list(range(100)))) == 80
    assert shown(list(range(100))).endswith("...")
