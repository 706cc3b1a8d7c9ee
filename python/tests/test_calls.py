import pytest
import trustme
from blake3 import blake3
from opentelemetry.sdk.trace import TracerProvider
from serving import CAPTION, SCENE

import sleuth
from sleuth.item import encode


def test_the_model_and_its_limits_are_told(client):
    model = client.get_model()
    assert model.name == "mini"
    assert model.architecture == "PaliGemmaForConditionalGeneration"
    assert model.takes_open_items
    assert model.version == client.score(SCENE, CAPTION).version
    assert 0 < model.threshold < 1
    assert model.max_timeout == 300
    with pytest.raises(sleuth.RefusedError, match="adapter_unknown") as raised:
        client.get_model("another")
    assert raised.value.refusal.error_class == "unknown"


def test_texts_are_tokenised_as_responses_are(client):
    told, scored = client.tokenize(CAPTION), client.score(SCENE, CAPTION).tokens
    assert told.start == tuple(scored.start)
    assert told.end == tuple(scored.end)
    assert len(told.id) == len(scored)


def test_a_server_says_whether_it_is_healthy(client):
    assert client.healthy()
    assert not sleuth.Client("http://127.0.0.1:9").healthy()


def credentials(tmp_path, token, role="score"):
    path = tmp_path / "callers.toml"
    digest = blake3(token.encode()).hexdigest()
    path.write_text(f'[[token]]\nname = "t"\nroles = ["{role}"]\nblake3 = "{digest}"\n')
    return str(path)


def test_a_token_is_sent_and_not_shown(serve, tmp_path):
    server = serve("--credentials", credentials(tmp_path, "hunter2"))
    with sleuth.Client(server.url, token="hunter2") as client:
        assert client.score(SCENE, CAPTION).valid
        assert "hunter2" not in repr(client) + repr(client._session.address)
        assert client.correct(SCENE, CAPTION, corrector="guidance").final().verdict.valid
    for token in (None, "another"):
        with sleuth.Client(server.url, token=token) as client:
            with pytest.raises(sleuth.RefusedError, match="unauthenticated") as raised:
                client.score(SCENE, CAPTION)
            assert raised.value.refusal.reason == ("token_unknown" if token else "token_missing")
            # Of a stream, too: an image that the server knows is not put.
            image = sleuth.Image.known(sleuth.Image.of(SCENE).blake3)
            with pytest.raises(sleuth.RefusedError, match="unauthenticated"):
                client.score(image, CAPTION)


def test_a_role_that_is_missing_is_told(serve, tmp_path):
    server = serve("--credentials", credentials(tmp_path, "reader", "read"))
    with sleuth.Client(server.url, token="reader") as client:
        assert client.get_model().name == "mini"
        with pytest.raises(sleuth.RefusedError, match="role_missing"):
            client.score(SCENE, CAPTION)


def test_the_connection_may_be_encrypted_both_ways(serve, tmp_path):
    authority = trustme.CA()
    theirs, ours = authority.issue_cert("localhost"), authority.issue_cert("trainer")
    files = {name: tmp_path / name for name in ("crt", "key", "ca")}
    theirs.cert_chain_pems[0].write_to_path(files["crt"])
    theirs.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["ca"])
    server = serve(
        *("--tls-certificate", str(files["crt"]), "--tls-key", str(files["key"])),
        *("--tls-client-ca", str(files["ca"])),
        scheme="https",
    )
    own = {"certificate": ours.cert_chain_pems[0].bytes(), "key": ours.private_key_pem.bytes()}
    with sleuth.Client(server.url, ca=files["ca"], server_name="localhost", **own) as client:
        assert client.score(SCENE, CAPTION).valid
    quick = sleuth.Settings(retry=sleuth.Retry(attempts=1))
    for options in (
        {"ca": files["ca"], "server_name": "localhost"},
        {"ca": trustme.CA().cert_pem.bytes(), "server_name": "localhost", **own},
        {"ca": files["ca"], "server_name": "elsewhere", **own},
    ):
        with (
            sleuth.Client(server.url, settings=quick, **options) as client,
            pytest.raises(sleuth.UnavailableError),
        ):
            client.score(SCENE, CAPTION)


def test_items_are_in_their_callers_trace():
    assert encode(sleuth.Item(SCENE, CAPTION)).context.traceparent == ""
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("step") as span:
        context = encode(sleuth.Item(SCENE, CAPTION)).context
    parts = context.traceparent.split("-")
    assert parts[1] == f"{span.get_span_context().trace_id:032x}"
    assert parts[2] == f"{span.get_span_context().span_id:016x}"


def test_each_item_has_a_key_of_its_own_unless_it_is_given_one():
    keys = {encode(sleuth.Item(SCENE, CAPTION)).context.idempotency_key for _ in range(10)}
    assert len(keys) == 10
    given = encode(sleuth.Item(SCENE, CAPTION, idempotency_key="mine"))
    assert given.context.idempotency_key == "mine"
