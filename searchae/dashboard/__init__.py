"""Optuna's dashboard, served behind a login, read-only unless allowed, quick at 10,000 trials."""

from searchae.dashboard.logins import Logins, hashed_line
from searchae.dashboard.server import ServerOptions, check, serve

__all__ = [
    "Logins",
    "ServerOptions",
    "check",
    "hashed_line",
    "serve",
]
