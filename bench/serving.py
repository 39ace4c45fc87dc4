"""Many clients at once against `etude serve`: what is lost, how long short and long requests take, memory.

    etude serve runs/primer &
    python bench/serving.py http://127.0.0.1:8123/v1 primer --clients 200 --rounds 5

One client in five asks for a long answer each time, the others for short ones. A client that gets status 429 waits the
seconds of Retry-After and asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter

import numpy as np
import openai

SHORT, LONG = 8, 60
"""New tokens of a short and of a long answer."""


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    api = openai.AsyncOpenAI(base_url=chosen.address, api_key="none", max_retries=0, timeout=600)
    seconds: dict[int, list[float]] = {SHORT: [], LONG: []}
    outcomes: Counter[str] = Counter()

    async def client(number: int) -> None:
        tokens = LONG if number % 5 == 0 else SHORT
        for turn in range(chosen.rounds):
            began = time.perf_counter()
            while not await answered(api, chosen.model, tokens, number * chosen.rounds + turn, outcomes):
                pass
            seconds[tokens].append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(client, range(chosen.clients)))
    took = time.perf_counter() - began
    tokens = sum(count * len(times) for count, times in seconds.items())
    print(
        f"{chosen.clients} clients, {sum(map(len, seconds.values()))} answers in {took:.1f} s: {dict(outcomes)}"
    )
    print(f"{tokens / took:,.0f} tokens per second")
    for count, times in seconds.items():
        median, late, last = np.quantile(times, (0.5, 0.95, 1.0))
        print(f"{count} tokens: median {median:.2f} s, 95 % within {late:.2f} s, the slowest {last:.2f} s")


async def answered(
    api: openai.AsyncOpenAI, model: str, tokens: int, seed: int, outcomes: Counter[str]
) -> bool:
    """Ask once. Returns False, after the wait that the server asks for, if its queue is full."""
    try:
        made = await api.completions.create(
            model=model,
            prompt=f"One day number {seed % 7}",
            max_tokens=tokens,
            seed=seed,
            extra_body={"ignore_eos": True},
        )
    except openai.RateLimitError as error:
        outcomes["429"] += 1
        await asyncio.sleep(float(error.response.headers.get("retry-after", "1")))
        return False
    assert made.usage is not None
    assert made.usage.completion_tokens == tokens
    outcomes["200"] += 1
    return True


if __name__ == "__main__":
    asyncio.run(main())
