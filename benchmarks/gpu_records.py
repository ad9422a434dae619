"""What ``benchmarks.gpu`` has measured: lines of JSON, and the tables that are made of them.

A record is one case of one part, measured once::

    {"part": "steps", "case": "dense/recorded fp32", "figures": {...}, "machine": {...}, ...}

or, instead of its figures, the error that it ended with. A case that ended with an error is
measured again by the next call, and so is one whose figures say that something is ``left``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_plan import LIMITS_S, SIDES
from benchmarks.speed_base import table

Record = dict[str, Any]
Rows = list[dict[str, str]]
NONE = ""


def read_records(path: Path) -> list[Record]:
    """Returns the records of a file; a line that was cut off is left out.

    Raises:
        OSError: The file cannot be read.
    """
    found = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the process was killed while it wrote this
            continue
        if isinstance(record, dict) and {"part", "case"} <= record.keys():
            found.append(record)
    return found


def append_record(path: Path, record: Record) -> None:
    """Appends a record to a file, on a line of its own whatever stands there."""
    with path.open("a+b") as file:
        file.seek(0, 2)
        torn = file.tell() > 0 and (file.seek(-1, 2), file.read(1))[1] != b"\n"
        file.write(b"\n" * torn + json.dumps(record).encode() + b"\n")


def finished_cases(records: Iterable[Record], part: str) -> set[str]:
    """Returns the cases of a part that need not be measured again."""
    return {
        case
        for (own, case), record in _latest(records).items()
        if own == part and "figures" in record and not record["figures"].get("left")
    }


def markdown(records: Sequence[Record]) -> str:
    """Returns a table for each part that was measured, and the machines that did it."""
    latest = _latest(records)
    texts = [f"Measured on {'; '.join(_machines(latest.values()))}."] if latest else []
    for part in LIMITS_S:
        figures = {case: r["figures"] for (p, case), r in latest.items() if p == part and _ok(r)}
        failed = {case: r["error"] for (p, case), r in latest.items() if p == part and not _ok(r)}
        if not figures and not failed:
            continue
        texts.append(f"### {part}")
        if figures:
            rows = _ROWS[part](figures, latest) if part == "steps" else _ROWS[part](figures)
            texts.append(table(rows))
        texts += [f"- {case}: failed: {_line(error)}" for case, error in failed.items()]
    return "\n\n".join(texts) + "\n"


def _ok(record: Record) -> bool:
    return "figures" in record


def _latest(records: Iterable[Record]) -> dict[tuple[str, str], Record]:
    """The last record of each case; figures outlast a later error."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        key = record["part"], record["case"]
        if _ok(record) or not _ok(found.get(key, {})):
            found[key] = record
    return found


def _machines(records: Iterable[Record]) -> list[str]:
    names: dict[str, None] = {}
    for record in records:
        about = record.get("machine", {})
        text = ", ".join(str(v) for v in about.values() if v)
        if record.get("commit"):
            text += f", at {record['commit']}"
        names[text + (" (quick: the figures mean nothing)" if record.get("quick") else "")] = None
    return list(names)


def _line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:200]


def _number(value: Any, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else NONE


def _share(value: float | None, limit: float | None) -> str:
    return f"{100 * value / limit:.1f} %" if value and limit else NONE


# -- rows of each part

Figures = Mapping[str, Mapping[str, Any]]


def _test_rows(figures: Figures) -> Rows:
    return [
        {
            "file": case,
            **{k: str(about.get(k, 0)) for k in ("passed", "failed", "skipped")},
            "seconds": _number(about.get("seconds")),
            "which failed": "; ".join(about.get("failures", [])),
        }
        for case, about in figures.items()
    ]


def _limit_rows(figures: Figures) -> Rows:
    return [
        {
            "bare": case,
            "rate": f"{_number(about.get('rate'), 1)} {'GB/s' if case == 'copy' else 'TFLOP/s'}",
        }
        for case, about in figures.items()
    ]


def _step_rows(figures: Figures, latest: Mapping[tuple[str, str], Record]) -> Rows:
    """One row a side: its shares are those of the measured copy and matrix product."""
    limits = {
        c: r["figures"].get("rate") for (p, c), r in latest.items() if p == "limits" and _ok(r)
    }
    rows = []
    for net in dict.fromkeys(case.partition("/")[0] for case in figures):
        base = figures.get(f"{net}/DataLoader", {}).get("images_per_s")
        for side in SIDES:
            about = figures.get(f"{net}/{side}")
            if about is None:
                continue
            rate = about.get("images_per_s")
            kind = "bf16" if "bf16" in side else "tf32"
            tera = rate and rate * about.get("flop", 0) / 1e12
            giga = rate and rate * about.get("bytes", 0) / 1e9
            rows.append(
                {
                    "net": net,
                    "side": side,
                    "batch": _number(about.get("batch")),
                    "images/s": _number(rate),
                    "ms a step": _number(about.get("ms_a_step"), 3),
                    "times DataLoader": _number(rate / base, 1) if rate and base else NONE,
                    "first epoch, extra s": _number(about.get("first_s"), 2),
                    "of copy": _share(giga, limits.get("copy")),
                    "of matmul (TF32, bf16)": _share(tera, limits.get(f"matmul {kind}")),
                    "MiB": _number(about.get("mib")),
                    "note": str(about.get("note", NONE)),
                }
            )
    return rows


def _pivoted(figures: Figures, key: str, *, first: str, unit: str) -> Rows:
    """Rows of the cases' first names, columns of their last; each cell is the figure ``key``."""
    names = dict.fromkeys(case.rpartition("/")[0] for case in figures)
    heads = sorted({case.rpartition("/")[2] for case in figures}, key=int)
    rows = []
    for name in names:
        row = {first: name}
        for head in heads:
            about = figures.get(f"{name}/{head}", {})
            row[f"{int(head):,} {unit}"] = str(about.get("note") or _number(about.get(key)))
        rows.append(row)
    return rows


def _evaluation_rows(figures: Figures) -> Rows:
    rows = _pivoted(figures, "images_per_s", first="net, images/s", unit="at a time")
    for row in rows:
        net = row["net, images/s"]
        own = [about for case, about in figures.items() if case.startswith(f"{net}/")]
        most = max((abs(a.get("difference_db", 0.0)) for a in own), default=0.0)
        row["largest difference of the PSNR"] = f"{most:.1e} dB"
    return rows


def _worker_rows(figures: Figures) -> Rows:
    return _pivoted(figures, "images_per_s", first="largest net, images/s together", unit="at once")


def _search_rows(figures: Figures) -> Rows:
    return [
        {
            "search": case,
            "trials": f"{about.get('ended', 0)} of {about.get('trials', 0)}",
            "workers": str(about.get("workers", NONE)),
            "epochs run": _number(about.get("epochs")),
            "without pruning": _number(about.get("epochs_full")),
            "images/s, all in all": _number(about.get("images_per_s")),
            "best, dB": _number(about.get("best_db"), 2),
            "seconds": _number(about.get("seconds")),
        }
        for case, about in figures.items()
    ]


_ROWS: dict[str, Any] = {
    "tests": _test_rows,
    "limits": _limit_rows,
    "steps": _step_rows,
    "evaluation": _evaluation_rows,
    "workers": _worker_rows,
    "search": _search_rows,
}
