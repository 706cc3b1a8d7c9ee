import math
import operator
import pickle

import numpy as np
import pytest

import sleuth

REFUSAL = sleuth.Refusal("too_large", "image_too_large", "too many pixels", "score.context.image")
INVALID = sleuth.Verdict(refusal=REFUSAL)
VALID = sleuth.Verdict(version="v", _reward=0.25, _aggregation="mean_log")

NUMERIC = {
    "float": float,
    "int": int,
    "bool": bool,
    "round": round,
    "abs": abs,
    "neg": operator.neg,
    "pos": operator.pos,
    "add": lambda v: v + 1,
    "radd": lambda v: 1 + v,
    "sum": lambda v: sum([v, v]),
    "sub": lambda v: v - 1,
    "rsub": lambda v: 1 - v,
    "mul": lambda v: v * 2,
    "rmul": lambda v: 2 * v,
    "div": lambda v: v / 2,
    "rdiv": lambda v: 2 / v,
    "pow": lambda v: v**2,
    "lt": lambda v: v < 1,
    "le": lambda v: v <= 1,
    "gt": lambda v: v > 1,
    "ge": lambda v: v >= 1,
    "eq": lambda v: v == 0,
    "ne": lambda v: v != 0,
    "max": lambda v: max([v, v]),
    "format": lambda v: f"{float(v):.3f}",
    "math": math.exp,
    "array": np.asarray,
    "array of floats": lambda v: np.array([v, v], dtype=float),
    "array of verdicts": lambda v: np.array([v, v]),
    "mean": lambda v: np.mean([v, v]),
    "numpy add": lambda v: np.ones(2) + v,
    "reward": lambda v: v.reward,
    "tokens": lambda v: v.tokens,
    "sentences": lambda v: v.sentences,
    "flagged": lambda v: v.flagged,
    "aggregation": lambda v: v.aggregation,
}


@pytest.mark.parametrize("name", NUMERIC)
def test_an_invalid_verdict_is_no_number(name):
    with pytest.raises(sleuth.InvalidRewardError, match="image_too_large") as raised:
        NUMERIC[name](INVALID)
    assert raised.value.verdict is INVALID
    assert "score.context.image: too many pixels" in str(raised.value)


def test_an_invalid_verdict_says_why():
    assert not INVALID.valid
    assert INVALID.reward_or(None) is None
    assert INVALID.reward_or(-1) == -1
    assert INVALID.reason == "image_too_large"
    assert "image_too_large" in repr(INVALID)


def test_a_valid_verdict_is_a_number():
    assert float(VALID) == VALID.reward == VALID.reward_or(None) == 0.25
    assert VALID + 1 == 1 + VALID == 1.25
    assert sum([VALID, VALID]) == 0.5
    assert 2 / VALID == 8
    assert VALID == 0.25
    assert VALID != 0.5
    assert max(VALID, 0.1) is VALID
    assert np.asarray(VALID) == 0.25
    assert np.array([VALID, VALID], dtype=np.float32).tolist() == [0.25, 0.25]
    assert np.mean([VALID, VALID]) == 0.25
    assert VALID.reason == ""


def test_no_verdict_has_a_truth_value():
    with pytest.raises(TypeError, match=r"ask for \.valid"):
        bool(VALID)


def test_verdicts_and_errors_travel_between_processes():
    again = pickle.loads(pickle.dumps([VALID, INVALID]))
    assert again[0].reward == 0.25
    assert again[1].refusal == REFUSAL
    error = pickle.loads(pickle.dumps(sleuth.InvalidRewardError(INVALID)))
    assert error.verdict.refusal == REFUSAL
    refused = pickle.loads(pickle.dumps(sleuth.RefusedError(REFUSAL)))
    assert refused.refusal == REFUSAL


def test_a_verdict_equals_itself_alone():
    other = sleuth.Verdict(refusal=REFUSAL)
    assert [INVALID, other].index(other) == 1
    assert len({INVALID, other}) == 2
