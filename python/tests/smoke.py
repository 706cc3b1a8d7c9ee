"""What an installed wheel must do without numpy; for run-tests."""

import sys

import google.protobuf
import grpc

import sleuth

scene = sys.argv[1] + "/docs/scene.png"
try:
    import numpy  # noqa: F401
except ModuleNotFoundError:
    pass
else:
    sys.exit("numpy is here")

with sleuth.local() as client:
    verdict = client.score(scene, "The large heart is red.")
    assert isinstance(verdict.tokens.reward, tuple)
    assert len(verdict.tokens) == len(verdict.tokens.reward) > 3
    whole = [token.text for token in verdict.tokens]
    with client.open(scene) as item:
        item.append("The large ")
        item.append("heart is red.")
        assert item.close().reward == verdict.reward
    assert client.score(scene, "").reason == "response_empty"
    policy = sleuth.PolicyTokens(b"The large heart is red.", (9, 23, 23))
    assert client.score(scene, policy=policy).tokens.coverage == (1, 1, 0)
    final = client.correct(scene, "The large heart is red.", corrector="guidance").final()
    assert final.verdict.reward == verdict.reward
    refused = ""
    try:
        client.get_model("another")
    except sleuth.RefusedError as error:
        refused = error.refusal.reason
assert refused == "adapter_unknown"
assert "".join(whole) == "The large heart is red."
print(f"well on protobuf {google.protobuf.__version__}, grpcio {grpc.__version__}")
