"""Views: a tensor as an arrangement of another one's elements, without moving any.

Transpositions and reshapings compose into one view. The axes of both tensors are cut into
atoms, so that each axis is a product of atoms: NHWC seen as NCHW, a channel shuffle and
the heads of an attention all are a permutation of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

Shape = tuple[int, ...]
Axes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class View:
    """Atoms are numbered in the order of the stored tensor; `stored` and `seen` name each axis's.

    An atom of extent 1 may be in no axis that is seen, and an axis of extent 1 without atoms.
    """

    extents: Shape
    stored: Axes
    seen: Axes

    @staticmethod
    @lru_cache(1024)
    def of(shape: Shape) -> View:
        """A tensor as it is stored."""
        axes = tuple((axis,) for axis in range(len(shape)))
        return View(extents=shape, stored=axes, seen=axes)

    @cached_property
    def shape(self) -> Shape:
        """The shape that is seen."""
        return self._shape(self.seen)

    @cached_property
    def stored_shape(self) -> Shape:
        """The shape that is stored."""
        return self._shape(self.stored)

    def _shape(self, axes: Axes) -> Shape:
        return tuple(prod(self.extents[atom] for atom in axis) for axis in axes)

    def _long(self, axis: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(atom for atom in axis if self.extents[atom] > 1)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Atoms longer than 1 in the order in which they are seen."""
        return tuple(atom for axis in self.seen for atom in self._long(axis))

    @property
    def in_order(self) -> bool:
        """Whether the elements are seen in the order in which they are stored."""
        return list(self.order) == sorted(self.order)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for views that show the same elements in the same places."""
        return *self.runs, self.shape, self.stored_shape

    @cached_property
    def runs(self) -> tuple[Shape, Shape, Shape]:
        """The fewest axes that do it: extents as stored, and as seen, and the permutation between."""
        rank = {atom: number for number, atom in enumerate(sorted(self.order))}
        groups: list[list[int]] = []
        for atom in self.order:
            if groups and rank[groups[-1][-1]] + 1 == rank[atom]:
                groups[-1].append(atom)
            else:
                groups.append([atom])
        sizes = [prod(self.extents[atom] for atom in group) for group in groups]
        by_place = sorted(range(len(groups)), key=lambda number: groups[number][0])
        permute = tuple(by_place.index(number) for number in range(len(groups)))
        return tuple(sizes[number] for number in by_place), tuple(sizes), permute

    @cached_property
    def axes(self) -> dict[int, int]:
        """For each axis seen that is one of the stored ones as a whole, which one."""
        found = {}
        for place, atoms in enumerate(self.seen):
            for axis, held in enumerate(self.stored):
                if atoms and (
                    atoms == held or (self._long(atoms) and self._long(atoms) == self._long(held))
                ):
                    found[place] = axis
        return found

    def transposed(self, permute: Shape) -> View:
        """The axes seen in another order."""
        return View(self.extents, self.stored, tuple(self.seen[axis] for axis in permute))

    def reshaped(self, shape: Shape) -> View | None:
        """Another shape for what is seen; None if its axes cannot be cut so."""
        queue = [(atom, self.extents[atom]) for axis in self.seen for atom in axis][::-1]
        parts: dict[int, list[int]] = {atom: [] for atom in range(len(self.extents))}
        axes: list[list[tuple[int, int]]] = []
        for extent in shape:
            axis: list[tuple[int, int]] = []
            need = extent
            if need == 1 and queue and queue[-1][1] == 1:
                atom, _ = queue.pop()
                parts[atom].append(1)
                axis.append((atom, len(parts[atom]) - 1))
            while need > 1:
                if not queue:
                    return None
                atom, size = queue.pop()
                if size == 1:
                    continue
                taken = size if need % size == 0 else need
                if size % taken:
                    return None
                if taken < size:
                    queue.append((atom, size // taken))
                parts[atom].append(taken)
                axis.append((atom, len(parts[atom]) - 1))
                need //= taken
            axes.append(axis)
        return self._renumbered(parts, axes)

    def _renumbered(self, parts: dict[int, list[int]], axes: list[list[tuple[int, int]]]) -> View:
        extents: list[int] = []
        first = {}
        for atom, extent in enumerate(self.extents):
            first[atom] = len(extents)
            extents += parts[atom] or [extent]
        stored = tuple(
            tuple(first[atom] + number for atom in axis for number in range(len(parts[atom]) or 1))
            for axis in self.stored
        )
        seen = tuple(tuple(first[atom] + number for atom, number in axis) for axis in axes)
        return View(tuple(extents), stored, seen)

    def resized(self, shape: Shape) -> View | None:
        """The same arrangement of a tensor with other extents; None if such an axis is not stored whole."""
        if shape == self.shape:
            return self
        extents, stored, seen = list(self.extents), list(self.stored), list(self.seen)
        for place, extent in enumerate(shape):
            if extent == self.shape[place]:
                continue
            if place not in self.axes:
                return None
            held = stored[self.axes[place]]
            extents[held[0]] = extent
            for atom in held[1:]:
                extents[atom] = 1
            seen[place] = held
        return View(tuple(extents), tuple(stored), tuple(seen))

    def arrangement(self) -> Shape | None:
        """The permutation of whole axes that it is, stored to seen; None if it is more than that."""
        places = {atom: number for number, atom in enumerate(sorted(self.order))}
        for axis in self.seen:
            ranks = [places[atom] for atom in self._long(axis)]
            if ranks != list(range(ranks[0], ranks[0] + len(ranks)) if ranks else []):
                return None
        ends: list[tuple[int, int]] = []
        for number, axis in enumerate(self.seen):
            ends.append((min(axis) if axis else ends[-1][0] if ends else -1, number))
        by_place = sorted(ends)
        return tuple(by_place.index(end) for end in ends)

    def laid(self, other: View) -> View | None:
        """`other`, which is seen in this view's shape or broadcasts to it, seen as this one is stored.

        None if it cannot be so: where an axis that is stored would be repeated in part.
        """
        rank = len(self.seen)
        if len(other.seen) > rank:
            return None
        shape = (1,) * (rank - len(other.shape)) + other.shape
        repeated = {
            atom
            for axis, extent, own in zip(self.seen, shape, self.shape, strict=True)
            if extent == 1 and own > 1
            for atom in self._long(axis)
        }
        if any(repeated & set(axis) and set(self._long(axis)) - repeated for axis in self.stored):
            return None
        order = [atom for axis in self.seen for atom in self._long(axis)]
        split = other.reshaped(tuple(1 if atom in repeated else self.extents[atom] for atom in order))
        if split is None:
            return None
        moved = split.transposed(tuple(sorted(range(len(order)), key=order.__getitem__)))
        return moved.reshaped(
            tuple(
                prod(1 if atom in repeated else self.extents[atom] for atom in axis) for axis in self.stored
            )
        )
