import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from torch import nn

import convsmith as cs
from convsmith.train import Recipe, evaluate, fit
from tests.train.tiny import RECIPE, TASK, equal, noisy_network, tiny_architecture, tiny_data, tiny_network, weights

DATA = tiny_data()


class Stop(Exception):  # noqa: N818
    """Stands for the end of the process."""


def stop_after(last):
    def on_epoch(epoch, row):
        if epoch == last:
            raise Stop

    return on_epoch


def interrupted(run_dir, *, make=tiny_network, after=2, recipe=RECIPE):
    """A run whose process ended behind an epoch."""
    with pytest.raises(Stop):
        fit(make(), TASK, DATA, recipe, run_dir=run_dir, on_epoch=stop_after(after))
    return run_dir


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def aux_network(seed=0):
    return tiny_network(seed, aux=[(0, 0, cs.spec(cs.nn.Classifier, 4, dropout=0.3))])


def drop_path_network(seed=0):
    stage = [cs.spec(cs.nn.BasicBlock, 8), cs.spec(cs.nn.DropPath, rate=0.3, scheduled=True)]
    return tiny_network(seed, stages=[stage])


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("make", [tiny_network, noisy_network, aux_network, drop_path_network])
def test_a_resumed_training_ends_as_the_uninterrupted_one(make, after, tmp_path):
    whole = fit(make(), TASK, DATA, RECIPE)
    interrupted(tmp_path, make=make, after=after)
    torch.manual_seed(99)  # another process is in another state, and makes other weights
    resumed = fit(make(seed=5), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert equal(weights(resumed.network), weights(whole.network))
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.metrics == whole.metrics
    stored = cs.network.read_weights(tmp_path / "weights.safetensors")
    assert equal(stored, weights(whole.network))


def condensing_network(seed=0):
    stage = [cs.spec(cs.nn.CondenseLayer, growth_rate=8, groups=2, condensation=4)]
    return tiny_network(seed, stages=[stage], head=cs.spec(cs.nn.CondenseClassifier, 4))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_training_with_a_group_lasso_resumes_exactly(after, tmp_path):
    recipe = replace(RECIPE, group_lasso=1e-3)
    whole = fit(condensing_network(), TASK, DATA, recipe)
    interrupted(tmp_path, make=condensing_network, after=after, recipe=recipe)
    resumed = fit(condensing_network(seed=5), TASK, DATA, recipe, run_dir=tmp_path)
    assert equal(weights(resumed.network), weights(whole.network))
    assert without_seconds(resumed.history) == without_seconds(whole.history)


def test_a_run_from_before_the_group_lasso_resumes_without_one_alone(tmp_path):
    interrupted(tmp_path)
    assert "group_lasso" not in json.loads((tmp_path / "run.json").read_text())["settings"]["recipe"]
    with pytest.raises(ValueError, match=r"recipe\.group_lasso = null, and this call has 0\.001"):
        fit(tiny_network(), TASK, DATA, replace(RECIPE, group_lasso=1e-3), run_dir=tmp_path)
    assert len(fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path).history) == RECIPE.epochs


def test_channels_last_resumes_exactly(tmp_path):
    recipe = replace(RECIPE, channels_last=True)
    whole = fit(tiny_network(), TASK, DATA, recipe)
    interrupted(tmp_path, recipe=recipe)
    resumed = fit(tiny_network(seed=5), TASK, DATA, recipe, run_dir=tmp_path)
    assert equal(weights(resumed.network), weights(whole.network))


def test_a_training_interrupted_many_times_in_the_middle_of_an_epoch(tmp_path):
    whole = fit(noisy_network(), TASK, DATA, RECIPE)
    starts = 0
    for attempt in range(10):
        network, calls = noisy_network(seed=attempt), []

        def forward(module, inputs, calls=calls):
            calls.append(module.training)
            if sum(calls) == 5:  # the second step of the second epoch of this start
                raise KeyboardInterrupt

        network.register_forward_pre_hook(forward)
        starts += 1
        try:
            result = fit(network, TASK, DATA, RECIPE, run_dir=tmp_path)
            break
        except KeyboardInterrupt:
            continue
    assert starts == RECIPE.epochs
    assert equal(weights(result.network), weights(whole.network))


