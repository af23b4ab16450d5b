"""Recorded calls in words: as they are written, and as a paper's figure lists the layers of an Inception module."""

from __future__ import annotations

from convsmith.arch import BlockSpec, changed_arguments, registered

_CHAIN = {"sequence": "blocks"}
_SIDE_BY_SIDE = {"branches": "branches", "scaled_residual": "paths", "poly_residual": "branches"}
_POOLS = {"avg_pool": "avg", "max_pool": "max"}


def arguments_text(spec: BlockSpec) -> str:
    """The arguments that differ from the block's defaults, as they are written in a call: `24, stride=2`."""
    parameters = registered(spec.block).signature.parameters.items()
    bare = {name for name, p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    changed = changed_arguments(spec)
    return ", ".join(
        argument_text(value) if name in bare else f"{name}={argument_text(value)}" for name, value in changed
    )


def argument_text(value: object) -> str:
    """A value as it is written in a call."""
    if isinstance(value, BlockSpec):
        arguments = arguments_text(value)
        return f"{value.block}({arguments})" if arguments else value.block
    if isinstance(value, tuple):
        inner = ", ".join(map(argument_text, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def layer_words(spec: BlockSpec) -> str:
    """What a table of blocks says of one: its arguments, or its branches where it is made of layers.

    A convolution is `3×3 96`, `1×7 128`, `3×3 96 valid` (without padding), `3×3 96 /2` (strided) or `1×1 96 linear`
    (without activation); a chain is `1×1 48 → 5×5 64`, branches are parted by semicolons. The norms of layers are left
    out, and what is the default.
    """
    name = _SIDE_BY_SIDE.get(spec.block) or _CHAIN.get(spec.block)
    if name is None:
        return arguments_text(spec)
    rest = [f"{key}={argument_text(value)}" for key, value in changed_arguments(spec) if key != name]
    return ", ".join([_parts(spec, name), *rest])


def _parts(spec: BlockSpec, name: str) -> str:
    parts = dict(spec.arguments)[name]
    assert isinstance(parts, tuple)
    if spec.block in _CHAIN:
        return _chain(parts)
    return "; ".join(_chain(part if isinstance(part, tuple) else (part,)) for part in parts)


def _chain(layers: tuple[object, ...]) -> str:
    return " → ".join(_layer(layer) if isinstance(layer, BlockSpec) else argument_text(layer) for layer in layers)


def _layer(spec: BlockSpec) -> str:
    inner = _SIDE_BY_SIDE.get(spec.block) or _CHAIN.get(spec.block)
    if inner:
        return f"({_parts(spec, inner)})"
    if spec.block != "conv_norm_act" and spec.block not in _POOLS:
        return argument_text(spec)
    arguments, changed = dict(spec.arguments), dict(changed_arguments(spec))
    kernel_size = arguments["kernel_size"]
    size = "×".join(map(argument_text, kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 2))
    words = [_POOLS[spec.block], size] if spec.block in _POOLS else [size, argument_text(arguments["out_channels"])]
    if arguments["stride"] != 1:
        words.append(f"/{argument_text(arguments['stride'])}")
    if "padding" in changed:
        words.append("valid" if changed["padding"] == 0 else f"padding={argument_text(changed['padding'])}")
    if changed.get("act") == "identity":
        words.append("linear")
        del changed["act"]
    said = {"out_channels", "kernel_size", "stride", "padding", "norm", "count_include_pad"}
    words += [f"{key}={argument_text(value)}" for key, value in changed.items() if key not in said]
    return " ".join(words)
