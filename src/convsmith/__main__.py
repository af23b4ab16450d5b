"""`python -m convsmith` is the command `convsmith`."""

from convsmith.cli import main

if __name__ == "__main__":
    main()
