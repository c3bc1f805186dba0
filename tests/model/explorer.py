"""Visit every state that a system can get into, and say by which way it got into a bad one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)
A = TypeVar("A", bound=Hashable)

Successors = Callable[[S], Iterable[tuple[A, S]]]


class Violation(NamedTuple, Generic[S, A]):
    """A bad state, what is bad about it, and a shortest way there."""

    problem: str
    way: list[A]
    state: S

    def __str__(self) -> str:
        steps = "\n".join(f"  {number}. {action}" for number, action in enumerate(self.way, 1))
        return f"{self.problem}, after\n{steps}\n  in {self.state}"


class Explored(NamedTuple, Generic[S, A]):
    """
    Everything that can be reached.

    ``edges`` has every state as a key; it is incomplete if ``violation`` is set, as the search stops there.
    """

    edges: dict[S, list[tuple[A, S]]]
    violation: Violation[S, A] | None


def explore(
    start: S, successors: Successors[S, A], problem: Callable[[S], str | None]
) -> Explored[S, A]:
    """
    Search breadth first, so that the way to a violation is as short as any.

    Args:
        start: The first state.
        successors: The actions possible in a state, each with the state that it leads to.
        problem: What is wrong with a state; ``None`` if nothing is.
    """
    edges: dict[S, list[tuple[A, S]]] = {}
    came_from: dict[S, tuple[S, A] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        found = problem(state)
        if found:
            return Explored(edges, Violation(found, _way(came_from, state), state))
        edges[state] = list(successors(state))
        for action, after in edges[state]:
            if after not in came_from:
                came_from[after] = state, action
                waiting.append(after)
    return Explored(edges, None)


def _way(came_from: dict[S, tuple[S, A] | None], state: S) -> list[A]:
    way = []
    while (step := came_from[state]) is not None:
        state, action = step
        way.append(action)
    return way[::-1]


def walks(start: S, edges: dict[S, list[tuple[A, S]]]) -> Iterator[list[tuple[A, S]]]:
    """
    Yield walks from ``start`` that together take every edge of a graph at least once.

    Each goes on over edges not taken yet as far as it can, and then to the nearest one left.
    """
    left = {state: list(range(len(out))) for state, out in edges.items()}
    while any(left.values()):
        state, walk = start, []
        while (lead := _to_untaken(state, edges, left)) is not None:
            for index in lead:
                action, after = edges[state][index]
                if index in left[state]:
                    left[state].remove(index)
                walk.append((action, after))
                state = after
        if not walk:  # what is left can't be reached from the start
            return
        yield walk


def _to_untaken(
    state: S, edges: dict[S, list[tuple[A, S]]], left: dict[S, list[int]]
) -> list[int] | None:
    """Return the edges' indices that lead from ``state`` over the nearest untaken one."""
    came_from: dict[S, tuple[S, int] | None] = {state: None}
    waiting = deque([state])
    while waiting:
        here = waiting.popleft()
        if left[here]:
            lead = [left[here][0]]
            while (step := came_from[here]) is not None:
                here, index = step
                lead.append(index)
            return lead[::-1]
        for index, (_, after) in enumerate(edges[here]):
            if after not in came_from:
                came_from[after] = here, index
                waiting.append(after)
    return None
