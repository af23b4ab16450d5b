"""Weights from and to other libraries and files: mapped by position, checked by shape, read without running code."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture

Order = Sequence[tuple[str, str]]  # (ours, theirs): name patterns in the order of the mapping


def transplant(source_state_dict: Mapping[str, Tensor], network: nn.Module, *, order: Order | None = None) -> None:
    """Copy the weights of another library's network into ours, by position in the two state dicts.

    Both list the main path of a block before its shortcut, as torchvision registers them. Where a source differs,
    `order` lists (ours, theirs) name patterns with `*`: weights that match an earlier pair are mapped among
    themselves, in the order of their state dicts, and what no pair matches is mapped last. A fully connected layer
    stored as a 1 x 1 convolution, or the other way round, is reshaped. A norm's `num_batches_tracked`, which
    only a norm without momentum reads, is not copied.

    Raises ValueError with the first mismatch: both names and shapes. Equal shapes prove nothing: compare outputs too.
    """
    own = network.state_dict()
    mapped = map_names(own, source_state_dict, order)
    network.load_state_dict(
        {ours: source_state_dict[theirs].reshape(own[ours].shape) for ours, theirs in mapped.items()}, strict=False
    )


def map_names(own: Mapping[str, Tensor], source: Mapping[str, Tensor], order: Order | None = None) -> dict[str, str]:
    """Our names to theirs, as `transplant` maps them; ValueError with the first mismatch of names or shapes."""
    pairs = [*(order or ()), ("*", "*")]
    ours, theirs = _groups(own, [a for a, _ in pairs]), _groups(source, [b for _, b in pairs])
    mapped: dict[str, str] = {}
    for pattern, our_names, their_names in zip(pairs, ours, theirs, strict=True):
        for i in range(max(len(our_names), len(their_names))):
            if i >= len(our_names) or i >= len(their_names):
                side, name = ("source", their_names[i]) if i >= len(our_names) else ("network", our_names[i])
                aux = "; auxiliary heads are built with aux_heads=True" if side == "source" and "aux" in name else ""
                raise ValueError(
                    f"for the pattern {pattern} the network has {len(our_names)} weights and the source "
                    f"{len(their_names)}; the first left over is the {side}'s {name}{aux}"
                )
            our_name, their_name = our_names[i], their_names[i]
            ours_is, theirs_is = own[our_name], source[their_name]
            if ours_is.squeeze().shape != theirs_is.squeeze().shape:
                raise ValueError(
                    f"weight {i} of the pattern {pattern} differs in shape: ours is {our_name} {tuple(ours_is.shape)}, "
                    f"the source's is {their_name} {tuple(theirs_is.shape)}"
                )
            mapped[our_name] = their_name
    return mapped


def load_weights(
    network: nn.Module,
    path: str | Path,
    *,
    order: Order | None = None,
    names_in_order: Sequence[str] | None = None,
) -> None:
    """Load a safetensors file or a state dict saved by torch, ours by name or another library's by position.

    A safetensors file keeps its names sorted: for another library's, `names_in_order` gives them as its state dict has
    them. Nothing in a file can run code: torch's are read with `weights_only=True`. ValueError for anything else.
    """
    fit_weights(network, read_weights(path), path, order=order, names_in_order=names_in_order)


def fit_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    order: Order | None = None,
    names_in_order: Sequence[str] | None = None,
) -> None:
    """What `load_weights` does, with the tensors that were read from `path`."""
    own = network.state_dict().keys()
    if own < state.keys() and all(name.startswith("aux.") for name in state.keys() - own):
        state = {name: state[name] for name in own}  # ours, with auxiliary heads that this network goes without
    try:
        if set(state) == set(own):
            network.load_state_dict(state)
        elif Path(path).suffix == ".safetensors" and names_in_order is None:
            raise ValueError(
                "they have another library's names, and a safetensors file keeps them sorted, not in the order by "
                "which they are mapped; save the state dict with torch.save"
            )
        else:
            transplant({name: state[name] for name in names_in_order or state}, network, order=order)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"the weights in {path} do not fit the network: {' '.join(str(error).split())}") from None


def adapt_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of a network into the same one with other input channels or another number of classes.

    The classifiers (`head`, `aux`) of another size keep their fresh weights. The first convolution is summed over its
    input channels for one channel (an image in grey gives what it gave as three equal channels), and repeated over
    them in turn, scaled by old / new, for others. ValueError where anything else differs.
    """
    theirs, ours = source.state_dict(), target.state_dict()
    channels = tuple(getattr(getattr(net, "architecture", None), "in_channels", None) for net in (source, target))
    for name, tensor in ours.items():
        old = theirs.get(name)
        if (
            old is not None
            and tensor.ndim == 4
            and (old.shape[1], tensor.shape[1]) == channels != (tensor.shape[1],) * 2
        ):
            width = tensor.shape[1]  # a convolution that reads the image; a fractal network has several
            turns = old[:, torch.arange(width) % old.shape[1]] * (old.shape[1] / width)
            old = old.sum(1, keepdim=True) if width == 1 else turns
        if old is not None and old.shape == tensor.shape:
            ours[name] = old
        elif not name.startswith(("head.", "aux.")):
            raise ValueError(
                f"only classifiers and the first convolution may differ, but {name} is {tuple(tensor.shape)} and was "
                f"{None if old is None else tuple(old.shape)}"
            )
    target.load_state_dict(ours)


def stored_architecture(path: str | Path) -> Architecture:
    """The architecture inside a safetensors file that `save_weights` wrote; ValueError where there is none."""
    import safetensors

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no weights file {path}; save_weights writes one")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); write it again") from None
    if "architecture" not in metadata:
        raise ValueError(f"{path} holds no architecture; name the architecture, and give the file as weights")
    return Architecture.from_json(metadata["architecture"])


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a state dict saved by torch, by name, on the CPU."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no weights file {path}; give a .safetensors file or a state dict saved by torch"
        )
    if path.suffix == ".safetensors":
        import safetensors
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file ({error}); write it again") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the file's age; the error below says what there is to say
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a file that is none make of the reader
        reason = re.split(r"[.\n]", str(error))[0] or type(error).__name__
        raise ValueError(
            f"{path} is no state dict that can be read without running code ({reason}); save network.state_dict()"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state dict, names to tensors; save network.state_dict()")
    return dict(state)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the weights as safetensors, whole or not at all; the architecture, if there is one, inside as metadata."""
    from safetensors.torch import save

    from convsmith.arch import write_whole_bytes

    architecture = getattr(network, "architecture", None)
    # One key: safetensors writes several in any order, and equal runs should leave equal files.
    metadata = None if architecture is None else {"architecture": architecture.to_json()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_whole_bytes(Path(path), save(tensors, metadata))


def _groups(names: Mapping[str, Tensor], patterns: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = [[] for _ in patterns]
    for name in names:
        if not name.endswith("num_batches_tracked"):
            groups[next(i for i, pattern in enumerate(patterns) if fnmatch.fnmatchcase(name, pattern))].append(name)
    return groups
