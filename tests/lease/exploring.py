"""Visits every state of a configuration, breadth first, so that the first wrong state has a shortest trace.

A part has few states of its own, all of them together very many. So what a part can do is worked out once for each of
its states and remembered, parts are replaced by numbers, and a state is a tuple of numbers. Two holders are alike but
for what is in their parts, so of two states that differ by the holders' order one is visited.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final

from tests.lease.model import Configuration, Mistake, Part, Protocol, Settled

State = tuple[int, ...]
"""The numbers of the world, of the client, and of each holder."""

Step = tuple[int, str, State]
"""Who, by its place in the state, does what, and the state after it."""

_NAMES: Final = ("", "client", "holder 1", "holder 2")


@dataclass
class Found:
    """What an exploration has found.

    Parameters:
        states: how many were visited: all there are, if none is wrong.
        wrong: what is wrong with the last one.
        trace: the steps to it.
    """

    states: int
    wrong: str | None = None
    trace: Sequence[str] = ()


class Explorer:
    """One configuration, with or without a mistake."""

    def __init__(self, configuration: Configuration, mistake: Mistake | None = None) -> None:
        self._protocol = protocol = Protocol(configuration, mistake)
        self._has_client = configuration.client
        self._has_restarts = protocol.has_restarts()
        self._numbers: dict[Part, int] = {}
        self._parts: list[Part] = []
        world, client, holders = protocol.start()
        self._start = tuple(map(self._number, (world, client, *holders)))
        self._world_moves = self._remembered(protocol.world_moves)
        self._holder_moves = self._remembered(protocol.holder_moves)
        self._client_moves = self._remembered(protocol.client_moves)
        self._client_holder_moves = self._remembered(protocol.client_holder_moves)
        self._tick = self._changed(protocol.tick)
        self._restarted = self._changed(protocol.restarted)
        self._kept = self._changed(lambda part: protocol.promoted(part, loses=False))
        self._lost = self._changed(lambda part: protocol.promoted(part, loses=True))
        self._has_promotion = cache(lambda world: protocol.has_promotion(self._parts[world]))
        self._settled = cache(lambda world, holder: protocol.settled(self._parts[world], self._parts[holder]))
        self._barrier_moves = cache(self._work_out_barrier)
        self._wrong_in_world = self._judged(protocol.wrong_in_world)
        self._wrong_in_holder = self._judged(protocol.wrong_in_holder)
        self._wrong_in_client = self._judged(protocol.wrong_in_client)

    def _number(self, part: Part) -> int:
        number = self._numbers.setdefault(part, len(self._parts))
        if number == len(self._parts):
            self._parts.append(part)
        return number

    def _remembered(self, moves: Callable[..., Iterator[Any]]) -> Callable[..., list[Any]]:
        """The moves of some parts, by their numbers."""

        def work_out(*parts: int) -> list[Any]:
            found = moves(*(self._parts[part] for part in parts))
            return [(step, *map(self._number, moved)) for step, *moved in found]

        return cache(work_out)

    def _changed(self, change: Callable[[Part], Part]) -> Callable[[int], int]:
        """What happens to all parts at once."""
        return cache(lambda part: self._number(change(self._parts[part])))

    def _judged(self, wrong: Callable[..., str | None]) -> Callable[..., str | None]:
        return cache(lambda *parts: wrong(*(self._parts[part] for part in parts)))

    def _work_out_barrier(self, world: int, *settled: Settled) -> list[tuple[str, int]]:
        everywhere = Settled(
            frozenset.intersection(*(each.acknowledged for each in settled)),
            frozenset.intersection(*(each.over for each in settled)),
            all(each.absent for each in settled),
        )
        found = self._protocol.barrier_moves(self._parts[world], everywhere)
        return [(step, self._number(moved)) for step, moved in found]

    def _steps(self, state: State) -> Iterator[Step]:
        """All that can happen in a state."""
        world, _, *holders = state
        yield 0, "tick", tuple(map(self._tick, state))
        for step, moved in self._world_moves(world):
            yield 0, step, (moved, *state[1:])
        for step, moved in self._barrier_moves(world, *(self._settled(world, holder) for holder in holders)):
            yield 0, step, (moved, *state[1:])
        for place, holder in enumerate(holders, 2):
            for step, moved, other in self._holder_moves(world, holder):
                yield place, step, (moved, *state[1:place], other, *state[place + 1 :])
        if self._has_client:
            yield from self._client_steps(state)
        if self._has_restarts:
            yield 0, "the database crashes and comes back", tuple(map(self._restarted, state))
        if self._has_promotion(world):
            yield from self._promotions(state)

    def _client_steps(self, state: State) -> Iterator[Step]:
        world, client, *holders = state
        for step, moved, asker in self._client_moves(world, client):
            yield 1, step, (moved, asker, *holders)
        for place, holder in enumerate(holders, 2):
            for step, asker, other in self._client_holder_moves(client, holder):
                yield place, step, (world, asker, *state[2:place], other, *state[place + 1 :])

    def _promotions(self, state: State) -> Iterator[Step]:
        """One for each set of members whose rows may be missing."""
        world, client, *holders = state
        for lacking in product((False, True), repeat=len(holders)):
            pairs = zip(lacking, holders, strict=True)
            rows = [self._lost(holder) if lacks else self._kept(holder) for lacks, holder in pairs]
            names = [_NAMES[place] for place, lacks in enumerate(lacking, 2) if lacks]
            step = f"a standby is promoted that lacks the rows of {' and '.join(names) or 'nobody'}"
            yield 0, step, (self._kept(world), client, *rows)

    def _wrong(self, state: State) -> str | None:
        world, client, *holders = state
        return (
            self._wrong_in_world(world)
            or next(filter(None, (self._wrong_in_holder(world, holder) for holder in holders)), None)
            or self._wrong_in_client(world, client)
        )

    def explore(self, *, alike: bool = True) -> Found:
        """Visit everything, or up to the first wrong state.

        Parameters:
            alike: whether two states are one that differ only by the order of the holders.
        """
        key_of = _in_order if alike else _as_it_is
        states = [self._start]
        origins = array("l", [0])
        seen = {key_of(self._start)}
        for number, state in enumerate(states):
            for _, _, reached in self._steps(state):
                key = key_of(reached)
                if key in seen:
                    continue
                seen.add(key)
                states.append(reached)
                origins.append(number)
                if wrong := self._wrong(reached):
                    return Found(len(states), wrong, self._trace(states, origins))
        return Found(len(states))

    def _trace(self, states: list[State], origins: Sequence[int]) -> list[str]:
        """The steps to the last state."""
        steps = list[str]()
        number = len(states) - 1
        while number:
            origin = origins[number]
            found = self._steps(states[origin])
            steps.append(next(_told(who, step) for who, step, reached in found if reached == states[number]))
            number = origin
        return steps[::-1]

    def replay(self, trace: Sequence[str]) -> str | None:
        """What is wrong after the steps of a trace."""
        state = self._start
        for wanted in trace:
            (state,) = {reached for who, step, reached in self._steps(state) if _told(who, step) == wanted}
        return self._wrong(state)


def _told(who: int, step: str) -> str:
    return f"{_NAMES[who]}{' ' * (not step.startswith(chr(39)))}{step}".strip()


def _in_order(state: State) -> State:
    """A state with its holders in the order of their numbers."""
    return state if len(state) == 3 or state[2] <= state[3] else (state[0], state[1], state[3], state[2])


def _as_it_is(state: State) -> State:
    return state
