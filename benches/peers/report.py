"""What a run of run.py means: rates, the table and the verdict on floors and aims."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

GEMM_GFLOP = 2 * 2048**3 / 1e9
TOLERANCE = 2e-4
FLOORS = {"own": 4.2, "shared": 1.0, "vllm": 3.0}
AIMS = {"own": 5.2, "shared": 1.2}
GEMM_AIM = 0.9
AS_SHIPPED = ("gemm-torch", "gemm-numpy")


@dataclass
class Row:
    """What one contestant gave."""

    label: str
    gflop: float  # of one pass
    note: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    logit_difference: float | None = None  # the largest, to transformers
    causal_logit_difference: float | None = None  # the same with a causal mask, which is the wrong one
    cpu_share_while_waiting: float = 0.0  # of a core, at most
    failure: str = ""

    def rate(self) -> float | None:
        """GFLOP/s of the median pass."""
        return self.gflop / median(self.seconds) if self.seconds else None


def difference(ours: list[float], theirs: list[float]) -> float:
    """The largest; infinite where a value is not a number or the counts differ."""
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=False)]
    return max(apart) if len(ours) == len(theirs) and not any(map(math.isnan, apart)) else math.inf


def best_rate(rows: dict[str, Row], names: list[str]) -> float | None:
    return max(filter(None, (rows[name].rate() for name in names if name in rows)), default=None)


def gemms(rows: dict[str, Row]) -> list[str]:
    return [name for name in rows if name.startswith("gemm")]


def times_faster(rows: dict[str, Row], name: str) -> float | None:
    """The median over the rounds of a peer's seconds by sleuth's."""
    if name not in rows or "sleuth" not in rows or name == "sleuth" or name in gemms(rows):
        return None
    ratios = [theirs / ours for theirs, ours in zip(rows[name].seconds, rows["sleuth"].seconds, strict=False)]
    return median(ratios) if ratios else None


def table(rows: dict[str, Row]) -> str:
    best = best_rate(rows, gemms(rows))
    head = ["contestant", "median s", "min s", "GFLOP/s", "of GEMM", "sleuth is", "logits differ", "note"]
    cells = [head, *(line(row, best, times_faster(rows, name)) for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pad = [str.ljust, *[str.rjust] * 6, str.ljust]
    return "\n".join("  ".join(p(c, w) for p, c, w in zip(pad, row, widths, strict=True)).rstrip() for row in cells)


def line(row: Row, best: float | None, faster: float | None) -> list[str]:
    if not row.seconds:
        return [row.label, *["-"] * 6, f"did not run: {row.failure}"]
    apart = row.logit_difference
    return [
        row.label,
        f"{median(row.seconds):.4f}",
        f"{min(row.seconds):.4f}",
        f"{row.rate():.1f}",
        f"{100 * row.rate() / best:.0f} %" if best else "-",
        f"{faster:.2f} x" if faster else "-",
        "-" if apart is None else f"{apart:.1e}",
        f"{row.note}; then failed: {row.failure}" if row.failure else row.note,
    ]


def verdict(rows: dict[str, Row], must_agree: list[str]) -> tuple[list[str], bool]:
    """The lines, and whether all floors hold and the logits agree. What did not run fails nothing, but says so."""
    floors = [
        judged(f"floor: {least} x {rows[n].label}", times_faster(rows, n), least) for n, least in present(rows, FLOORS)
    ]
    aims = [judged(f"aim: {least} x {rows[n].label}", times_faster(rows, n), least) for n, least in present(rows, AIMS)]
    for what, names in (("MKL's and OpenBLAS's", AS_SHIPPED), ("the fastest", gemms(rows))):
        ours, best = best_rate(rows, ["sleuth"]), best_rate(rows, names)
        share = ours / best if ours and best else None
        aims.append(judged(f"aim: {GEMM_AIM} of {what} f32 GEMM rate", share, GEMM_AIM))
    wrong = [
        f"FAIL  logits of {rows[n].label} differ by {rows[n].logit_difference:.1e}, more than {TOLERANCE:g}"
        for n in must_agree
        if n in rows and (rows[n].logit_difference or 0.0) > TOLERANCE
    ]
    return floors + aims + wrong, not wrong and not any(text.startswith("FAIL") for text in floors)


def present(rows: dict[str, Row], limits: dict[str, float]) -> list[tuple[str, float]]:
    return [(name, least) for name, least in limits.items() if name in rows]


def judged(what: str, value: float | None, least: float) -> str:
    if value is None:
        return f"----  {what}: not measured"
    return f"{'PASS' if value >= least else 'FAIL'}  {what}: {value:.2f}"
