"""The page of a training against its result."""

import ast
import json

import pytest

import convsmith as cs
from tests.report.runs import Page, change_document, train_run
from tests.train.tiny import RECIPE, noisy_network, tiny_architecture


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def page(result):
    return Page(cs.report.write(result.run_dir))


def test_the_headline_is_the_final_validation(page, result):
    assert "Training of tiny on tiny" in page.text
    assert f"validation accuracy {100 * result.metrics['accuracy']:.2f} % at the end" in page.text
    assert f"validation loss {result.metrics['loss']:.2f}"[:20] in page.text
    assert "epochs 4 of 4" in page.text


def test_curves_are_the_history(page, result):
    headings = {entry["heading"]: entry["figure"] for entry in page.figures.values()}
    assert list(headings) == ["loss", "validation accuracy", "learning rate"]
    train, validation = headings["loss"]["data"]
    assert (train["name"], train["y"]) == ("train loss", [row["train_loss"] for row in result.history])
    assert (validation["name"], validation["y"]) == ("validation loss", [row["loss"] for row in result.history])
    (accuracy,) = headings["validation accuracy"]["data"]
    assert accuracy["y"] == [100 * row["accuracy"] for row in result.history]
    (lr,) = headings["learning rate"]["data"]
    assert (lr["x"], lr["y"]) == ([1, 2, 3, 4], [row["lr"] for row in result.history])


def test_epochs_are_tabled(page, result):
    head, *rows = page.table("Figures of each epoch")
    assert head == ["epoch", "learning rate", "train loss", "time (s)", "accuracy (%)", "loss"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row[4] for row in rows] == [f"{100 * row['accuracy']:.2f}" for row in result.history]


def test_it_says_how_to_obtain_the_result_again(page):
    assert f"cs.train.Recipe(epochs=4, batch_size=16, lr={RECIPE.lr}" in page.text
    assert ["recipe.seed", "3"] in page.table("Settings")
    assert not any(name.startswith("architecture") for name, _ in page.table("Settings"))
    assert ["weights.safetensors", "weights"] in [row[:2] for row in page.table("Files")]


def test_the_call_of_the_page_is_the_recipe(page):
    start = page.text.index("cs.train.Recipe(")
    call = page.text[start : page.text.index(")", start) + 1]
    keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in ast.parse(call).body[0].value.keywords}
    assert cs.train.Recipe(**keywords) == RECIPE


def test_sizes_are_there_if_the_run_says_how_large_its_images_are(result, page, tmp_path):
    document = json.loads((result.run_dir / "run.json").read_text())
    places = [
        {"input_shape": [1, 8, 8]},
        {"input_size": 8},
        {"data": {**document["settings"]["data"], "input_shape": [1, 8, 8]}},
    ]
    counted = cs.measure.cost(tiny_architecture(), (1, 1, 8, 8))
    try:
        for place in places:
            change_document(result.run_dir, settings={**document["settings"], **place})
            rows = Page(cs.report.write(result.run_dir, tmp_path / "a.html")).table("tiny, one image of 1 × 8 × 8")
            assert rows[-1] == ["total", "", f"{counted.params:,}", f"{counted.macs:,}"]
    finally:
        change_document(result.run_dir, **document)


def test_a_training_that_goes_on(tmp_path):
    pages = []
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path, on_epoch=lambda epoch, row: pages.append(Page(cs.report.write(tmp_path))) or stop(epoch))
    assert [len(page.table("Figures of each epoch")) - 1 for page in pages] == [1, 2]
    assert "not finished" in pages[1].text
    assert "after epoch 2" in pages[1].text
    assert "epochs 2 of 4" in pages[1].text


def stop(epoch):
    if epoch == 2:
        raise KeyboardInterrupt


def test_a_training_that_has_just_started(tmp_path):
    train_run(tmp_path)
    for name in ("metrics.csv", "metrics.json", "weights.safetensors"):
        (tmp_path / name).unlink()
    change_document(tmp_path, finished=None)
    page = Page(cs.report.write(tmp_path))
    assert "No epoch has finished yet." in page.text
    assert "epochs 0 of 4" in page.text


def test_a_module_that_is_no_architecture(tmp_path):
    train_run(tmp_path, network=noisy_network())
    page = Page(cs.report.write(tmp_path))
    assert "Training of torch.nn.modules.container.Sequential on tiny" in page.text
    assert not any(dict(attributes).get("id") == "architecture" for _, attributes in page.elements)


def test_damaged_metrics_are_said(tmp_path):
    train_run(tmp_path)
    (tmp_path / "metrics.json").unlink()
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("5,oops,1,1,1,1\n")
    with pytest.raises(ValueError, match=r"metrics\.csv must hold a number in each cell.* line 6"):
        cs.report.write(tmp_path)
