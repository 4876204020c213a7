"""What a forward pass leaves behind for the backward pass, operation by operation.

A `Tape` runs a layer on sizes alone. Every operation notes the tensors that torch's autograd saves for it
(`derivatives.yaml`: a product keeps its factors, a softmax its output, a linear layer its input when the weight is
trained) and `Tape.measure` walks the operations forwards and backwards as the autograd engine does, so that it knows
the bytes kept and the bytes that come and go. Sizes are elements and bytes for one device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Tag = Literal["activations", "attention scores", "cross-attention scores", "weight copies", "logits"]
"""What a saved tensor is listed under."""


class Store:
    """Memory that tensors share. `tag` is empty for what is never counted (parameters)."""

    __slots__ = ("size", "tag")

    def __init__(self, size: int, tag: Tag) -> None:
        self.size = size
        self.tag = tag


class Var:
    """A tensor: `elements` of `width` bytes, in `store`; `grad`: a gradient flows to it."""

    __slots__ = ("elements", "grad", "store", "width")

    def __init__(self, elements: int, width: int, grad: bool, store: Store) -> None:
        self.elements = elements
        self.width = width
        self.grad = grad
        self.store = store

    @property
    def size(self) -> int:
        return self.elements * self.width


class Node:
    """An operation: stores `saved` for its backward, bytes of `weight_grad` that this leaves, bytes of work of each."""

    __slots__ = ("backward_work", "forward_work", "inputs", "out", "parts", "passes", "saved", "weight_grad")

    def __init__(
        self,
        inputs: Sequence[Var],
        out: Var,
        saved: Sequence[Store],
        weight_grad: int,
        forward_work: int,
        backward_work: int,
        passes: bool,
    ) -> None:
        self.inputs = inputs
        self.out = out
        self.saved = saved
        self.weight_grad = weight_grad
        self.forward_work = forward_work
        self.backward_work = backward_work
        self.passes = passes
        """The gradient goes on as it is (sums, views): no new tensor."""
        self.parts: tuple[Var, ...] = ()
        """Further results of a split, whose gradients are joined into one."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a piece of a model costs in bytes.

    `saved`: kept from the forward to the backward pass, by tag. `forward`: the most that is alive during the forward
    pass beside what was there before. `backward`: the same during the backward pass, the saved tensors and weight
    gradients included. `weight_grads`: gradients of weights left at the end.
    """

    saved: dict[Tag, int] = field(default_factory=dict)
    forward: int = 0
    backward: int = 0
    weight_grads: int = 0
    unsaved: int = 0
    """As `forward`, when nothing is kept for a backward pass (a checkpointed layer's first run)."""
    output: int = 0
    """The output, and its gradient."""

    @property
    def saved_bytes(self) -> int:
        return sum(self.saved.values())


class Tape:
    """Collects operations. The methods below are torch's building blocks; `layers.py` writes models with them."""

    def __init__(self, *, in_place: bool = True) -> None:
        self.nodes: list[Node] = []
        self.tag: Tag = "activations"
        self.in_place = in_place
        """Gradients that meet are added in place where nobody else holds the first. Not under a dispatch mode such as
        MemTracker's (torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`)."""

    # Tensors

    def var(self, elements: int, width: int, *, grad: bool = True, tag: Tag | None = None) -> Var:
        return Var(elements, width, grad, Store(elements * width, tag or self.tag))

    def record(
        self,
        inputs: Sequence[Var],
        out: Var,
        saved: Iterable[Store] = (),
        *,
        weight_grad: int = 0,
        forward_work: int = 0,
        backward_work: int = 0,
        passes: bool = False,
    ) -> Var:
        kept = tuple(saved) if out.grad else ()
        self.nodes.append(Node(inputs, out, kept, weight_grad, forward_work, backward_work, passes))
        return out

    # Operations

    def view(self, x: Var, elements: int | None = None) -> Var:
        """The same memory seen otherwise: reshape, transpose, slice."""
        out = Var(x.elements if elements is None else elements, x.width, x.grad, x.store)
        return self.record((x,), out, passes=elements is None or elements == x.elements)

    def split(self, x: Var, *elements: int) -> list[Var]:
        """Slices of one tensor, in its memory; their gradients are concatenated."""
        parts = [Var(n, x.width, x.grad, x.store) for n in elements]
        self.record((x,), parts[0])
        self.nodes[-1].parts = tuple(parts[1:])
        return parts

    def copy(self, x: Var, elements: int | None = None) -> Var:
        """A copy that nothing is saved for: contiguous, cat, repeat, gather."""
        out = self.var(x.elements if elements is None else elements, x.width, grad=x.grad)
        return self.record((x,), out)

    def cast(self, x: Var, width: int) -> Var:
        if x.width == width:
            return x
        return self.record((x,), self.var(x.elements, width, grad=x.grad))

    def plain(self, x: Var, elements: int | None = None) -> Var:
        """A map whose derivative needs no tensor: scaling by a number, adding a constant, negation."""
        out = self.var(x.elements if elements is None else elements, x.width, grad=x.grad)
        return self.record((x,), out)

    def keep_input(self, x: Var, elements: int | None = None) -> Var:
        """A map that saves its input: pow, gelu, silu."""
        out = self.var(x.elements if elements is None else elements, x.width, grad=x.grad)
        return self.record((x,), out, (x.store,))

    def keep_output(self, x: Var) -> Var:
        """A map that saves its output: tanh, sigmoid, relu, rsqrt."""
        out = self.var(x.elements, x.width, grad=x.grad)
        return self.record((x,), out, (out.store,))

    def softmax(self, x: Var, width: int | None = None) -> Var:
        """softmax along the last dimension, in `width` bytes; saves its output."""
        out = self.var(x.elements, width or x.width, grad=x.grad)
        return self.record((x,), out, (out.store,))

    def add(self, x: Var, y: Var) -> Var:
        """Sum of two tensors of the same shape; the wider type wins."""
        out = self.var(max(x.elements, y.elements), max(x.width, y.width), grad=x.grad or y.grad)
        same = x.width == y.width == out.width and x.elements == y.elements
        return self.record((x, y), out, passes=same)

    def mul(self, x: Var, y: Var) -> Var:
        """Elementwise product: each factor is saved for the other's gradient."""
        out = self.var(max(x.elements, y.elements), max(x.width, y.width), grad=x.grad or y.grad)
        saved = [y.store] if x.grad else []
        if y.grad:
            saved.append(x.store)
        return self.record((x, y), out, saved)

    def matmul(self, a: Var, b: Var, elements: int) -> Var:
        """Product of two activations, `elements` of the result."""
        out = self.var(elements, max(a.width, b.width), grad=a.grad or b.grad)
        saved = [b.store] if a.grad else []
        if b.grad:
            saved.append(a.store)
        return self.record((a, b), out, saved)

    def scale(self, x: Var, weight: int, *, trained: bool) -> Var:
        """Product with a weight vector of `weight` elements, which is in the model's weights already."""
        grad = x.grad or trained
        out = self.var(x.elements, x.width, grad=grad)
        # The gradient of the vector is a product of the size of x before it is summed.
        work = x.size if trained else 0
        return self.record(
            (x,),
            out,
            (x.store,) if trained else (),
            weight_grad=weight * x.width if trained else 0,
            backward_work=work,
        )

    def dropout(self, x: Var, p: float, mask_width: int) -> Var:
        """Dropout: a mask of `mask_width` bytes an element (1 on CUDA; on a CPU torch keeps the noise in x's type)."""
        if p <= 0.0:
            return x
        out = self.var(x.elements, x.width, grad=x.grad)
        mask = Store(x.elements * mask_width, self.tag)
        return self.record((x,), out, (mask,))

    # Measuring

    def measure(
        self, inputs: Sequence[Var], output: Var, *, counted: Sequence[Var] = (), held: Sequence[Var] = ()
    ) -> Footprint:
        """The `Footprint` of the operations between `inputs` and `output`, whose gradient the backward pass is given.

        `inputs` are not counted (their owner counts them) unless they are in `counted` and saved; `held` are kept by a
        variable of the program until the forward pass ends.
        """
        own = {id(v.store) for v in counted}
        outside = {id(v.store) for v in inputs} - own
        refs: dict[int, int] = {}
        sizes: dict[int, int] = {}
        saved: dict[Tag, int] = {}
        for node in self.nodes:
            for store in node.saved:
                key = id(store)
                if key in refs:
                    refs[key] += 1
                    continue
                refs[key] = 1
                if key in outside:
                    sizes[key] = 0
                    continue
                sizes[key] = store.size
                saved[store.tag] = saved.get(store.tag, 0) + store.size
        last = self._last_use((output, *held))
        forward = self._forward(outside, refs, sizes, last)
        unsaved = self._forward(outside, {}, {}, last)
        backward, weight_grads = self._backward(refs, sizes, sum(saved.values()), output)
        return Footprint(saved, forward, backward, weight_grads, unsaved, output.size)

    def _last_use(self, held: Sequence[Var]) -> dict[int, int]:
        last: dict[int, int] = {}
        for i, node in enumerate(self.nodes):
            for v in node.inputs:
                last[id(v.store)] = i
            last.setdefault(id(node.out.store), i)
        last.update({id(v.store): len(self.nodes) for v in held})
        return last

    def _forward(self, outside: set[int], refs: dict[int, int], sizes: dict[int, int], last: dict[int, int]) -> int:
        live = peak = 0
        born: set[int] = set()
        counted = 0
        held: set[int] = set()
        for i, node in enumerate(self.nodes):
            key = id(node.out.store)
            if key not in born and key not in outside:
                born.add(key)
                if key not in refs:
                    live += node.out.store.size
            for store in node.saved if refs else ():
                skey = id(store)
                if skey not in held:
                    held.add(skey)
                    counted += sizes[skey]
            # A tensor that a later operation saves is alive from its birth on.
            pending = node.out.store.size if key in refs and key not in held and key not in outside else 0
            peak = max(peak, live + counted + pending + node.forward_work)
            for v in node.inputs:
                vkey = id(v.store)
                if last[vkey] == i and vkey in born and vkey not in refs:
                    born.discard(vkey)
                    live -= v.store.size
            if last[key] == i and key in born and key not in refs:
                born.discard(key)
                live -= node.out.store.size
        return peak

    def _backward(self, refs: dict[int, int], sizes: dict[int, int], saved: int, output: Var) -> tuple[int, int]:
        left = dict(refs)
        grads: dict[int, list[int]] = {}
        """Var -> [bytes of its gradient, the buffer it lives in]."""
        users: dict[int, int] = {}
        buffer = 1
        live = saved + output.size
        grads[id(output)] = [output.size, buffer]
        users[buffer] = 1
        weight_grads = 0
        peak = live
        for node in reversed(self.nodes):
            given = grads.pop(id(node.out), None)
            joined = [g for g in (grads.pop(id(p), None) for p in node.parts) if g is not None]
            if given is None and joined:
                given = joined.pop()
            if given is None:
                for store in node.saved:
                    live -= self._drop(store, left, sizes)
                continue
            size, held_in = given
            arrived: dict[int, Var] = {id(v): v for v in node.inputs if v.grad}
            for key, v in arrived.items():
                if node.passes:
                    new_buffer = held_in
                    users[held_in] += 1
                else:
                    buffer += 1
                    new_buffer = buffer
                    users[new_buffer] = 1
                    live += v.size
                if key in grads:
                    # Two gradients meet: summed in place when the first is nobody else's, into a new tensor otherwise.
                    old = grads[key][1]
                    if users[old] > 1 or node.passes or not self.in_place:
                        live += v.size
                        peak = max(peak, live + weight_grads + node.weight_grad + node.backward_work)
                        live -= self._leave(old, users, v.size) + self._leave(new_buffer, users, v.size)
                        buffer += 1
                        users[buffer] = 1
                        grads[key] = [v.size, buffer]
                    else:
                        peak = max(peak, live + weight_grads + node.weight_grad + node.backward_work)
                        live -= self._leave(new_buffer, users, v.size)
                else:
                    grads[key] = [v.size, new_buffer]
            weight_grads += node.weight_grad
            peak = max(peak, live + weight_grads + node.backward_work)
            live -= self._leave(held_in, users, size)
            for part_size, part_in in joined:
                live -= self._leave(part_in, users, part_size)
            for store in node.saved:
                live -= self._drop(store, left, sizes)
        return peak, weight_grads

    @staticmethod
    def _leave(buffer: int, users: dict[int, int], size: int) -> int:
        users[buffer] -= 1
        return size if users[buffer] == 0 else 0

    @staticmethod
    def _drop(store: Store, left: dict[int, int], sizes: dict[int, int]) -> int:
        key = id(store)
        left[key] -= 1
        return sizes[key] if left[key] == 0 else 0
