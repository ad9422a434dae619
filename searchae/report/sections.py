"""The sections of the report, in the order in which a reader wants them.

A section is a function of the findings; ``SECTIONS`` is the list to add one to. Whatever comes
from outside goes through ``html.escape``.
"""

from __future__ import annotations

import base64
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

from searchae.formatting import format_count, format_duration, format_value
from searchae.report import figures, parameters
from searchae.report.findings import Findings, Run
from searchae.report.markup import NONE, Section, plot, table
from searchae.report.toml import toml

TABLE_ROWS, ERROR_CHARACTERS = 10, 200
ENOUGH_FOR_IMPORTANCES = 50
"""Completed trials from which on the headline speaks of them."""


def headline(found: Findings) -> Section:
    """What was searched, and what came of it."""
    s, c = found.summary, found.summary.counts
    best = found.best[0] if found.best else None
    hosts = {str(r.runtime.get("host")) for r in found.runs if r.runtime}
    workers = {str(r.runtime.get("worker")) for r in found.runs if r.runtime}
    share = f"{s.epochs_saved / s.epochs_full:.0%}" if s.epochs_full else "none yet"
    tiles = [
        ("best PSNR", f"{best.psnr_db:.2f} dB" if best else "none yet", "validation split"),
        (
            "over the baseline",
            f"{_gain(best, found)} dB" if best else "none yet",
            f"mean image: {s.baseline_db:.2f} dB",
        ),
        ("trials", f"{c.finished:,} of {c.budget:,}", _states(found)),
        ("epochs saved", share, f"{s.epochs_run:,} run, {s.epochs_full:,} without pruning"),
        ("wall time", format_duration(s.wall_s), f"{format_duration(_trial_s(found))} in trials"),
        (
            "ran on",
            format_count(len(hosts), "machine"),
            format_count(len(workers), "worker") + " in all",
        ),
    ]
    cells = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}<small>{escape(more)}</small></dd></div>"
        for k, v, more in tiles
    )
    about = found.spec.description
    taken = f"{found.taken_at:%Y-%m-%d %H:%M %Z}"
    body = (
        f'<p class="lead">{escape(about)}</p>\n' if about else ""
    ) + f'<dl class="tiles">{cells}</dl>\n<div class="say">{_sentences(found)}</div>'
    body += "".join(f'<p class="warning">{escape(w)}</p>' for w in s.warnings)
    body += f'<p class="note">As it stood on {escape(taken)}, in {escape(s.storage)}.</p>'
    return Section("result", "", body)


def optimization(found: Findings) -> Section:
    """How the search went."""
    plots = (figures.history_plot(found), figures.curves_plot(found))
    return Section("search", "The search", "".join(map(plot, plots)), plots)


def space(found: Findings) -> Section:
    """What the parameters have to do with it."""
    plots = (parameters.importances_plot(found), parameters.parallel_plot(found))
    slices = parameters.slice_plots(found)
    body = "".join(map(plot, plots))
    if slices:
        body += (
            "<h3>PSNR by the value of each parameter</h3>"
            '<p class="note">Blue: complete. Orange crosses: pruned, at their PSNR when they were '
            "given up. Star: the best trial. Bars: the median of completed trials.</p>"
            f'<div class="grid">{"".join(plot(p, level=4) for p in slices)}</div>'
        )
    return Section("parameters", "The parameters", body, (*plots, *slices))


def best_trials(found: Findings) -> Section:
    """Loss, sparsity, reconstructions and parameters of the best trials."""
    plots = (figures.losses_plot(found), figures.sparsity_plot(found))
    body = f'<div class="grid wide">{"".join(map(plot, plots))}</div>'
    body += "<h3>Originals and reconstructions</h3>" + _pictures(found)
    body += f"<h3>The best {format_count(min(TABLE_ROWS, len(found.best)), 'trial')}</h3>"
    body += _best_table(found)
    return Section("best", "The best trials", body, plots)


