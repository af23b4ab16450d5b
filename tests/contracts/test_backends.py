"""The contract of back ends over the whole registry: adding a back end is being tested."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from convsmith import deploy
from convsmith.deploy import backends
from convsmith.deploy.agreement import TOLERANCES
from convsmith.deploy.precision import PRECISIONS

# `thorough` ones take many seconds to prepare.
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if backends.get(name).thorough else [])
    for name in backends.installed()
    if "cpu" in backends.get(name).devices
]
ON_THE_CPU = [
    pytest.param(*name.values, precision, marks=name.marks)
    for name in NAMES
    for precision in backends.get(*name.values).precisions
]


def network():
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Hardswish(),
        nn.ChannelShuffle(4),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 24, 1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24 * 3 * 2, 5),
    )
    made[1].running_mean.normal_()
    made[1].running_var.uniform_(0.5, 2)
    with torch.no_grad():  # what all images have in common hides what bfloat16 may change
        made[-1].bias -= 0.8 * made.eval()(torch.randn(64, 3, 21, 17)).mean(0)
    return made.train()


def prepared(name, precision, module, example, threads=1):
    """The back end's own run, or a skip where this processor lacks the precision."""
    try:
        return deploy.prepare(module, example, backend=name, precision=precision, threads=threads)
    except ValueError as error:
        if "on this processor" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize(("name", "precision"), ON_THE_CPU)
def test_it_agrees_with_eager_at_other_batch_sizes_and_leaves_the_module_alone(name, precision):
    module, example = network().train(), torch.randn(2, 3, 21, 17)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    run = prepared(name, precision, module, example)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    module.eval()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 21, 17)
        with torch.no_grad():
            expected = module(x)
        found = run(x)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= max(TOLERANCES[PRECISIONS[precision]], 1e-4) * expected.abs().max()
    kept, x = run(x), torch.randn(5, 3, 21, 17)
    again = kept.clone()
    run(x)
    assert torch.equal(kept, again), "an output must not be overwritten by the next call"


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_and_gives_the_examples_type_whatever_it_computes_in(name):
    entry = backends.get(name)
    module, example = network().double().eval(), torch.randn(2, 3, 21, 17, dtype=torch.float64)
    run = prepared(name, "float32" if "float32" in entry.precisions else entry.precisions[0], module, example)
    for x in (example[:1], torch.randn_like(example)):
        found, expected = run(x), module(x).detach()
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_its_outputs_may_be_changed_and_learned_from(name):
    run, x = deploy.prepare(network(), torch.randn(2, 3, 21, 17), backend=name, threads=1), torch.randn(3, 3, 21, 17)
    head = nn.Linear(5, 2)
    head(run(x)).sum().backward()
    assert head.weight.grad.abs().sum() > 0
    expected = run(x) + 1
    assert torch.equal(run(x).add_(1), expected)
    with torch.inference_mode():
        assert torch.equal(run(x).add_(1), expected)


@pytest.fixture
def hasty_threads():
    """Threads that take turns at every opportunity."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as pool:
        yield pool
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("name", NAMES)
def test_threads_that_share_a_run_get_the_outputs_of_their_own_inputs(name, hasty_threads):
    run = deploy.prepare(network().eval(), torch.randn(2, 3, 21, 17), backend=name, threads=1)
    batches = [torch.randn(size, 3, 21, 17) for size in (2, 2, 3, 3)]
    expected = [run(x) for x in batches]

    def wrong(i):
        return sum(not torch.allclose(run(batches[i]), expected[i], rtol=0, atol=1e-4) for _ in range(300))

    assert list(hasty_threads.map(wrong, range(4))) == [0, 0, 0, 0]


COUNTING = """
import os, sys, time, torch
from torch import nn
from convsmith import deploy
torch.set_num_threads(1)
network = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(10)))
example = torch.randn(4, 16, 64, 64)
def spent():
    tasks = os.listdir("/proc/self/task")
    return {task: int(open(f"/proc/self/task/{task}/schedstat").read().split()[0]) / 1e9 for task in tasks}
for threads in (1, 2):
    run = deploy.prepare(network, example, backend=sys.argv[1], precision=sys.argv[2], threads=threads)
    before, start, working = spent(), time.monotonic(), []
    # A runtime whose threads take work as they find time may need a while to use one that a busy machine holds back.
    while time.monotonic() < start + 60 and (len(working) < threads or sum(working) < 0.2):
        run(example)
        working = [used for task, after in spent().items() if (used := after - before.get(task, 0)) > 1e-3]
    print(len(working))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
