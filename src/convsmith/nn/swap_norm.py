"""The same architecture with another norm."""

from __future__ import annotations

from typing import Any

from convsmith.arch import Architecture, BlockSpec, Choice, registered
from convsmith.arch.choice import key_of

# The names under which the norms of this folder are recorded, for those that stand as blocks of their own.
NORMS = frozenset(
    (
        *("batch_norm", "batch_renorm", "cross_device_batch_norm", "ghost_batch_norm"),
        *("group_norm", "layer_norm", "mean_only_batch_norm", "weight_norm"),
    )
)


def swap_norm(architecture: Architecture, spec: BlockSpec) -> Architecture:
    """The same network with another norm in every block that takes `norm`, and where a norm stands as a block.

    It works on the tree: `swap_norm(zoo.get("resnet50"), spec(GroupNorm))`. Stem, stages, neck, head, auxiliary heads,
    specs inside of specs and the options of choices are all visited. `spec` may be a choice of norms, which makes a
    search space.

    - `norm=None` stays None, and `norm=spec(Identity)` too: what had no norm gets none.
    - Arguments of the old norm are lost, special ones too: GoogLeNet's and NASNet's `eps` of 0.001 is one. Swapping
      plain batch norm out and in again gives the original.
    - A block whose norm is fixed, as it takes no `norm`, keeps it; `local_response_norm` stays where it stands.
    - A tree has neither running statistics nor weights. `load_state_dict(other.state_dict(), strict=False)` takes what
      both networks have: convolutions, gamma and beta, and running statistics where both norms keep them. Where only
      the new one does, its statistics are those of a new network: call `precise_batch_norm`.
    - Options of a choice that the swap makes equal become one, so decisions are indices into fewer options.

    Channels are known when the network is built: what a norm refuses there, as `GroupNorm` channels that its groups do
    not divide, is a ValueError that names the block's path and the remedy. So is a `WeightNorm`, which acts on the
    kernel in front of it, in a block that norms before it convolves, as DenseNet's do: none stands in front there.

    Raises TypeError if `spec` is no recorded norm; a block that is not of this library may be one.
    """
    node: Any = spec
    for option in node.options if isinstance(node, Choice) else (node,):
        if not isinstance(option, BlockSpec) or not _may_be_norm(option):
            raise TypeError(f"the other norm must be a recorded norm, as spec(GroupNorm) is, got {option!r}")
    parts = ("stem", "stages", "neck", "head", "aux")
    return architecture.replace(**{part: _swap(getattr(architecture, part), spec) for part in parts})


def _may_be_norm(option: BlockSpec) -> bool:
    """Whether a block is one of our norms, or none of our blocks and keeps its channels: it may be a user's norm."""
    ours = registered(option.block).constructor.__module__.startswith("convsmith.")
    return option.block in (*NORMS, "identity") if ours else not option.has("out_channels")


def _swap(node: Any, norm: Any, *, as_norm: bool = False) -> Any:
    """The node with every norm replaced; `as_norm` says that it stands as the argument `norm` of a block."""
    if isinstance(node, Choice):
        swapped = (_swap(option, norm, as_norm=as_norm) for option in node.options)
        return Choice(tuple({key_of(option): option for option in swapped}.values()), node.name)
    if isinstance(node, tuple):
        return tuple(_swap(item, norm) for item in node)
    if not isinstance(node, BlockSpec):
        return node
    if node.block in NORMS or (as_norm and node.block != "identity"):
        return norm
    return node.replace(**{name: _swap(value, norm, as_norm=name == "norm") for name, value in node.arguments})
