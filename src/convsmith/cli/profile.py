"""convsmith profile: where the time of a network goes, beside what the device could do."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, Json, Model, Threads
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.sizes import InputSize
from convsmith.cli.subjects import one_subject

SLOWED = 1.25  # times the pass that the operators may take together before it is told

# Of each view: column, key of a row, format.
COLUMNS = {
    "category": (("category", "category", ""), *(TIMES := ((">calls", "calls", ""), (">ms", "ms", ".3f")))),
    "operator": (("operator", "operator", ""), *TIMES),
    "module": (("module", "module", ""), *TIMES, (">MACs", "macs", ",")),
    "layer": (
        *((name, name, "") for name in ("module", "operator", "kernel", "category")),
        *((">ms", "ms", ".3f"), (">MACs", "macs", ","), (">bytes", "memory_bytes", ",")),
        *((">MAC / byte", "intensity", ".1f"), (">GMAC/s", "gmacs_per_s", ".1f"), (">of peak", "of_peak", ".0%")),
        *(("roof", "roof", ""), (">of roof", "of_roof", ".0%")),
    ),
}  # fmt: skip


@app.command(epilog="Example: convsmith profile shufflenet_v1_g3 --backend onnxruntime --by layer --html profile.html")
def profile(
    model: Model,
    backend: Annotated[str, typer.Option(help="eager, onnxruntime, openvino or executorch.")] = "eager",
    by: Annotated[str, typer.Option(help="category, operator, module or layer.")] = "category",
    batch: Batch = 1,
    threads: Threads = 1,
    input_size: InputSize = None,
    device: Annotated[str, typer.Option(help="Where to run, as torch names it.")] = "cpu",
    html: Annotated[
        Path | None, typer.Option(help="A page with the roofline and the shares of the time.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Tell where the time of one forward pass goes, how near each layer is to the device's roofs, and what slows it."""
    from convsmith import measure
    from convsmith.deploy import allocator
    from convsmith.measure.profile import check_view
    from convsmith.network import output_shapes

    check_view(by)
    if html is not None:
        from convsmith import report

        report.check_page(html)
    subject = one_subject(model)
    shape = subject.shape(batch, input_size)
    if subject.architecture is not None:
        output_shapes(subject.architecture, shape)  # an input that does not fit is told before anything runs
    network = subject.build()
    found = measure.profile(network, shape, backend=backend, device=device, threads=threads)
    document = {"name": subject.name, "input_shape": list(shape), **found.document(), "keeping_memory_ms": None}
    if any(slowdown.name == "returned_memory" for slowdown in found.slowdowns) and allocator.keep_memory():
        again = measure.profile(network, shape, backend=backend, device=device, threads=threads, roofs=found.roofs)
        document["keeping_memory_ms"] = again.latency_ms
    if html is not None:
        report.write_profile(
            found,
            html,
            name=subject.name,
            input_shape=shape,
            keeping_memory_ms=document["keeping_memory_ms"],
            command=["convsmith", *sys.argv[1:]],
        )
        say(f"wrote {html}")
    if json:
        print_json(document)
        return
    _print(found.rows(by), COLUMNS[by])
    say(_summary(document))
    if document["attributed_ms"] > SLOWED * document["latency_ms"]:
        say(
            f"the operators add up to {document['attributed_ms']:.3f} ms, more than the pass takes: being watched, or "
            "other work on the machine, slows them; measure again on a quieter machine, or compare their shares only"
        )
    for slowdown in document["slowdowns"]:
        say(f"{slowdown['name']}: {slowdown['message']}")
    if document["keeping_memory_ms"]:
        say(f"with freed memory kept, measured after it: {document['keeping_memory_ms']:.3f} ms")
    if document["unknown"]:
        say(f"no category for {', '.join(document['unknown'])}; counted as other")


def _print(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> None:
    print_table(
        (*(title for title, _, _ in columns), ">share"),
        ((*(format(row[key], how) for _, key, how in columns), f"{row['share']:.1%}") for row in rows),
    )


def _summary(document: Mapping[str, Any]) -> str:
    roofs = document["roofs"]
    rate = sum(row["macs"] for row in document["by_layer"]) / document["latency_ms"] / 1e6
    bandwidth = ", ".join(f"{rate:.0f} GB/s in {size / 2**20:g} MiB" for size, rate in roofs["copies"][::2])
    return (
        f"{document['latency_ms']:.3f} ms, {document['profiled_ms']:.3f} ms while watched "
        f"({document['passes']} passes); {rate:.1f} GMAC/s, {rate / roofs['gmacs_per_s']:.0%} of the peak of "
        f"{roofs['gmacs_per_s']:.0f} GMAC/s ({roofs['source']}); memory {bandwidth}"
    )