@pytest.mark.parametrize("name", NAMES)
def test_as_many_threads_work_as_it_is_told(name):
    words = backends.get(name).precisions
    command = [sys.executable, "-c", COUNTING, name, "float32" if "float32" in words else words[0]]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1", "2"]


LOADING = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
sys.path.insert(0, sys.argv[1])
import loader
run = loader.load(threads=1)
inputs = [np.load(path) for path in sys.argv[2:]]
outputs = [run(x) for x in inputs]
print(json.dumps([[y.tolist(), str(y.dtype)] for y in outputs]))
inputs += [-x for x in inputs]
outputs = [run(x) for x in inputs]
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(4) as pool:
    for i, found in enumerate(pool.map(run, inputs * 250)):
        assert np.allclose(found, outputs[i % len(inputs)], rtol=0, atol=1e-4), "the output of another thread's input"
assert "convsmith" not in sys.modules
"""


@pytest.mark.parametrize(("name", "precision"), [case for case in ON_THE_CPU if backends.get(case.values[0]).write])
def test_what_it_writes_runs_by_its_loader_alone(name, precision, tmp_path):
    module, example = network().eval(), torch.randn(2, 3, 21, 17)
    folder = tmp_path / "artefact"
    prepared(name, precision, module, example)  # skips where the processor lacks the precision
    folder.mkdir()
    artefact = backends.get(name).write(deploy.snapshot.snapshot(module), example, folder, precision)
    assert sorted(path.name for path in folder.iterdir()) == sorted(artefact.files)
    assert artefact.packages
    assert len(artefact.loader.splitlines()) <= 20
    (folder / "loader.py").write_text(artefact.loader)
    paths = [tmp_path / f"{batch}.npy" for batch in (1, 3)]
    inputs = [torch.randn(batch, 3, 21, 17) for batch in (1, 3)]
    for path, x in zip(paths, inputs, strict=True):
        np.save(path, x.numpy())
    command = [sys.executable, "-c", LOADING, str(folder), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for x, (values, dtype) in zip(inputs, json.loads(done.stdout.splitlines()[-1]), strict=True):
        with torch.no_grad():
            expected = module(x)
        assert dtype == "float32"
        assert torch.tensor(values).shape == expected.shape
        difference = (torch.tensor(values) - expected).abs().max()
        assert difference <= max(TOLERANCES[PRECISIONS[precision]], 1e-4) * expected.abs().max()


class Branching(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 3, 1), kind

    def forward(self, x):
        y = self.conv(x)
        if self.kind.startswith("caught "):
            try:
                return self.branched(x, y, self.kind.removeprefix("caught "))
            except Exception:  # what an exporter raises: with values there is nothing to catch
                return 3 * y
        return self.branched(x, y, self.kind)

    def branched(self, x, y, kind):
        if kind == "if":
            return 2 * y if x.mean() > 0 else y
        if kind == "loop":
            for value in x.mean((1, 2, 3)).tolist():
                y = y * value
            return y
        if kind == "float":
            return 3 * y if float(x.mean()) < 99 else y  # as the other way, but for images that nobody tries
        if kind == "item":
            return y * x.mean().item()
        return 2 * y if x.shape[0] > 3 else y


@pytest.mark.parametrize("kind", ["if", "loop", "item", "batch", "caught if", "caught float", "caught batch"])
@pytest.mark.parametrize("name", NAMES)
def test_what_branches_on_values_or_batch_size_is_refused_or_followed(name, kind):
    module = Branching(kind).eval()
    if name == "eager":
        run = deploy.prepare(module, torch.randn(2, 3, 5, 5), backend=name)
        for x in (torch.ones(5, 3, 5, 5), -torch.ones(1, 3, 5, 5)):
            with torch.no_grad():
                assert torch.equal(run(x), module(x))
        return
    with pytest.raises(ValueError, match="branch"):
        deploy.prepare(module, torch.randn(2, 3, 5, 5), backend=name, threads=1)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_precision_is_refused_before_anything_runs(name):
    missing = [word for word in PRECISIONS if word not in backends.get(name).precisions]
    if not missing:
        pytest.skip("it has them all")
    with pytest.raises(ValueError, match=f"the back end {name} computes in .* and {missing[0]} is asked for"):
        deploy.prepare(network(), torch.randn(2, 3, 21, 17), backend=name, precision=missing[0])


def test_what_a_back_end_says_of_itself_makes_sense():
    for name in backends.names():
        entry = backends.registry._BACKENDS[name]
        assert entry.precisions
        assert set(entry.precisions) <= set(PRECISIONS)
        assert bool(entry.extra) == bool(entry.requires)
