"""Write results.json, and the same results as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dolglab.io import write_text

# Figures that are lists are only in results.json.
LONG = ("losses", "cpu_losses")


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder / "results.md", as_markdown(results))


def as_markdown(results: Mapping[str, Any]) -> str:
    """The machine, a line per step, then each step's figures."""
    machine = results["machine"]
    card = machine.get("card") or ("no GPU: the CPU" if results["options"]["device"] == "cpu" else "no GPU")
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if name != "card" and value is not None)
    lines = [f"**{card}** ({facts}); commit {results['commit'] or 'unknown'}; {results['seconds']:.0f} s."]
    if results["options"]["quick"]:
        lines.append("A small network and small sizes (--quick): do not quote these figures.")
    steps = results["steps"]
    overview = [
        {"step": name, "question": step["question"], "result": outcome(step), "s": step["seconds"]}
        for name, step in steps.items()
    ]
    parts = ["\n".join(lines), table(overview)]
    for name, step in steps.items():
        if not step["rows"]:
            continue
        said = [f"{key.replace('_', ' ')}: {value}" for key, value in step["facts"].items()]
        said += [f"left out: {'; '.join(step['left_out'])}"] if step["left_out"] else []
        rows = [{key: value for key, value in row.items() if key not in LONG} for row in step["rows"]]
        parts.append(
            "\n\n".join(
                filter(None, [f"### {name}", ". ".join(said), table(speeds(rows) if name == "speed" else rows)])
            )
        )
    unchecked = [f"{part} ({package} is not installed)" for package, part in results["missing"].items()]
    parts.append("Not checked: " + "; ".join([*results["not_checked"], *unchecked]) + ".")
    return "\n\n".join(parts) + "\n"


def outcome(step: Mapping[str, Any]) -> str:
    """Its status, and why."""
    return f"{step['status']}: {step['reason']}" if step["reason"] else step["status"]


def speeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of training speeds with the batch sizes side by side: images per second, GB reserved by torch."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        settings = {key: row[key] for key in ("network", "precision", "side", "cudnn_benchmark")}
        line = found.setdefault(tuple(settings.values()), settings)
        memory = f", {row['reserved_gb']:.1f} GB" if "reserved_gb" in row else ""
        fits = "images_a_second" in row
        line[f"batch {row['batch']}"] = f"{row['images_a_second']:,.0f}/s{memory}" if fits else "out of memory"
    return list(found.values())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows below the names of all figures."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[name.replace("_", " ") for name in names], *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def cell(value: Any) -> str:
    """A figure as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e-2 and value else f"{value:,.8g}"
    return str(value).replace("|", "/").replace("\n", " ")