def test_a_training_killed_in_its_first_epoch_goes_on_from_the_weights_it_had(tmp_path):
    whole = fit(tiny_network(seed=1), TASK, DATA, RECIPE)
    network = tiny_network(seed=1)
    network.stem[0].register_forward_pre_hook(lambda module, inputs: stop_if(module.training))
    with pytest.raises(Stop):
        fit(network, TASK, DATA, RECIPE, run_dir=tmp_path)
    resumed = fit(tiny_network(seed=2), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert equal(weights(resumed.network), weights(whole.network))


def stop_if(condition):
    if condition:
        raise Stop


def test_a_finished_run_returns_its_result_without_training(tmp_path):
    first = fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    network = tiny_network(seed=7)
    network.stem[0].register_forward_pre_hook(lambda module, inputs: stop_if(module.training))
    again = fit(network, TASK, DATA, RECIPE, run_dir=tmp_path, on_epoch=stop_after(1))
    assert again.network is network
    assert equal(weights(network), weights(first.network))
    assert (again.metrics, again.history, again.run_dir) == (first.metrics, first.history, tmp_path)
    assert not network.training
    assert evaluate(network, TASK, DATA.validation, RECIPE.batch_size) == first.metrics


@pytest.mark.parametrize("function", ["save_weights", "_now"])
def test_a_training_killed_while_it_wrote_its_result_writes_it_again(function, tmp_path, monkeypatch):
    whole = fit(tiny_network(), TASK, DATA, RECIPE)
    interrupted(tmp_path, after=4)
    with monkeypatch.context() as patched:
        patched.setattr(f"convsmith.train.run_folder.{function}", lambda *arguments: stop_if(True))
        with pytest.raises(Stop):
            fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    resumed = fit(tiny_network(seed=3), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert equal(weights(resumed.network), weights(whole.network))
    assert resumed.metrics == whole.metrics
    assert "finished" in json.loads((tmp_path / "run.json").read_text())


# What is in the folder


def test_the_folder_of_a_run(tmp_path):
    result = fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    assert list(run) == ["format", "kind", "settings", "seed", "versions", "device", "started", "finished"]
    assert (run["format"], run["kind"], run["seed"]) == ("convsmith/run/1", "train", RECIPE.seed)
    assert list(run["versions"]) == ["convsmith", "python", "torch", "torchvision", "numpy"]
    assert run["device"]["type"] == "cpu"
    assert run["device"]["threads"] == torch.get_num_threads()
    assert run["settings"]["data"] == {"name": "tiny", "fingerprint": "f" * 16, "input_shape": [1, 8, 8]}
    assert run["settings"]["task"] == {
        "task": "Classification",
        "num_classes": 4,
        "label_smoothing": 0.1,
        "aux_weight": 0.3,
    }
    document = json.dumps(run["settings"]["recipe"] | {"format": "convsmith/recipe/1"})
    assert Recipe.from_json(document) == RECIPE
    architecture = cs.Architecture.from_json(json.dumps(run["settings"]["architecture"]))
    assert architecture == tiny_architecture()
    with safetensors.safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert cs.Architecture.from_json(file.metadata()["architecture"]) == architecture
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["format"] == "convsmith/metrics/1"
    assert metrics["validation"] == result.metrics
    assert metrics["history"] == list(result.history)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["epoch_0003.pt", "epoch_0004.pt"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_metrics_csv_has_every_epoch_once(tmp_path):
    interrupted(tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    result = fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == list(result.history)


def test_tensorboard_has_every_epoch_once(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(tmp_path)
    result = fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "train_loss", "seconds", "accuracy", "loss"}
    for name in ("lr", "train_loss", "accuracy"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3, 4]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[name] for row in result.history])


def test_without_tensorboard_nothing_is_missing_but_its_events(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "metrics.csv").exists()


# Refusals


def other_task(**changes):
    return {"task": replace(TASK, **changes)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"recipe": replace(RECIPE, epochs=9)},
            r"recipe.epochs = 4, .* has 9 \(the learning rate of every step depends",
        ),
        ({"recipe": replace(RECIPE, lr=0.2)}, r"recipe.lr = 0.05, and this call has 0.2;"),
        ({"recipe": replace(RECIPE, seed=4)}, r"recipe.seed = 3, and this call has 4;"),
        ({"task": replace(TASK, label_smoothing=0.0)}, r"task.label_smoothing = 0.1, and this call has 0.0;"),
        ({"data": tiny_data(fingerprint="e" * 16)}, r'data.fingerprint = "ffff\w+", and this call has "eeee\w+";'),
        (
            {"network": lambda: tiny_network(stem=[cs.spec(cs.nn.ConvNormAct, 12)])},
            r"architecture.stem\[0\].args.out_channels = 8, and this call has 12;",
        ),
        (
            {"network": lambda: tiny_network(stages=[tiny_architecture().stages[0]])},
            r'architecture.stages\[1\] = \[{"block": "inverted_residual".*\.\.\., and this call has null;',
        ),
    ],
)
def test_a_run_is_not_continued_with_other_settings(changes, message, tmp_path):
    interrupted(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    call = {"network": tiny_network, "task": TASK, "data": DATA, "recipe": RECIPE} | changes
    with pytest.raises(ValueError, match=message):
        fit(call["network"](), call["task"], call["data"], call["recipe"], run_dir=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)


def test_notes_of_an_architecture_are_no_difference(tmp_path):
    interrupted(tmp_path)
    fit(tiny_network(found_by="a search"), TASK, DATA, RECIPE, run_dir=tmp_path)


def test_a_module_without_architecture_is_known_by_its_weights(tmp_path):
    interrupted(tmp_path, make=noisy_network)
    wider = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(576, 4))
    with pytest.raises(ValueError, match=r"architecture.weights.0.weight\[0\] = 8, and this call has 16;"):
        fit(wider, TASK, DATA, RECIPE, run_dir=tmp_path)


