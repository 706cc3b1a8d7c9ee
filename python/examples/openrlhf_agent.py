"""An agent for OpenRLHF: `--train.agent_func_path examples/openrlhf_agent.py`.

Its rewards are of the generated token ids and the sample's own image.
"""

import os

from openrlhf.utils.agent import SingleTurnAgentExecutor

from sleuth.openrlhf import scored

AgentExecutor = scored(
    SingleTurnAgentExecutor, os.environ.get("REWARD_URL", "http://127.0.0.1:50051")
)
