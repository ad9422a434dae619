"""Optuna's dashboard with logins and a read-only mode, fast enough for 10,000 trials."""

from searchae.dashboard.logins import Logins, login_line
from searchae.dashboard.server import ServerOptions, check_server_options, serve_dashboard

__all__ = [
    "Logins",
    "ServerOptions",
    "check_server_options",
    "login_line",
    "serve_dashboard",
]
