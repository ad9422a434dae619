"""Formats numbers and parameters for the user."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_HIDDEN = re.compile(
    # Control characters but tab and newline, those that turn the direction of a text, line
    # separators, and bytes of a file's name that are no UTF-8.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Returns a text with escapes, such as ``\x1b``, for characters that act on a terminal."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Returns a text on one line: as ``printable``, and with ``\n`` and ``\t`` as escapes too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str, length: int) -> str:
    """Returns a text on one line, with an ellipsis at its end where it has more characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def html_text(text: str) -> str:
    """Returns a text for HTML's elements and attributes, on one line."""
    return html.escape(one_line(text))


def format_duration(seconds: float) -> str:
    """Returns a duration as ``3.1 s``, ``12 min 34 s`` or ``25 h 01 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_value(v: Any) -> str:
    """Returns a parameter's value on one line, floats with three significant digits."""
    return f"{v:.3g}" if isinstance(v, float) else one_line(str(v))


def format_assignments(params: Mapping[str, Any]) -> str:
    """Returns parameters as ``activation=relu learning_rate=0.00123``."""
    return " ".join(f"{one_line(name)}={format_value(v)}" for name, v in params.items())


def shown_difference(psnr_db: float, other_db: float) -> float:
    """Returns a PSNR minus another one, in dB, as they are shown: with two decimals each.

    Else a reader who subtracts the two numbers may find another one in the last place.
    """
    return round(round(psnr_db, 2) - round(other_db, 2), 2) + 0.0  # never -0.0


def format_gain(psnr_db: float, baseline_db: float) -> str:
    """Returns how far a PSNR is from the baseline's: ``10.34 dB above the baseline``."""
    gain_db = shown_difference(psnr_db, baseline_db)
    return f"{abs(gain_db):.2f} dB {'above' if gain_db >= 0 else 'below'} the baseline"


def format_shares(shares: Sequence[float]) -> list[str]:
    """Returns shares, which add up to 1, as percentages without decimals that add up to 100%."""
    percents = [100 * share for share in shares]
    whole = [math.floor(percent) for percent in percents]
    missing = round(math.fsum(percents)) - sum(whole)
    by_rest = sorted(range(len(whole)), key=lambda i: whole[i] - percents[i])
    for i in by_rest[:missing]:
        whole[i] += 1
    return [f"{percent}%" for percent in whole]


def format_list(texts: Sequence[str]) -> str:
    """Returns one or more texts as a list: ``a, b and c``."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]


def format_count(number: float, noun: str) -> str:
    """Returns a number with its noun: ``1 worker``, ``2 workers``, ``0.125 epochs``."""
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def format_number(number: float) -> str:
    """Returns a number with commas, and up to three decimals where it is not whole."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.3f}".rstrip("0")
