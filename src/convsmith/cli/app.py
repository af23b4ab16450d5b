"""The application that the commands register with."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="convsmith",
    help="Design, measure, search, train and ship convolutional networks for a given device.",
    epilog="Exit codes: 0 done, 2 wrong usage or input, 1 a failure at run time, 130 Ctrl-C; runs can be resumed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