def comparison(found: Findings) -> Section:
    """Which choices win, as far as that was looked into."""
    name = found.summary.study
    if found.comparison is None:
        body = (
            "<p>Not looked into yet. The search tried what looked promising more often, each trial "
            "with one seed, so its trials do not answer this. To train the best of each choice "
            f"anew and compare them on the test split:</p><pre>{escape(_command('compare', name))}"
            "</pre>"
        )
        return Section("comparison", "Which choice wins", body)
    verdicts = found.comparison["comparisons"]
    body = "".join(f"<p>{escape(v['sentence'])}.</p>" for v in verdicts)
    body = f'<div class="say">{body}</div>'
    body += "".join(f'<p class="note">{escape(n)}.</p>' for v in verdicts for n in v["notes"])
    head = ("", "PSNR, dB", "SSIM", "MSE", "near zero", "trials")
    for v in verdicts:
        rows = [
            (
                s["name"],
                f"{s['psnr_db']:.2f}",
                f"{s['ssim']:.4f}",
                f"{s['mse']:.6f}",
                f"{s['sparsity']:.1%}",
                ", ".join(map(str, s["trials"])),
            )
            for s in v["sides"]
        ]
        body += f"<h3>{escape(v['parameter'])}</h3>" + table(head, rows, numeric=range(1, 5))
    seeds = ", ".join(map(str, found.comparison["seeds"]))
    body += (
        f'<p class="note">The best trials of each choice, trained anew over the seeds {seeds} and '
        "measured on the test split. The curves and pictures of both sides stand in the page that "
        f"<code>{escape(_command('compare', name))}</code> writes.</p>"
    )
    return Section("comparison", "Which choice wins", body)


def bad_ends(found: Findings) -> Section:
    """Trials that ended badly, by how."""
    bad = [r for r in found.runs if r.row.outcome]
    if not bad:
        return Section(
            "bad-ends", "Bad ends", "<p>No trial diverged, ran out of memory or was lost.</p>"
        )
    counts = Counter(r.row.outcome for r in bad)
    first = {o: next(r for r in bad if r.row.outcome == o) for o in counts}
    rows = [
        (
            o,
            f"{n:,}",
            f"{n / len(found.runs):.0%}",
            str(first[o].row.number),
            _short(first[o].error),
        )
        for o, n in counts.most_common()
    ]
    head = ("how", "trials", "of all", "first", "what was said of the first")
    return Section("bad-ends", "Bad ends", table(head, rows, numeric={1, 2, 3}))


def provenance(found: Findings) -> Section:
    """Data, versions, machines, the spec and the command."""
    parts = found.splits
    shape = parts.get("image_shape", [])
    data = [
        ("source", found.spec.data.name),
        *(
            (name, f"{parts[name]:,} images")
            for name in ("train", "validation", "test")
            if name in parts
        ),
        *([("image", " x ".join(map(str, shape)) + " (channels, height, width)")] if shape else []),
        ("SHA-256 of the splits", found.data_hash),
    ]
    made = ", ".join(f"{k} {v}" for k, v in found.versions.items())
    body = "<h3>Data</h3>" + table((), data, wrap=True)
    body += '<p class="note">The search reads the training and the validation split only.</p>'
    body += f"<h3>Versions</h3><p>{escape(made) or 'not recorded'}</p>"
    body += "<h3>Machines</h3>" + _machines(found)
    body += "<h3>The study file, defaults included</h3>"
    body += f"<details><summary>{escape(found.summary.study)}.toml</summary><pre>"
    body += f"{escape(toml(found.spec.document()))}</pre></details>"
    body += "<h3>To run it again</h3>"
    name = found.summary.study
    body += (
        f"<p>Save the above as <code>studies/{escape(name)}.toml</code>, then:</p>"
        f"<pre>{escape(_command('tune', name))} --trials {found.summary.counts.budget}</pre>"
    )
    return Section("provenance", "Where it comes from", body)


SECTIONS: list[Callable[[Findings], Section | None]] = [
    headline,
    optimization,
    space,
    best_trials,
    comparison,
    bad_ends,
    provenance,
]
"""In order; one that has nothing to say gives None."""


