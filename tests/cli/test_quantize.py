import json

import pytest
import torch

import convsmith as cs
from tests.cli.tiny import TINY


@pytest.fixture
def command(run_command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    TINY.save("tiny.json")
    torch.manual_seed(0)
    data = cs.data.load("digits")
    recipe = cs.train.Recipe(epochs=1, batch_size=32, lr=0.05)
    result = cs.train.fit(cs.create_model(TINY), cs.tasks.Classification(10), data, recipe, progress=False)
    cs.network.save_weights(result.network, "w.safetensors")

    return lambda *arguments: run_command("quantize", "tiny.json", *arguments), result


@pytest.mark.slow
def test_accuracy_before_and_after_is_reported_and_the_folder_written(command, tmp_path):
    pytest.importorskip("onnxruntime")
    run, trained = command
    given = ("--weights", "w.safetensors", "--data", "digits", "--backend", "onnxruntime")
    code, out, err = run(*given, "--max-drop", 0.05, "--images", 64, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["metric_before"] == pytest.approx(trained.metrics["accuracy"], abs=0.01)
    assert result["metric_after"] == pytest.approx(result["metric_before"], abs=0.05)
    assert result["calibration_inputs"] == 64
    assert sorted(result["files"]) == sorted(path.name for path in (tmp_path / "tiny-int8").iterdir())
    code, _, err = run(*given)
    assert code == 2
    assert "must be new or empty, and tiny-int8 is not" in err
    code, out, err = run(*given, "--out", "second", "--max-drop", 0.05)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["accuracy", "float32", "int8"]
    assert "wrote second for onnxruntime" in err


def test_a_network_that_does_not_fit_the_weights_is_told(command):
    run, _ = command
    code, out, err = run("--weights", "none.safetensors", "--data", "digits")
    assert (code, out) == (2, "")
    assert "there is no weights file none.safetensors" in err
