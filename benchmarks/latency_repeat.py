"""How far a latency may be trusted on this machine: the same networks measured again and again.

    python benchmarks/latency_repeat.py --repeats 12 --beside "nothing else" --out benchmarks

Each repeat measures a network, a second copy of it and another network in turns, as `measure.latencies` does. Were
there nothing but noise, the copy's ratio is 1: `holds_one` says whether its interval holds 1. The last line printed has
the spreads (largest over smallest) of the milliseconds and of the ratios over all repeats, and the share of intervals
that hold 1 beside the coverage they state. Eager, one thread, batch 1 at 224 x 224.
`--beside` says in words what else the machine did. Writes `DATE_latency_repeat.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator

from _table import arguments, one_thread_keeping_memory, write

import convsmith as cs

NETWORKS = ("mobilenet_v2_x0_35", "shufflenet_v2_x0_5")


def rows(repeats: int, rounds: int, seconds: float, beside: str) -> Iterator[dict[str, object]]:
    first, other = (cs.create_model(name).eval() for name in NETWORKS)
    for repeat in range(repeats):
        found = cs.measure.latencies(
            {"first": first, "copy": first, "other": other},
            (1, 3, 224, 224),
            rounds=rounds,
            budget_seconds=seconds,
        )
        copy, own = found["copy"].ratio, found["first"]
        assert copy is not None
        assert found["other"].ratio is not None
        yield {
            "beside": beside,
            "repeat": repeat,
            "first_ms": round(own.median_ms, 4),
            "first_interval_ms": f"{own.low_ms:.4f}-{own.high_ms:.4f}",
            "copy_ratio": round(copy.median, 4),
            "copy_interval": f"{copy.low:.4f}-{copy.high:.4f}",
            "holds_one": copy.low <= 1 <= copy.high,
            "coverage": round(copy.coverage, 3),
            "other_ratio": round(found["other"].ratio.median, 4),
            "rounds": own.rounds,
            "others_share": own.conditions.others_share,
            "waited_share": own.conditions.waited_share,
            "warnings": len(own.warnings),
        }


def main() -> None:
    parser = arguments(__doc__, rounds=20, seconds=3.0)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--beside", default="unknown")
    options = parser.parse_args()
    machine = one_thread_keeping_memory()
    made = rows(options.repeats, options.rounds, options.seconds, options.beside)
    done = write(options.out, "latency_repeat", made, machine)
    held = sum(bool(row["holds_one"]) for row in done)
    print(f"{held} of {len(done)} intervals hold 1, stated is {done[0]['coverage']}")
    for name in ("first_ms", "copy_ratio", "other_ratio"):
        values = [float(str(row[name])) for row in done]
        print(f"{name}: largest over smallest {max(values) / min(values):.3f}")


if __name__ == "__main__":
    main()
