"""What lets this process build a study's net, if the net is one's own."""

from __future__ import annotations

from searchae.config import allow_factory, find_factory
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
        allow_factory(find_factory(factory))
    model = stored.spec.fixed["model"] if stored else {}
    if model.get("kind") == "python":
        from searchae.models import allowed_factory  # it loads torch, which many commands need not

        allowed_factory(model["factory"], model["factory_sha256"])
