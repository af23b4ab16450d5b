import dataclasses
import json

import pytest

from convsmith.train import Recipe


def test_json_round_trip():
    recipe = Recipe(epochs=7, lr=0.3, warmup_epochs=1.5, nesterov=False, augment=False, channels_last=True, seed=5)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert json.loads(recipe.to_json())["format"] == "convsmith/recipe/1"


def test_a_missing_key_takes_its_default():
    assert Recipe.from_json('{"format": "convsmith/recipe/1", "epochs": 3}') == Recipe(epochs=3)


def test_a_recipe_from_before_the_group_lasso_is_the_same_recipe():
    document = json.loads(Recipe(epochs=3).to_json())
    assert document.pop("group_lasso") == 0.0
    assert Recipe.from_json(json.dumps(document)) == Recipe(epochs=3)
    assert Recipe(epochs=3).recorded() | {"format": "convsmith/recipe/1"} == document
    assert Recipe(group_lasso=1e-5).recorded() == dataclasses.asdict(Recipe(group_lasso=1e-5))


def test_integers_become_numbers():
    assert Recipe(lr=1, weight_decay=0, warmup_epochs=2) == Recipe(lr=1.0, weight_decay=0.0, warmup_epochs=2.0)
    assert type(Recipe(lr=1).lr) is float


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("epochs", 0, "a positive int, got 0"),
        ("epochs", 2.0, "a positive int, got 2.0"),
        ("epochs", True, "a positive int, got True"),
        ("batch_size", -1, "a positive int, got -1"),
        ("seed", -1, "not negative, got -1"),
        ("lr", 0.0, "a positive finite number, got 0.0"),
        ("lr", float("inf"), "got inf"),
        ("lr", float("nan"), "got nan"),
        ("lr", "0.1", "got '0.1'"),
        ("momentum", 1.0, "below 1, got 1.0"),
        ("weight_decay", -1e-4, "not negative, got -0.0001"),
        ("weight_decay", float("inf"), "got inf"),
        ("group_lasso", -1e-5, "not negative, got -1e-05"),
        ("group_lasso", float("inf"), "got inf"),
        ("group_lasso", True, "got True"),
        ("warmup_epochs", 30.0, "below epochs=30, got 30.0"),
        ("warmup_epochs", -1.0, "got -1.0"),
        ("augment", 1, "True or False, got 1"),
        ("decay_norm_and_bias", None, "True or False, got None"),
        ("optimizer", "sdg", "one of sgd, got 'sdg'"),
        ("optimizer", None, "one of sgd, got None"),
    ],
)
def test_wrong_values_are_refused(name, value, rule):
    with pytest.raises(ValueError, match=f"^{name} must be .*{rule}$"):
        Recipe(**{name: value})


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="set nesterov=False"):
        Recipe(momentum=0.0)
    assert Recipe(momentum=0.0, nesterov=False).momentum == 0


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"format": "convsmith/recipe/1", "learning_rate": 0.1}', "unknown key 'learning_rate'"),
        ('{"format": "convsmith/recipe/2"}', "convsmith/recipe/1"),
        ('{"epochs": 3}', "convsmith/recipe/1"),
        ("[]", "convsmith/recipe/1"),
        ('{"format": ', "line 1"),
        ('{"format": "convsmith/recipe/1", "epochs": "3"}', "epochs must be a positive int, got '3'"),
        ('{"format": "convsmith/recipe/1", "lr": NaN}', "lr must be .* got nan"),
    ],
)
def test_wrong_files_are_refused(text, rule):
    with pytest.raises(ValueError, match=rule):
        Recipe.from_json(text)
