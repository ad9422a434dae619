"""The options of a command as they were typed, for the command that it proposes."""

from __future__ import annotations

from collections.abc import Collection

import typer

from searchae.errors import StorageError

WHERE = ("device", "launcher", "ray_address", "slurm", "hosts", "tunnel", "skip_unfit")
"""Options that say where trials are trained, which all commands that train have."""
SECRET = ("notify",)
"""Options whose values may hold a secret, which are not shown again."""
MASK = "***"
"""What stands for a password in a URL that is shown."""


def typed_options(
    context: typer.Context, *, only: Collection[str] = (), without: Collection[str] = ()
) -> list[str]:
    """Returns the options of a command that were typed, as words of a command line.

    Options that come from the environment or are defaults are left out: they hold for the next
    command as well. So is a storage with a password, which is not shown again.

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
        if name == "storage" and has_password(str(value)):
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            words += (option, f"{each:g}" if isinstance(each, float) else str(each))
    return words


def has_password(storage: str) -> bool:
    """Tells whether the value of ``--storage`` holds a password, which is not shown again."""
    from searchae.storage import masked_url

    try:
        return MASK in masked_url(storage)
    except StorageError:
        return False  # a server of the user's own, which has a name instead of a URL
