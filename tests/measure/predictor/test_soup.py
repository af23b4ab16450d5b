from random import Random

from convsmith.measure.predictor import soup

NETWORKS = 300  # a third of what a calibration measures


def convolutions():
    """Of each random network its distinct convolutions: shape of the weights, groups and rows of the result."""
    for number in range(NETWORKS):
        graph = soup.draw(Random(number)).graph
        ops = [op for op in graph.ops if op.kind == "Conv"]
        yield {
            (graph.shapes[op.inputs[1]], op.attributes.get("group", 1), graph.shapes[op.outputs[0]][2]) for op in ops
        }


def test_random_networks_have_what_only_some_sizes_are_slow_in():
    """Maps whose pixels share sets of a cache, and large weights for few pixels: one family has them, others none."""
    clashing = large = 0
    for found in convolutions():
        clashing += any(
            groups * 2 == weight[0] and weight[1:] == (2, 3, 3) and weight[0] in (256, 512, 1024) and rows >= 7
            for weight, groups, rows in found
        )
        large += any(
            groups == 1 and weight[2:] == (5, 5) and weight[0] * weight[1] >= 128 * 128 and rows <= 7
            for weight, groups, rows in found
        )
    assert clashing >= 6
    assert large >= 12
