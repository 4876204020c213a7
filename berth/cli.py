"""The `berth` command: finds its subcommands lazily and turns a person's mistake into one line and exit code 2."""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from sizing.errors import UserError, unknown

COMMANDS: tuple[str, ...] = (
    "assess",
    "models",
    "memory",
    "size",
    "data",
    "finetune",
    "evaluate",
    "new",
    "settings",
    "bundle",
    "serve",
    "verify",
    "review",
    "report",
    "metrics",
    "feedback",
    "deploy",
    "preview",
    "up",
    "train",
    "fetch",
    "status",
    "extend",
    "down",
    "sandbox",
    "doctor",
    "catalog",
    "schema",
)
"""In the order in which a person needs them. Each is a module of `berth.commands` with `app`, a `typer.Typer`."""

INTERRUPTED = 130
_UsageError: Any = typer.BadParameter.__base__  # typer carries click inside and exports only its leaves


class LazyGroup(TyperGroup):
    """Imports a command's module when it is asked for, so that `berth models` never pays for `berth size`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (the signature is the base class's)
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"berth.commands.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base class; a name that is no command is answered with those that come near."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS, "`berth --help` lists them")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands with their help whole; the base class cuts it to fit a line."""
        helps = [(name, self.get_command(ctx, name).help or "") for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(text.split("\n\n")[0].split())) for name, text in helps])


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From 'can an open language model do this job?' to a priced, verified, running service on AWS, and back.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"berth {version('berth')}")
        raise typer.Exit


@app.callback()
def berth(
    version: bool = typer.Option(
        False, "--version", help="Print Berth's version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 done, 1 the reader of the output went away, 2 the person's mistake (one line on stderr),
    130 interrupted.
    """
    command: Any = typer.main.get_command(app)
    try:
        code = command(args=arguments, prog_name="berth", standalone_mode=False)
    except UserError as error:
        typer.echo(f"berth: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(2)
    except OSError as error:  # a disk that is full, a folder that is missing or closed: the person's to mend
        if error.filename is None and error.errno not in _DISK:
            raise
        place = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"berth: {place}{error.strerror}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except _UsageError as error:
        if "NoArgs" in type(error).__name__:
            error.show()
        else:
            where = error.ctx.command_path if error.ctx else "berth"
            message = " ".join(error.format_message().split()).rstrip(".")
            typer.echo(f"{where}: {message}; see {where} --help", err=True)
        sys.exit(2)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code, silently
        typer.echo("berth: interrupted", err=True)
    sys.exit(code if isinstance(code, int) else 0)
