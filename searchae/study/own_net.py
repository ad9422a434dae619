"""What lets this process build a study's net, if the net is one's own."""

from __future__ import annotations

import shlex

from searchae.config import NetFactory, allow_factory, factory_here, find_factory
from searchae.errors import SpecError
from searchae.study.attributes import FACTORY
from searchae.study.stored_study import StoredStudy


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
        allow_factory(_found(factory, stored))
    model = stored.spec.fixed["model"] if stored else {}
    if stored and model.get("kind") == "python":
        from searchae.models import allowed_factory  # it loads torch, which many commands need not

        allowed_factory(model["factory"], model["factory_sha256"], known=_known(stored))


def keep_factory(stored: StoredStudy, factory: NetFactory | None) -> None:
    """Keeps where the code of the study's net is, for hints."""
    if factory and factory.text != _known(stored):
        stored.study.set_user_attr(FACTORY, factory.text)


def _known(stored: StoredStudy) -> str:
    return str(stored.study.user_attrs.get(FACTORY, ""))


def _found(factory: str, stored: StoredStudy | None) -> NetFactory:
    """Returns what ``--factory`` names.

    Raises:
        SpecError: There is no such file; the message says where the study's is, if it is known.
    """
    try:
        return find_factory(factory)
    except SpecError as e:
        model = stored.spec.fixed["model"] if stored else {}
        if not stored or model.get("kind") != "python":
            raise
        here = factory_here(model["factory"], model["factory_sha256"], known=_known(stored))
        if not here:
            raise
        raise SpecError(f"{e}; the study's is here: --factory {shlex.quote(here)}") from e
