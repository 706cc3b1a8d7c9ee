"""Replicas for a training step: what a step of N groups takes, by the cost model and the simulator.

    python benches/sizing.py target/release/sleuth --groups 512 --seconds 5

The work is counted as the engine counts it (`sleuth_models::paligemma::pass_cost`): every prefix
once, of its last layer keys and values only, every response token over all it sees. A device is
described by what it sustains; the default is a stand-in of a card with 400 TFLOP/s in bf16 products
that reaches 40 %. Measure your own: `sleuth bench --mixed 200`, or /replicas of a running router.
"""

import argparse
import json
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """Shapes of PaliGemma-3B at 448 pixels; `--config` reads another one's config.json."""

    image_tokens: int = 1024
    vision_hidden: int = 1152
    vision_wide: int = 4304
    vision_layers: int = 27
    patch: int = 14
    hidden: int = 2048
    wide: int = 16384
    layers: int = 18
    heads: int = 8
    kv_heads: int = 1
    head_dim: int = 256

    @classmethod
    def read(cls, path: Path) -> "Model":
        config = json.loads(path.read_text())
        v, t = config["vision_config"], config["text_config"]
        patch = v.get("patch_size", 14)
        return cls(
            image_tokens=(v.get("image_size", 224) // patch) ** 2,
            vision_hidden=v["hidden_size"],
            vision_wide=v["intermediate_size"],
            vision_layers=v["num_hidden_layers"],
            patch=patch,
            hidden=t["hidden_size"],
            wide=t["intermediate_size"],
            layers=t["num_hidden_layers"],
            heads=t["num_attention_heads"],
            kv_heads=t["num_key_value_heads"],
            head_dim=t.get("head_dim", 256),
        )

    def image_flop(self) -> float:
        patches, hidden = self.image_tokens, self.vision_hidden
        layer = 4 * hidden * hidden + 2 * hidden * self.vision_wide + 2 * patches * hidden
        embed = 3 * self.patch**2 * hidden
        return 2.0 * patches * (self.vision_layers * layer + embed)

    def prefix_flop(self, prompt: int) -> float:
        rows, depth = self.image_tokens + prompt, self.layers
        project = self.image_tokens * self.vision_hidden * self.hidden
        linear = project + rows * (depth * self._key_value() + (depth - 1) * self._rest())
        return 2.0 * (linear + (depth - 1) * 2 * rows * rows * self._query())

    def token_flop(self, prompt: int, tokens: int) -> float:
        seen = self.image_tokens + prompt + (tokens + 1) / 2
        attention = self.layers * 2 * seen * self._query()
        return 2.0 * (self.layers * (self._key_value() + self._rest()) + attention)

    def kv_bytes(self, rows: int) -> int:
        return rows * self.layers * 2 * self.kv_heads * self.head_dim * 2

    def _query(self) -> int:
        return self.heads * self.head_dim

    def _key_value(self) -> int:
        return 2 * self.hidden * self.kv_heads * self.head_dim

    def _rest(self) -> int:
        return 2 * self.hidden * self._query() + 3 * self.hidden * self.wide


def step(args: argparse.Namespace, model: Model, folder: Path) -> Path:
    """A step whose responses have log-normal lengths around --tokens."""
    dice = random.Random(1)
    path = folder / "step.jsonl"
    positions = model.image_tokens + args.prompt
    with path.open("w") as file:
        for group in range(args.groups):
            for _ in range(args.size):
                tokens = max(1, round(dice.lognormvariate(0, 0.5) * args.tokens))
                line = {
                    "at": 0.0,
                    "prefix": group,
                    "prefix_positions": positions,
                    "response_tokens": tokens,
                    "group": group,
                    "group_size": args.size,
                }
                file.write(json.dumps(line) + "\n")
    return path


def simulate(sleuth: str, path: Path, replicas: int, cost: str) -> dict:
    command = [sleuth, "bench", "--simulate", "--arrivals", str(path), "--format", "json"]
    command += ["--replicas", str(replicas), "--cost", cost, "--seeds", "1"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {row["policy"]: row for row in json.loads(out)["rows"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sleuth", help="the release binary")
    parser.add_argument("--config", type=Path, help="config.json of another PaliGemma")
    parser.add_argument("--groups", type=int, default=512, help="groups of a step")
    parser.add_argument("--size", type=int, default=8, help="responses of a group")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="median tokens of a response")
    parser.add_argument("--seconds", type=float, default=5.0, help="what a step may take")
    parser.add_argument("--tflops", type=float, default=400.0, help="of a replica's products")
    parser.add_argument("--reached", type=float, default=0.4, help="share of it that is sustained")
    parser.add_argument("--batch-ms", type=float, default=3.0, help="of a batch as such")
    args = parser.parse_args()
    model = Model.read(args.config) if args.config else Model()
    rate = args.tflops * 1e12 * args.reached
    positions = model.image_tokens + args.prompt
    image = model.image_flop() / rate
    prefix = model.prefix_flop(args.prompt) / rate
    token = model.token_flop(args.prompt, args.tokens) / rate
    total = args.groups * (image + prefix + args.size * args.tokens * token)
    print(f"image {image * 1e3:.2f} ms, prefix {prefix * 1e3:.2f} ms, token {token * 1e6:.1f} us")
    print(f"keys and values of a prefix in f16: {model.kv_bytes(positions) / 2**20:.1f} MiB")
    print(f"a step of {args.groups} x {args.size}: {total:.1f} s of one replica")
    cost = f"{args.batch_ms / 1e3},{prefix / positions},{token},{image}"
    print("| replicas | step, s | over the bound | round robin, s | prefixes |")
    print("|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path = step(args, model, Path(folder))
        for replicas in (1, 2, 4, 8, 16, 32, 64):
            rows = simulate(args.sleuth, path, replicas, cost)
            ours, naive = rows["sleuth"], rows["round robin"]
            print(
                f"| {replicas} | {ours['seconds']:.2f} | {ours['over_bound']:.3f} "
                f"| {naive['seconds']:.2f} | {ours['prefixes_computed']:.0f} |"
            )
            if ours["seconds"] <= args.seconds:
                print(f"\n{replicas} replicas take a step within {args.seconds:g} s.")
                return
    print(f"\n64 replicas do not take a step within {args.seconds:g} s.")


if __name__ == "__main__":
    main()
