import asyncio
import time

import numpy as np
import pytest
from serving import CAPTION, SCENE, until

import sleuth


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_rewards_are_those_of_the_other_client(server, client):
    async def main():
        async with sleuth.aio.Client(server.url) as other:
            one = await other.score(SCENE, CAPTION)
            many = await other.score_batch(
                [{"image": SCENE, "response": f"There are {n}."} for n in range(30)]
            )
            model = await other.get_model()
            return one, many, model, await other.healthy(), await other.tokenize("A heart.")

    one, many, model, healthy, tokenized = run(main())
    assert (one.tokens.logit == client.score(SCENE, CAPTION).tokens.logit).all()
    assert [v.reward for v in many[:2]] == [
        client.score(SCENE, f"There are {n}.").reward for n in range(2)
    ]
    assert model == client.get_model()
    assert healthy
    assert tokenized == client.tokenize("A heart.")


def test_items_come_from_an_async_iterable_as_others_end(server):
    taken = 0

    async def items():
        nonlocal taken
        while True:
            taken += 1
            yield sleuth.Item(SCENE, f"There are {taken} objects.")

    async def main():
        settings = sleuth.Settings(max_in_flight=4)
        async with sleuth.aio.Client(server.url, settings=settings) as client:
            verdicts = client.score_many(items())
            got = [await anext(verdicts) for _ in range(3)]
            await verdicts.aclose()
            return got

    assert all(v.valid for v in run(main()))
    assert taken <= 3 + 4


def test_a_cancelled_task_gives_its_item_up(serve):
    server = serve("--simulated-device", "1000000,3600", "--max-wait", "86400", "--burst", "86400")

    async def main():
        async with sleuth.aio.Client(server.url) as client:
            tasks = [
                asyncio.create_task(client.score(SCENE, CAPTION)),
                asyncio.create_task(client.score_batch([sleuth.Item(SCENE, CAPTION)] * 3)),
            ]
            await asyncio.to_thread(until, lambda: server.metric("sleuth_items_in_flight") == 4)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(e, asyncio.CancelledError) for e in ended)
            await asyncio.to_thread(until, lambda: server.metric("sleuth_items_in_flight") == 0)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.score(SCENE, CAPTION), 0.2)
            await asyncio.to_thread(until, lambda: server.metric("sleuth_items_in_flight") == 0)

    run(main())


def test_an_item_is_appended_to_and_read_at_once(server, client):
    async def main():
        async with sleuth.aio.Client(server.url) as other, other.open(SCENE) as item:

            async def read():
                return [token.text async for token in item]

            reading = asyncio.create_task(read())
            for n, word in enumerate(CAPTION.split(" ")):
                await item.append(word if n == 0 else " " + word)
            verdict = await item.close()
            return verdict, await reading

    verdict, read = run(main())
    assert "".join(read) == CAPTION
    assert verdict.reward == client.score(SCENE, CAPTION).reward


def test_the_loop_is_never_blocked(serve):
    # Some four seconds of work, of which none may be waited for in the loop.
    server = serve("--simulated-device", "150,0.05", "--max-wait", "100")

    async def main():
        async with sleuth.aio.Client(server.url) as client:
            await client.score(SCENE, CAPTION)
            noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
            items = [sleuth.Item(noise[n:], f"There are {n}.") for n in range(6)]
            items += [sleuth.Item(SCENE, f"There are {n}.") for n in range(60)]
            scoring = asyncio.create_task(client.score_batch(items))
            longest, last = 0.0, time.monotonic()
            while not scoring.done():
                await asyncio.sleep(0.001)
                now = time.monotonic()
                longest, last = max(longest, now - last), now
            assert all(v.valid for v in await scoring)
            return longest

    assert run(main()) < 1.5


def test_one_client_serves_several_loops(server):
    client = sleuth.aio.Client(server.url)
    rewards = {run(client.score(SCENE, CAPTION)).reward for _ in range(3)}
    run(client.close())
    assert len(rewards) == 1


def test_a_server_that_is_gone_is_told(serve):
    server = serve()

    async def main():
        async with sleuth.aio.Client(server.url) as client:
            assert (await client.score(SCENE, CAPTION)).valid
            server.kill()
            with pytest.raises(sleuth.UnavailableError, match=server.address):
                await client.score(SCENE, CAPTION)

    run(main())


def test_a_correction_tells_its_steps(server):
    async def main():
        async with sleuth.aio.Client(server.url) as client:
            correction = client.correct(SCENE, CAPTION, corrector="guidance")
            kinds = [type(event).__name__ async for event in correction]
            final = await client.correct(SCENE, CAPTION, corrector="guidance").final()
            return kinds, final

    kinds, final = run(main())
    assert kinds == ["Scored", "Proposal", "Final"]
    assert final.response == CAPTION
