"""GRPO and RLOO on Sleuth's rewards, with a tiny random policy on a CPU.

python examples/grpo.py                 # one advantage per completion
python examples/grpo.py --arm tokens    # one per token
python examples/grpo.py --arm rloo
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import tiny_policy
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import sleuth
from sleuth.server import find_binary
from sleuth.trl import AsyncReward, Reward
from sleuth.trl.token_grpo import TokenGRPOTrainer

ARMS = ("completions", "tokens", "rloo")


def trainer_for(
    arm: str, reward: Reward | AsyncReward, scenes: Any, parts: Any, out: Path, **more: Any
) -> Any:
    """A trainer of four completions a prompt; `parts` are the policy and its processor."""
    model, processor = parts
    settings = {
        "output_dir": str(out),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 24,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": [],
        # Without a reference model, as RLOO loads one by its name alone.
        "beta": 0.0,
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        **more,
    }
    kinds = {
        "completions": (GRPOTrainer, GRPOConfig),
        "tokens": (TokenGRPOTrainer, GRPOConfig),
        "rloo": (RLOOTrainer, RLOOConfig),
    }
    trainer, config = kinds[arm]
    return trainer(
        model=model,
        reward_funcs=reward,
        args=config(**settings),
        train_dataset=scenes,
        processing_class=processor,
    )


def main() -> None:
    """Trains two steps and prints what was logged."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--arm", choices=ARMS, default="completions")
    arm = arguments.parse_args().arm
    with tempfile.TemporaryDirectory() as folder, sleuth.local() as client:
        rows = tiny_policy.draw_scenes(find_binary(), Path(folder) / "scenes", 8)
        tokens = tiny_policy.tokenizer(rows)
        reward = Reward(client, tokenizer=tokens)
        scenes, parts = tiny_policy.prompts(rows), tiny_policy.policy(tokens)
        trainer = trainer_for(arm, reward, scenes, parts, Path(folder) / "out")
        trainer.train()
        for entry in trainer.state.log_history:
            if "reward" in entry:
                print(entry["step"], round(entry["reward"], 4), entry["sleuth/invalid"])


if __name__ == "__main__":
    main()
