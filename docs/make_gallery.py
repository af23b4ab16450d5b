"""Write docs/gallery.md and its pictures from the zoo: `make gallery`.

A test holds the committed page against what this makes, so the page never tells what the code does not.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from itertools import groupby
from pathlib import Path

from convsmith import zoo
from convsmith.arch import Architecture, write_whole
from convsmith.report import architecture_rows, architecture_svg
from convsmith.zoo.registry import FAMILIES

HEAD = """# Gallery

Every network of the zoo, made by `make gallery` from the zoo itself. MACs are multiply-accumulates of one image of the
stated side; "counted by" says whose figures they are: a library's network, recounted (built of its parts where it has
none of that size), or the paper's or its authors' code's (`rebuilt`: counted on a network that follows the paper where
it gives rounded figures or none; `interpretation`: nobody's but ours). `convsmith show NAME` prints the whole table of
a network, block by block.

"""


def pages() -> dict[str, str]:
    """The files, by their path below docs/."""
    found = {"gallery.md": HEAD + contents() + "".join(section(family) for family in FAMILIES)}
    for family in FAMILIES:
        architecture, shape = first(family)
        found[f"gallery/{family}.svg"] = architecture_svg(architecture, shape) + "\n"
    return found


def contents() -> str:
    """The networks by topic of the lecture."""
    topics: dict[str, list[str]] = {}
    for family in FAMILIES:
        topics.setdefault(import_module(f"convsmith.zoo.{family}").ABOUT.topic, []).append(f"[{family}](#{family})")
    return "".join(f"- {topic}: {', '.join(links)}\n" for topic, links in topics.items()) + "\n"


def first(family: str) -> tuple[Architecture, tuple[int, int, int]]:
    """The family's first network, which its picture and its table show, and its input."""
    variant = members(family)[0]
    return zoo.get(variant.name), (3, variant.input_size, variant.input_size)


def members(family: str) -> list[zoo.Variant]:
    """The variants of a family."""
    return [zoo.variants()[name] for name, of in zoo.families().items() if of == family]


def section(family: str) -> str:
    """One family: citation, what the lecture says, picture, the first network's table, all variants."""
    module = import_module(f"convsmith.zoo.{family}")
    citation, _, notes = (inspect.getdoc(module) or "").partition("\n\n")
    architecture, shape = first(family)
    about = module.ABOUT
    lecture = f"Row {about.row} of [the lecture](lecture.md): {about.topic}. {about.use}".rstrip()
    return (
        f"## {family}\n\n{citation} ({about.year})\n\n{lecture}\n\n"
        + (f"{notes}\n\n" if notes else "")
        + f"![{architecture.name}](gallery/{family}.svg)\n\n"
        + table(architecture, shape)
        + "\n| network | params | MACs | side | counted by |\n|---|--:|--:|--:|---|\n"
        + "".join(
            f"| `{v.name}` | {v.params:,} | {v.macs:,} | {v.input_size} | {v.source} |\n" for v in members(family)
        )
        + "\n"
    )


def table(architecture: Architecture, shape: tuple[int, int, int]) -> str:
    """The blocks of an architecture, runs of equal ones on one line."""
    lines = [f"| `{architecture.name}` | block | n | output | params | MACs |\n|---|---|--:|---|--:|--:|\n"]
    rows = architecture_rows(architecture, shape)
    for (stage, block, words, size), run in groupby(rows, key=lambda r: (r.stage, r.block, r.words, r.output_size)):
        same = list(run)
        call = f"`{block}({words})`" if len(words) < 260 else f"`{block}`"
        figures = f"{sum(r.params for r in same):,} | {sum(r.macs for r in same):,}"
        lines.append(f"| {stage} | {call} | {len(same)} | {size} | {figures} |\n")
    return "".join(lines)


def main() -> None:
    """Write the files whose content has changed."""
    folder = Path(__file__).parent
    for path, text in pages().items():
        (folder / path).parent.mkdir(exist_ok=True)
        if not (folder / path).exists() or (folder / path).read_text() != text:
            write_whole(folder / path, text)
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
