"""Compiled search for cycles of shortest paths in an unfolded periodic network; `alloop.glass.rings` is its face.

An image of an atom is one integer, ``atom + stride * (shift as three digits)``, so that a lattice translation is an
addition and an image's atom is a bit mask. Every search goes level by level from one image and keeps, of each image
reached, the links it was first reached by: all shortest paths are in that record without being written out, and the
p-th of them can be read off from the number of paths that end at each image.

The first call in an environment compiles (some seconds); later ones, also in other processes, load the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Codes = NDArray[np.int64]

_NOWHERE = -(2**63)  # no image has this code: an empty place in a hash table, no image to go to or to avoid


class Links(NamedTuple):
    """The network: links `start[u]` to `start[u + 1]` of node u lead to image `node`, across the oxygen `oxygen`.

    Both codes are seen from u in the home cell. `stride` is a power of two not below the number of atoms.
    """

    start: Codes
    node: Codes
    oxygen: Codes
    stride: int


class Balls(NamedTuple):
    """Distances in links from every node to the images around it, as one hash table per node."""

    start: Codes
    code: Codes
    depth: NDArray[np.int8]
    radius: int


class Found(NamedTuple):
    """Room for cycles and for one search; `used` holds the numbers of cycles and codes written."""

    size: Codes
    cycle: Codes
    used: Codes


class Search(NamedTuple):
    """Scratch of one level-by-level search: images in the order reached, and the links each was reached by."""

    table: Codes  # hash table: index of an image in the order reached, or -1
    code: Codes
    depth: Codes
    n_paths: Codes
    last_link: Codes  # of an image; then next_link of that, ... until -1
    next_link: Codes
    link_from: Codes
    link_oxygen: Codes


@njit(cache=True)
def _slot(code: int, size: int) -> int:
    """First place to look for a code in a hash table whose size is a power of two."""
    return ((code * 40503) ^ (code >> 15)) & (size - 1)


@njit(cache=True)
def _index(search: Search, code: int) -> int:
    """Index of an image in the order reached, -1 if it was not reached."""
    size = search.table.size
    place = _slot(code, size)
    while search.table[place] >= 0:
        if search.code[search.table[place]] == code:
            return search.table[place]
        place = (place + 1) & (size - 1)
    return -1


@njit(cache=True)
def _reach(search: Search, index: int, code: int, depth: int) -> None:
    """Enter an image as the index-th that was reached."""
    size = search.table.size
    place = _slot(code, size)
    while search.table[place] >= 0:
        place = (place + 1) & (size - 1)
    search.table[place] = index
    search.code[index] = code
    search.depth[index] = depth
    search.n_paths[index] = 0
    search.last_link[index] = -1


@njit(cache=True)
def _forget(search: Search, n_reached: int) -> None:
    """Empty the hash table."""
    if 4 * n_reached > search.table.size:
        search.table[:] = -1
        return
    size = search.table.size
    for index in range(n_reached):  # every place that was filled lies in a run that starts at some image's first place
        place = _slot(search.code[index], size)
        while search.table[place] >= 0:
            search.table[place] = -1
            place = (place + 1) & (size - 1)


@njit(cache=True)
def _distance(balls: Balls, stride: int, one: int, other: int) -> int:
    """Links between two images, radius + 1 if they are farther apart than the balls reach."""
    node = one & (stride - 1)
    code = other - one + node
    first = balls.start[node]
    size = balls.start[node + 1] - first
    if size == 0:
        return balls.radius + 1
    place = _slot(code, size)
    while balls.code[first + place] != _NOWHERE:
        if balls.code[first + place] == code:
            return balls.depth[first + place]
        place = (place + 1) & (size - 1)
    return balls.radius + 1


@njit(cache=True)
def _power_of_two(least: int) -> int:
    power = 1
    while power < least:
        power *= 2
    return power


@njit(cache=True)
def measure_balls(links: Links, radius: int, search: Search) -> tuple[Codes, Codes, NDArray[np.int8], bool]:
    """Fields of `Balls` but the radius, and whether the scratch was large enough."""
    n_nodes = links.start.size - 1
    start = np.zeros(n_nodes + 1, np.int64)
    code = np.empty(1024, np.int64)
    depth = np.empty(1024, np.int8)
    for root in range(n_nodes):
        start[root + 1] = start[root]
        if links.start[root] == links.start[root + 1]:
            continue
        n_reached = 1
        _reach(search, 0, root, 0)
        head = 0
        while head < n_reached and search.depth[head] < radius:
            image = search.code[head]
            atom = image & (links.stride - 1)
            for link in range(links.start[atom], links.start[atom + 1]):
                other = image - atom + links.node[link]
                if _index(search, other) < 0:
                    if 2 * n_reached >= search.table.size:
                        return start, code, depth, False
                    _reach(search, n_reached, other, search.depth[head] + 1)
                    n_reached += 1
            head += 1
        size = _power_of_two(2 * n_reached)
        end = start[root] + size
        while end > code.size:
            code = np.concatenate((code, np.empty_like(code)))
            depth = np.concatenate((depth, np.empty_like(depth)))
        code[start[root] : end] = _NOWHERE
        for index in range(n_reached):
            place = _slot(search.code[index], size)
            while code[start[root] + place] != _NOWHERE:
                place = (place + 1) & (size - 1)
            code[start[root] + place] = search.code[index]
            depth[start[root] + place] = search.depth[index]
        start[root + 1] = end
        _forget(search, n_reached)
    return start, code, depth, True


@njit(cache=True)
def _search(
    links: Links,
    balls: Balls,
    search: Search,
    start: int,
    goal: int,
    max_links: int,
    lowest: int,
    avoid: int,
    avoid_one: int,
    avoid_other: int,
) -> int:
    """Record all shortest paths from `start`; return the number of images reached, -1 if the scratch is too small.

    With a goal, only images from which it is still within `max_links` are followed, and the search ends at its level.
    Without one (`_NOWHERE`), only those whose distance in the whole network is that along the path. Nodes
    below `lowest`, the image `avoid` and two oxygen atoms are never passed.
    """
    _reach(search, 0, start, 0)
    search.n_paths[0] = 1
    n_reached, n_links, head = 1, 0, 0
    goal_depth = 0 if start == goal else max_links
    while head < n_reached and search.depth[head] < goal_depth:
        image = search.code[head]
        atom = image & (links.stride - 1)
        depth = search.depth[head] + 1
        for link in range(links.start[atom], links.start[atom + 1]):
            other = image - atom + links.node[link]
            oxygen = image - atom + links.oxygen[link]
            if (other & (links.stride - 1)) < lowest or other == avoid or oxygen in (avoid_one, avoid_other):
                continue
            index = _index(search, other)
            if index >= 0 and search.depth[index] != depth:
                continue
            if index < 0:
                if goal == _NOWHERE:
                    if _distance(balls, links.stride, start, other) != depth:
                        continue
                elif _distance(balls, links.stride, goal, other) > max_links - depth:
                    continue
                if 2 * n_reached >= search.table.size:
                    _forget(search, n_reached)
                    return -1
                index = n_reached
                _reach(search, index, other, depth)
                n_reached += 1
                if other == goal:
                    goal_depth = depth
            if n_links >= search.next_link.size:
                _forget(search, n_reached)
                return -1
            search.next_link[n_links] = search.last_link[index]
            search.link_from[n_links] = head
            search.link_oxygen[n_links] = oxygen
            search.last_link[index] = n_links
            search.n_paths[index] += search.n_paths[head]
            n_links += 1
        head += 1
    return n_reached


@njit(cache=True)
def _write_path(search: Search, index: int, number: int, nodes: Codes, oxygens: Codes) -> None:
    """Write the number-th path to an image: its nodes after the start, and the oxygen before each."""
    for step in range(search.depth[index] - 1, -1, -1):
        nodes[step] = search.code[index]
        link = search.last_link[index]
        while number >= search.n_paths[search.link_from[link]]:
            number -= search.n_paths[search.link_from[link]]
            link = search.next_link[link]
        oxygens[step] = search.link_oxygen[link]
        index = search.link_from[link]


@njit(cache=True)
def _room(found: Found, size: int) -> bool:
    return found.used[0] < found.size.size and found.used[1] + 2 * size <= found.cycle.size


@njit(cache=True)
def _apart(one: Codes, n_one: int, other: Codes, n_other: int) -> bool:
    for i in range(n_one):
        for j in range(n_other):
            if one[i] == other[j]:
                return False
    return True


@njit(cache=True)
def _without_shortcut(links: Links, balls: Balls, ring: Codes, size: int) -> bool:
    """Whether opposite nodes are as far apart as along the ring; then all pairs are."""
    half = size // 2
    pairs = half if size % 2 == 0 else size
    shortest = half
    for i in range(pairs):
        shortest = min(shortest, _distance(balls, links.stride, ring[i], ring[(i + half) % size]))
    return shortest == half


@njit(cache=True)
def _emit_pair(
    links: Links, balls: Balls, found: Found, root: int, closing: int, paths: tuple[Codes, Codes, Codes, Codes], n: int,
    n_other: int,
) -> None:  # fmt: skip
    """Add the cycle out along one path (n links), over the closing oxygen, back along n_other nodes of another."""
    nodes, oxygens, other_nodes, other_oxygens = paths
    size = 1 + n + n_other
    ring = np.empty(size, np.int64)
    ring[0] = root
    for i in range(n):
        ring[1 + i] = nodes[i]
    for i in range(n_other):
        ring[1 + n + i] = other_nodes[n_other - 1 - i]
    if not _without_shortcut(links, balls, ring, size):
        return
    cycle = found.cycle[found.used[1] :]
    for i in range(size):
        cycle[2 * i] = ring[i]
    for i in range(n):
        cycle[2 * i + 1] = oxygens[i]
    cycle[2 * n + 1] = closing
    for i in range(n_other):
        cycle[2 * (n + 1 + i) + 1] = other_oxygens[n_other - 1 - i]
    found.size[found.used[0]] = size
    found.used[0] += 1
    found.used[1] += 2 * size


@njit(cache=True)
def primitive_cycles(links: Links, balls: Balls, search: Search, found: Found, max_ring: int) -> bool:
    """Two disjoint shortest paths from a root to one image, or to two linked ones, without a shortcut.

    Only paths over nodes not below the root are followed: a ring is found from its lowest node. Returns whether the
    room given was large enough.
    """
    half = max_ring // 2
    room = np.empty((4, half + 1), np.int64)
    nodes, oxygens, other_nodes, other_oxygens = room[0], room[1], room[2], room[3]
    paths = (nodes, oxygens, other_nodes, other_oxygens)
    for root in range(links.start.size - 1):
        if links.start[root] == links.start[root + 1]:
            continue
        n_reached = _search(links, balls, search, root, _NOWHERE, half, root, _NOWHERE, _NOWHERE, _NOWHERE)
        if n_reached < 0:
            return False
        for end in range(1, n_reached):
            depth = search.depth[end]
            for p in range(search.n_paths[end] if 2 * depth <= max_ring else 0):  # rings of even size
                _write_path(search, end, p, nodes, oxygens)
                for q in range(p):
                    _write_path(search, end, q, other_nodes, other_oxygens)
                    if _apart(nodes, depth - 1, other_nodes, depth - 1) and _apart(
                        oxygens, depth, other_oxygens, depth
                    ):
                        if not _room(found, 2 * depth):
                            return False
                        _emit_pair(links, balls, found, root, other_oxygens[depth - 1], paths, depth, depth - 1)
            if 2 * depth + 1 > max_ring:
                continue
            image = search.code[end]
            atom = image & (links.stride - 1)
            for link in range(links.start[atom], links.start[atom + 1]):  # rings of odd size
                other = image - atom + links.node[link]
                closing = image - atom + links.oxygen[link]
                if other <= image:
                    continue
                end_other = _index(search, other)
                if end_other < 0 or search.depth[end_other] != depth:
                    continue
                for p in range(search.n_paths[end]):
                    _write_path(search, end, p, nodes, oxygens)
                    for q in range(search.n_paths[end_other]):
                        _write_path(search, end_other, q, other_nodes, other_oxygens)
                        if (
                            _apart(nodes, depth, other_nodes, depth)
                            and _apart(oxygens, depth, other_oxygens, depth)
                            and not (oxygens[:depth] == closing).any()
                            and not (other_oxygens[:depth] == closing).any()
                        ):
                            if not _room(found, 2 * depth + 1):
                                return False
                            _emit_pair(links, balls, found, root, closing, paths, depth, depth)
        _forget(search, n_reached)
    return True


@njit(cache=True)
def _add_paths(search: Search, found: Found, n_reached: int, goal: int, before: Codes, after: int) -> bool:
    """Add a cycle for every path to the goal: the codes `before` the path's start, the start, path, oxygen `after`."""
    end = _index(search, goal)
    if end < 0:
        return True
    depth = search.depth[end]
    size = before.size // 2 + 1 + depth
    nodes, oxygens = np.empty(depth, np.int64), np.empty(depth, np.int64)
    for number in range(search.n_paths[end]):
        if not _room(found, size):
            return False
        _write_path(search, end, number, nodes, oxygens)
        cycle = found.cycle[found.used[1] :]
        cycle[: before.size] = before
        cycle[before.size] = search.code[0]
        for i in range(depth):
            cycle[before.size + 1 + 2 * i] = oxygens[i]
            cycle[before.size + 2 + 2 * i] = nodes[i]
        cycle[2 * size - 1] = after
        found.size[found.used[0]] = size
        found.used[0] += 1
        found.used[1] += 2 * size
    return True


