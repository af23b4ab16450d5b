"""A search with your own evaluation: any function from an architecture to a dictionary of metrics."""

import convsmith as cs
from convsmith.search import cost_constraint, search, spaces, strategies

SHAPE = (1, 3, 64, 64)


def evaluate(architecture: cs.Architecture, *, seed: int, report) -> dict[str, float]:
    """Instead of training: how large a share of the network's MACs lies in its last stage."""
    by_module = cs.measure.cost(architecture, SHAPE).by_module
    last = len(architecture.stages) - 1
    inside = sum(
        counts.macs for path, counts in by_module.items() if path.startswith(f"stages.{last}.") and path.count(".") == 2
    )
    return {"share": inside / by_module[""].macs}


history = search(
    spaces.get("mobile", num_classes=10, in_channels=3, input_size=64),
    strategies.get("regularized_evolution", population_size=10, sample_size=4),
    evaluate,
    trials=30,
    objective="share",
    constraints=[cost_constraint("params", 5e6, SHAPE)],  # checked before a network is evaluated
)
print(f"{len(history)} trials, the best: {history.best.metrics}")
print(history.space.resolve(history.best.decisions))
