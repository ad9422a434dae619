"""The options of a command as they were typed, for the command that it proposes."""

from __future__ import annotations

from collections.abc import Collection

import typer

WHERE = ("device", "launcher", "ray_address", "slurm", "hosts", "tunnel", "skip_unfit")
"""Options that say where trials are trained, which all commands that train have."""
SECRET = ("notify",)
"""Options whose values may hold a secret, which are not shown again."""
_MASKED = ("storage",)


def typed_options(
    context: typer.Context, *, only: Collection[str] = (), without: Collection[str] = ()
) -> list[str]:
    """Returns the options of a command that were typed, as words of a command line.

    Options that come from the environment or are defaults are left out: they hold for the next
    command as well.

    Args:
        context: The command's.
        only: Parameters of the command that are wanted; all if empty.
        without: Parameters that are not.
    """
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        is_wanted = (not only or name in only) and name not in (*without, *SECRET)
        if not is_wanted or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        option = parameter.opts[0]
        if isinstance(value, bool):
            words.append(option if value else parameter.secondary_opts[0])
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            words += (option, _text(name, each))
    return words


def _text(name: str, value: object) -> str:
    if name in _MASKED:
        from searchae.storage import masked_url

        return masked_url(str(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