@njit(cache=True)
def guttman_cycles(links: Links, balls: Balls, search: Search, found: Found, max_ring: int) -> bool:
    """Shortest ways back for every link, past its oxygen. Returns whether the room given was large enough."""
    nothing = np.empty(0, np.int64)
    for u in range(links.start.size - 1):
        for link in range(links.start[u], links.start[u + 1]):
            v, oxygen = links.node[link], links.oxygen[link]
            if (v & (links.stride - 1)) < u:
                continue
            n_reached = _search(links, balls, search, u, v, max_ring - 1, 0, _NOWHERE, oxygen, _NOWHERE)
            if n_reached < 0 or not _add_paths(search, found, n_reached, v, nothing, oxygen):
                return False
            _forget(search, n_reached)
    return True


@njit(cache=True)
def king_cycles(links: Links, balls: Balls, search: Search, found: Found, max_ring: int) -> bool:
    """Shortest ways between every two neighbours of a node, past it. Returns whether the room was large enough."""
    before = np.empty(2, np.int64)
    for u in range(links.start.size - 1):
        for one in range(links.start[u], links.start[u + 1]):
            for other in range(links.start[u], one):
                if links.oxygen[one] == links.oxygen[other]:
                    continue
                start, goal = links.node[one], links.node[other]
                before[0], before[1] = u, links.oxygen[one]
                n_reached = _search(
                    links, balls, search, start, goal, max_ring - 2, 0, u, links.oxygen[one], links.oxygen[other]
                )
                if n_reached < 0 or not _add_paths(search, found, n_reached, goal, before, links.oxygen[other]):
                    return False
                _forget(search, n_reached)
    return True


