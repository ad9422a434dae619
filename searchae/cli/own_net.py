"""The option that names the code of a net of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from searchae.config import FACTORY_VARIABLE, allow_factory, find_factory

if TYPE_CHECKING:
    from searchae.study import StoredStudy

FactoryOption = Annotated[
    str,
    typer.Option(
        metavar="FILE.py:NAME",
        envvar=FACTORY_VARIABLE,
        help="For a net of your own: its code, which is never taken from the study.",
        show_default=False,
    ),
]


def allow_net(factory: str, stored: StoredStudy | None = None) -> None:
    """Lets this process and its workers run what ``--factory`` names.

    Args:
        factory: The option; empty if it was not given.
        stored: The study, if it must be what builds its net.

    Raises:
        SpecError: There is no such file.
        ModelError: The study's net is built by something else.
    """
    if factory:
        allow_factory(find_factory(factory))
    model = stored.spec.fixed["model"] if stored else {}
    if model.get("kind") == "python":
        from searchae.models import allowed_factory

        allowed_factory(model["factory"], model["factory_sha256"])
