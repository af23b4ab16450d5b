"""What do these networks cost, and how fast are they here?  MACs do not predict speed; both columns are needed."""

import torchvision

import convsmith as cs

SHAPE = (1, 3, 96, 96)  # (N, C, H, W)

networks = {
    "resnet18": cs.create_model("resnet18"),
    "mobilenet_v2": cs.create_model("mobilenet_v2"),
    "squeezenet1_1": torchvision.models.squeezenet1_1(),  # any nn.Module, from any library
}
latencies = cs.measure.latencies(networks, SHAPE, rounds=5)  # taken in turns, so that the ratios can be trusted
for name, network in networks.items():
    cost = cs.measure.cost(network, SHAPE)
    print(
        f"{name:14} {cost.params / 1e6:6.2f} M params {cost.macs / 1e6:7.1f} M MACs {latencies[name].median_ms:7.2f} ms"
    )
