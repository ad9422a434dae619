"""How fast searchae is: the whole table, on any machine, as Markdown.

    python -m benchmarks.speed                    # every part
    python -m benchmarks.speed training search    # these
    python -m benchmarks.speed --quick --rounds 1 # does all of it run?

Each side runs in processes of its own; sides take turns, and the tables show medians over the
rounds with the least and the most. Ratios are taken round by round. What a part measures, and
how, stands above its table.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from benchmarks import speed_search, speed_training, speed_worker
from benchmarks.speed_base import Options, cores

TABLE = Path(__file__).with_name("speed.md")


def main() -> None:
    """Runs the parts that are asked for, and prints their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--work", type=Path, default=Path("artifacts/speed"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--epochs", type=int, default=6, help="the most of a trial in search")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=speed_search.SIDES[1:],
        help="a side that search leaves out; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: figures mean nothing")
    parser.add_argument("--append", action="store_true", help=f"add the tables to {TABLE.name}")
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown or given.rounds < 1:
        parser.error(f"no such part: {', '.join(unknown)}" if unknown else "--rounds: at least 1")
    options = Options(
        data_dir=given.data_dir,
        work=given.work,
        rounds=given.rounds,
        device=given.device,
        quick=given.quick,
        epochs=given.epochs,
        without=given.without,
    )
    options.work.mkdir(parents=True, exist_ok=True)
    texts = [f"## {date.today().isoformat()}, {machine(options)}\n"]
    print(texts[0], flush=True)
    for name in given.parts or PARTS:
        started = time.perf_counter()
        text = PARTS[name](options)
        minutes = (time.perf_counter() - started) / 60
        texts.append(f"### {name}\n\n{text}\n\n({minutes:.1f} minutes)\n")
        print(texts[-1], flush=True)
    if given.append:
        with TABLE.open("a") as file:
            file.write("\n" + "\n".join(texts))


def machine(options: Options) -> str:
    """What it runs on, in words."""
    import torch

    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    about = {key.strip(): value.strip() for key, _, value in lines}
    units = [u for u in ("avx2", "avx512f", "amx_bf16") if u in about.get("flags", "").split()]
    parts = [
        f"{cores()} cores of {about.get('model name', platform.machine())} ({', '.join(units)})",
        *([torch.cuda.get_device_name()] if options.device == "cuda" else []),
        f"torch {torch.__version__}",
        f"load {os.getloadavg()[0]:.1f} at the start",
        f"{options.rounds} rounds",
        *(["quick: the figures mean nothing"] if options.quick else []),
    ]
    return ", ".join(parts)


PARTS: dict[str, Callable[[Options], str]] = {
    "training": speed_training.training,
    "quality": speed_training.quality,
    "search": speed_search.search,
    "overhead": speed_worker.overhead,
    "limit": speed_training.limit,
    "memory": speed_training.memory,
    "growth": speed_training.growth,
    "profile": speed_worker.profile,
}


if __name__ == "__main__":
    main()
