import pytest
from serving import CAPTION, SCENE

import sleuth


@pytest.fixture(scope="module")
def correcting():
    from serving import Server

    server = Server("--corrector-memory", "8192")
    with sleuth.Client(server.url) as client:
        yield client
    server.stop()


def test_a_false_word_is_repaired_and_the_reward_rises(correcting):
    events = list(correcting.correct(SCENE, CAPTION, max_candidates=4, max_rounds=2))
    scored, final = events[0], events[-1]
    assert isinstance(scored, sleuth.Scored)
    assert [CAPTION[w.start : w.end] for w in scored.words] == ["red"]
    assert isinstance(final, sleuth.Final)
    assert final.kept >= 1
    assert final.reward_before == scored.verdict.reward == correcting.score(SCENE, CAPTION).reward
    assert final.verdict.reward > final.reward_before + 0.01
    assert final.verdict.tokens.response.decode() == final.response
    assert final.verdict.reward == correcting.score(SCENE, final.response).reward
    again = correcting.score(SCENE, final.response).tokens
    assert (final.verdict.tokens.logit == again.logit).all()
    kept = [e for e in events if isinstance(e, sleuth.Rescored) and e.kept]
    assert len(kept) == final.kept == sum(a.kept for a in final.attempts)
    dropped = [a.drop_reason for a in final.attempts if not a.kept]
    assert all(dropped)
    text = CAPTION.encode()
    for change in reversed(final.changes):
        new = final.response.encode()[change.after.start : change.after.end]
        text = text[: change.before.start] + new + text[change.before.end :]
    assert text.decode() == final.response


def test_guidance_is_a_prompt_for_the_policy(client):
    events = list(client.correct(SCENE, CAPTION, corrector="guidance"))
    prompts = [e.guidance for e in events if isinstance(e, sleuth.Proposal)]
    assert len(prompts) == 1
    assert "red" in prompts[0]
    assert events[-1].kept == 0
    assert events[-1].response == CAPTION


def test_a_corrector_that_is_not_there_is_told(client):
    final = client.correct(SCENE, CAPTION).final()
    assert final.verdict.reason == "not_offered"
    assert final.response == ""
    with pytest.raises(sleuth.InvalidRewardError, match="not_offered"):
        float(final.verdict)


def test_what_cannot_be_sent_is_told_here(client):
    with pytest.raises(sleuth.InputError, match="corrector: 'me' is none of builtin"):
        client.correct(SCENE, CAPTION, corrector="me")
    with pytest.raises(sleuth.InputError, match="guidance: 'all' is none of token"):
        client.correct(SCENE, CAPTION, guidance="all")


def test_leaving_early_gives_the_item_up(client):
    with client.correct(SCENE, CAPTION, corrector="guidance") as correction:
        assert isinstance(next(correction), sleuth.Scored)
    assert client.score(SCENE, CAPTION).valid


def test_a_server_that_is_gone_is_told(serve):
    server = serve()
    with sleuth.Client(server.url) as client:
        server.kill()
        with pytest.raises(sleuth.UnavailableError, match=server.address):
            client.correct(SCENE, CAPTION, corrector="guidance").final()


def test_a_model_that_is_lost_puts_the_image_again(serve):
    first = serve()
    with sleuth.Client(first.url) as client:
        assert client.correct(SCENE, CAPTION, corrector="guidance").final().verdict.valid
        first.kill()
        serve(listen=first.address)
        assert client.correct(SCENE, CAPTION, corrector="guidance").final().verdict.valid