_KERNELS = {"guttman": guttman_cycles, "king": king_cycles, "primitive": primitive_cycles}


def _scratch(room: int) -> Search:
    def numbers(size: int) -> Codes:
        return np.empty(size, np.int64)

    reached, recorded = numbers(room), numbers(8 * room)
    return Search(
        np.full(2 * room, -1, np.int64), reached, numbers(room), numbers(room), numbers(room), recorded,
        numbers(8 * room), numbers(8 * room),
    )  # fmt: skip


def find_cycles(links: Links, definition: str, max_ring: int) -> list[Codes]:
    """Cycles of every size found, each an array (n_cycles, 2 size) of former, oxygen, former, ... codes.

    A cycle may come more than once, in any rotation and direction and moved by a lattice vector. `definition` is
    one of those of `alloop.glass.rings`.
    """
    room = 1024
    enough = False
    while not enough:
        search = _scratch(room)
        start, code, depth, enough = measure_balls(links, max_ring // 2, search)
        if enough:
            most = max(room, 2 * len(links.node))
            found = Found(np.empty(most, np.int64), np.empty(16 * most, np.int64), np.zeros(2, np.int64))
            balls = Balls(start, code, depth, max_ring // 2)
            enough = _KERNELS[definition](links, balls, search, found, max_ring)
        room *= 4
    sizes, ends = found.size[: found.used[0]], np.cumsum(2 * found.size[: found.used[0]])
    return [found.cycle[(ends[sizes == size] - 2 * size)[:, None] + np.arange(2 * size)] for size in np.unique(sizes)]
