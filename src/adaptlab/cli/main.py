"""The command ``adaptlab``: one verb a file; errors become one clear message and an exit code.

Exit codes: 0 all went well, 1 some run failed (or adaptlab has a bug), 2 wrong usage or configuration, 130 interrupted.
Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from adaptlab.cli import (
    choose,
    compare,
    demo,
    evaluate,
    export,
    listing,
    plan,
    predict,
    report,
    run_one,
    train,
    validate,
    watch,
)
from adaptlab.errors import AdaptlabError, ConfigError, InterruptedRunError

_INTERRUPTED = InterruptedRunError.exit_code

app = typer.Typer(
    name="adaptlab",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find out, honestly and fast, which way of adapting a language model suits your task and your budget.",
    epilog="Begin with: adaptlab demo",
)
app.command()(demo.demo)
app.command()(plan.plan)
app.command()(compare.compare)
app.command()(choose.choose)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(report.report)
app.command()(watch.watch)
app.command()(validate.validate)
app.command("run-one", hidden=True)(run_one.run_one)
app.add_typer(listing.app, name="list")


def _print_version(wanted: bool) -> None:
    if wanted:
        from adaptlab import __version__

        print(f"adaptlab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _as_interrupt)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # libraries' bars would tear ours apart
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(given: list[str]) -> int:
    try:
        app(given, prog_name="adaptlab")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return _interrupted() if code == _INTERRUPTED else code
    except InterruptedRunError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except AdaptlabError as error:
        if _debugging(given):
            _print_traceback()
        _print_error(error, as_json="--json" in given)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        raise
    except Exception as error:
        if _debugging(given):
            _print_traceback()
        hint = "" if _debugging(given) else " Give --log-level debug to see where, and please report it."
        print(f"Unexpected {type(error).__name__}: {error}.{hint}", file=sys.stderr)
        return 1
    return 0


def _interrupted() -> int:
    print("Interrupted: what was written is valid; give the same command again to go on.", file=sys.stderr)
    return _INTERRUPTED


def _print_error(error: AdaptlabError, *, as_json: bool) -> None:
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    if as_json:
        print(json.dumps({"error": {"type": type(error).__name__, "problems": problems}}, ensure_ascii=False))
    for problem in problems:
        print(f"Error: {problem}" if len(problems) == 1 else problem, file=sys.stderr)
    if len(problems) > 1:
        print(f"{len(problems)} errors.", file=sys.stderr)


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _debugging(given: Sequence[str]) -> bool:
    return "--log-level=debug" in given or any(pair == ("--log-level", "debug") for pair in itertools.pairwise(given))


def _as_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
