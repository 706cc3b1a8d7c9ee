"""A reward function for OpenRLHF: `--reward.remote_url examples/openrlhf_reward.py`.

The data set's label column names the image, as JSON: `{"image": "scenes/0.png"}`.
"""

import os

from sleuth.openrlhf import reward_func_for

reward_func = reward_func_for(os.environ.get("REWARD_URL", "http://127.0.0.1:50051"))