def _sentences(found: Findings) -> str:
    """What was found, and what that does not show."""
    name = found.summary.study
    if not found.best:
        return "<p><b>Found:</b> nothing yet; no trial has trained to its end.</p>"
    best, c = found.best[0], found.summary.counts
    gain = best.psnr_db - found.summary.baseline_db
    chosen = ", ".join(f"{k} <b>{escape(format_value(v))}</b>" for k, v in best.row.params.items())
    text = (
        f"<p><b>Found:</b> trial {best.row.number} reached {best.psnr_db:.2f} dB, "
        f"{abs(gain):.2f} dB {'above' if gain >= 0 else 'below'} answering every image with the "
        f"mean training image{', with ' + chosen if chosen else ''}."
    )
    shares = found.importances.shares
    if shares and found.importances.trials >= ENOUGH_FOR_IMPORTANCES:
        leader = next(iter(shares))
        text += (
            f" What sets the best trials apart most is {escape(leader)} "
            f"({shares[leader]:.0%} of the importance)."
        )
    if c.finished < c.budget:
        text += f" The search is not over: {c.finished:,} of {c.budget:,} trials have ended."
    text += (
        "</p><p><b>Not shown:</b> that it stays the best. Each trial is one seed on the validation "
        f"split, and the best of {len(found.runs):,} such values flatters itself. "
        f"<code>{escape(_command('train', name))} --seeds 5 --out DIR</code> measures it on the "
        f"test split over seeds; <code>{escape(_command('compare', name))}</code> says which "
        "regularizer, activation and optimizer win, with intervals.</p>"
    )
    return text


def _pictures(found: Findings) -> str:
    if not found.pictures:
        return (
            '<p class="note">There are none: pictures of the best trials are drawn by their '
            f"workers into the artifact folder ({escape(found.summary.study)}/pictures), and it "
            "holds none of this study. Say --artifacts if it is elsewhere.</p>"
        )
    psnrs = {r.row.number: r.psnr_db for r in found.best}
    shown = "".join(
        f'<figure class="picture"><div class="scroll"><img alt="Originals above reconstructions of '
        f'trial {number}, {psnrs[number]:.2f} dB" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div></figure>'
        for number, png in found.pictures.items()
    )
    return '<p class="note">Validation images; under each its own PSNR.</p>' + shown


def _best_table(found: Findings) -> str:
    if not found.best:
        return "<p>No trial has trained to its end yet.</p>"
    names = [p.name for p in found.spec.space]
    head = ("trial", "PSNR, dB", "gain", "sparsity", "epochs", "time", *names)
    rows = [_best_row(found, r, names) for r in found.best[:TABLE_ROWS]]
    return table(head, rows, numeric=range(6))


def _best_row(found: Findings, run: Run, names: Sequence[str]) -> tuple[str, ...]:
    row = run.row
    sparse = f"{run.history['sparsity'][-1]:.1%}" if run.history else NONE
    return (
        str(row.number),
        f"{run.psnr_db:.2f}",
        _gain(run, found),
        sparse,
        str(row.epochs),
        NONE if row.seconds is None else format_duration(row.seconds),
        *(format_value(row.params[n]) if n in row.params else NONE for n in names),
    )


def _gain(run: Run, found: Findings) -> str:
    """Over the baseline, in dB; never minus nothing."""
    return f"{round(run.psnr_db - found.summary.baseline_db, 2) + 0.0:+.2f}"


def _machines(found: Findings) -> str:
    """Trials by where they ran last."""
    keys = (
        "host",
        "device",
        "threads",
        "precision",
        "kernels",
        "cpu",
        "python",
        "torch",
        "searchae",
    )
    counts = Counter(
        tuple(str(r.runtime.get(k, NONE)) for k in keys) for r in found.runs if r.runtime
    )
    if not counts:
        return "<p>Not recorded.</p>"
    rows = [(*place, f"{n:,}") for place, n in counts.most_common()]
    return table((*keys, "trials"), rows, numeric={2, 9})


def _states(found: Findings) -> str:
    c = found.summary.counts
    parts = [f"{c.complete:,} complete", f"{c.pruned:,} pruned"]
    parts += [
        f"{n:,} {word}"
        for n, word in ((c.failed, "failed"), (c.running, "running"), (c.waiting, "waiting"))
        if n
    ]
    return ", ".join(parts)


def _trial_s(found: Findings) -> float:
    return sum(r.row.seconds or 0.0 for r in found.runs)


def _command(command: str, study: str) -> str:
    return f"searchae {command} --study {shlex.quote(study)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ERROR_CHARACTERS else line[: ERROR_CHARACTERS - 1] + "…"
