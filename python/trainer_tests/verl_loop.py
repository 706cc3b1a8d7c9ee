"""veRL's own RewardLoopManager over a batch, its workers as Ray actors, as a trainer calls it.

Reads what is asked from standard input as JSON, and prints the reply.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))


def main():
    import ray
    import verl_rewards
    from omegaconf import OmegaConf
    from verl.experimental.reward_loop import RewardLoopManager

    asked = json.load(sys.stdin)
    extra = {
        "reward": {
            "num_workers": 2,
            "reward_model": {"enable": False, "enable_resource_pool": False},
            "custom_reward_function": {"path": None, "name": "compute_score"},
        },
        "actor_rollout_ref": {"model": {"path": asked["tokenizer"], "tokenizer_path": None}},
    }
    config = OmegaConf.merge(verl_rewards.config_for(asked["url"]), OmegaConf.create(extra))
    data = verl_rewards.batch_of(asked["image"], asked["responses"], "Describe the image.", 0)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        reply = RewardLoopManager(config).compute_rm_score(data)
    finally:
        ray.shutdown()
    told = {"rm_scores": reply.batch["rm_scores"].tolist()}
    told["sleuth_valid"] = [bool(v) for v in reply.non_tensor_batch["sleuth_valid"]]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