def test_a_task_that_cannot_be_recorded_is_refused(tmp_path):
    class Plain:
        network, check, loss = TASK.network, TASK.check, TASK.loss

    with pytest.raises(TypeError, match=r"must be a dataclass.* got Plain"):
        fit(tiny_network(), Plain(), DATA, RECIPE, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "convsmith/run/1", "kind": "search"}', "holds a run of kind 'search'; give another run_dir"),
        ('{"format": "convsmith/run/2", "kind": "train"}', "must have the format 'convsmith/run/1'"),
        ('{"format": "convsmith/run/1", "ki', "cannot be read .* to start anew"),
    ],
)
def test_the_folder_of_something_else_is_refused(text, message, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert (tmp_path / "run.json").read_text() == text


# Damage


def cut_in_half(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path: Path):
    content = bytearray(path.read_bytes())
    place = content.index(torch.load(path, weights_only=True)["network"]["stem.0.conv.weight"].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)


def empty(path: Path):
    path.write_bytes(b"")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def make_run_code(path: Path):
    torch.save({"network": Malicious(path.parent / "code_was_run")}, path)


@pytest.mark.parametrize("damage", [cut_in_half, flip_one_bit, empty, make_run_code])
def test_a_damaged_checkpoint_is_passed_over(damage, tmp_path):
    whole = fit(tiny_network(), TASK, DATA, RECIPE)
    interrupted(tmp_path)
    damage(tmp_path / "checkpoints" / "epoch_0002.pt")
    with pytest.warns(RuntimeWarning, match=r"epoch_0002.pt is damaged \(.+\) and passed over"):
        resumed = fit(tiny_network(seed=5), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert equal(weights(resumed.network), weights(whole.network))
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert not (tmp_path / "checkpoints" / "code_was_run").exists()


def test_without_a_whole_checkpoint_nothing_is_started_anew(tmp_path):
    interrupted(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        cut_in_half(path)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="is damaged"), pytest.raises(ValueError, match="to start anew"):
            fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    interrupted(tmp_path)
    leftover = tmp_path / "checkpoints" / ".epoch_0003.pt.abcdefgh"
    leftover.write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tiny_network(), TASK, DATA, RECIPE, run_dir=tmp_path)
    assert not leftover.exists()
