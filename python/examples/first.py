"""Scores two responses to the repository's picture.

    python examples/first.py [http://127.0.0.1:50051]

`sleuth serve` runs beside it.
"""

import sys
from pathlib import Path

import sleuth

PICTURE = Path(__file__).parent / "../../docs/scene.png"
RESPONSES = ["The large heart is white.", "The large heart is red."]


def main(url: str) -> None:
    with sleuth.Client(url) as client:
        for response in RESPONSES:
            verdict = client.score(PICTURE, response)
            told = f"{response:26} "
            if not verdict.valid:
                print(f"{told}no reward: {verdict.refusal}")
                continue
            told += f"reward {verdict.reward:.3f}"
            words = [response.encode()[span.start : span.end].decode() for span in verdict.flagged]
            print(told + (f", not grounded: {', '.join(map(repr, words))}" if words else ""))


if __name__ == "__main__":
    main(*sys.argv[1:] or ["http://127.0.0.1:50051"])
