"""A reward function that keeps what it was called with."""

from types import SimpleNamespace


def spied(reward):
    """The calls to come, and the reward function."""
    calls = []
    call = type(reward).__call__

    class Spied(type(reward)):
        def __call__(self, **arguments):
            known = ("prompts", "completions", "completion_ids")
            rewards = call(self, **arguments)
            columns = {k: v for k, v in arguments.items() if k not in known}
            calls.append(
                SimpleNamespace(
                    rewards=rewards,
                    columns=columns,
                    **{k: arguments[k] for k in known},
                )
            )
            return rewards

    reward.__class__ = Spied
    return calls, reward
