import dataclasses

import pytest

from convsmith.train import Recipe, recipes


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_valid_for_any_number_of_epochs(name):
    recipe = recipes.get(name)
    assert dataclasses.replace(recipe, epochs=1).epochs == 1
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_file_is_a_recipe_too(tmp_path):
    (tmp_path / "own.json").write_text(Recipe(epochs=3, lr=0.02).to_json())
    assert recipes.get(str(tmp_path / "own.json")) == Recipe(epochs=3, lr=0.02)


def test_unknown_names_and_missing_files_are_told():
    with pytest.raises(ValueError, match=r"unknown recipe 'basc'; did you mean 'basic'\? there are basic"):
        recipes.get("basc")
    with pytest.raises(FileNotFoundError, match=r"there is no recipe file none\.json"):
        recipes.get("none.json")
