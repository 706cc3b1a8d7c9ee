"""As check_merge.py, of Mllama, by transformers 4.54.1: the merged folder loads without a missing or an unexpected
tensor, gives the states of the base with the adapter's deltas times τ, and writes on by itself.

    .venv-mllama/bin/python check_merge_mllama.py --sleuth ../../target/debug/sleuth
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from mllama_cases import CASES, Case, inputs_of
from mllama_generation import NOTHING, greedy
from mllama_reference import read_base, read_model, scale_lora, states

ROOT = Path(__file__).resolve().parent / "mllama"
# Merged weights are rounded to their stored type once.
TAUS = {0.0: 0.0, 0.5: 3e-2, 1.0: 3e-2}


def check(sleuth: Path, case: Case, tau: float, tolerance: float, scratch: Path) -> None:
    folder, out = ROOT / case.name, scratch / f"{case.name}-{tau}"
    subprocess.run(
        [sleuth, "merge", "--tau", str(tau), "--model", folder, "--out", out], check=True, stdout=subprocess.DEVNULL
    )
    merged, base = read_base(out), read_base(folder)  # which ask for every tensor, and for no other
    x = inputs_of(case)
    ids = x.responses[0]
    model, adapter = read_model(folder)
    scale_lora(adapter, tau)
    ours, plain = states(merged, x, ids).final, states(base, x, ids).final
    want = plain if tau == 0.0 else states(model, x, ids).final
    if tau == 0.0 and greedy(merged, x, NOTHING) != greedy(base, x, NOTHING):
        raise SystemExit(f"{case.name}: tau 0 writes something else")
    off, moved = (ours - want).abs().max().item(), (plain - want).abs().max().item()
    print(f"{case.name:20} tau {tau:4}  off by {off:.2e}, the adapter moves states by {moved:.2e}")
    if off > tolerance or (tau > 0 and moved < 5 * off):
        raise SystemExit(f"{case.name}: off by {off}, more than {tolerance}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleuth", type=Path, default=ROOT.parent / "../../target/release/sleuth")
    sleuth = parser.parse_args().sleuth.resolve()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for case in (case for case in CASES if case.adapter is not None):
            for tau, tolerance in TAUS.items():
                check(sleuth, case, tau, tolerance, Path(scratch))
    print("all hold")


if __name__ == "__main__":
    main()
