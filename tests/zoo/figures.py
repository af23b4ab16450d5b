"""Recount the reference figures of the zoo and print where a file states others; `make figures` runs it."""

import sys

import convsmith as cs


def main() -> int:
    wrong = 0
    for name, variant in cs.zoo.variants().items():
        cost = cs.measure.cost(cs.zoo.get(name), (1, 3, variant.input_size, variant.input_size))
        for figure in ("params", "macs"):
            stated, counted = getattr(variant, figure), getattr(cost, figure)
            if stated != counted:
                wrong += 1
                print(f"{cs.zoo.families()[name]}.py: {name} states {stated:_} {figure}, a recount gives {counted:_}")
    print(f"{len(cs.zoo.variants())} variants recounted, {wrong} figures differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
