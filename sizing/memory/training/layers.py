"""Layers of each model type as programs on a tape, and what they leave behind (`layer_footprint`)."""

from __future__ import annotations

from functools import lru_cache

from sizing.memory.training.dialects import Dialect
from sizing.memory.training.ops import Ops
from sizing.memory.training.recipe import Recipe
from sizing.memory.training.tape import Footprint, Store, Var
from sizing.models.facts import Stack


@lru_cache(maxsize=4096)
def layer_footprint(
    stack: Stack,
    dialect: Dialect,
    recipe: Recipe,
    batch: int,
    tokens: int,
    source: int = 0,
    *,
    input_grad: bool = True,
    moe: bool = False,
) -> Footprint:
    """Bytes that one layer of `stack` keeps and needs for `batch` sequences of `tokens`.

    `source`: tokens of the encoder's output (cross-attention), 0 for none. `input_grad`: a gradient flows into the
    layer (not in the first layer of a model whose embeddings are frozen). The layer's input counts where it is saved.
    """
    ops = Ops(recipe)
    program = Layer(ops, stack, dialect, batch, tokens, source, moe=moe)
    x = ops.var(batch * tokens * stack.hidden_size, recipe.stream, grad=input_grad)
    encoded = ops.var(batch * source * stack.hidden_size, recipe.stream) if source else None
    out = program.run(x, encoded)
    return ops.measure((x,) if encoded is None else (x, encoded), out, counted=(x,))


class Layer:
    """One layer as a program. Heads and MLP width are those of one tensor-parallel rank."""

    def __init__(
        self, ops: Ops, stack: Stack, dialect: Dialect, batch: int, tokens: int, source: int, *, moe: bool
    ) -> None:
        self.ops, self.stack, self.dialect = ops, stack, dialect
        self.batch, self.tokens, self.source, self.moe = batch, tokens, source, moe
        shard = ops.recipe.shard
        self.heads = max(1, stack.heads // shard)
        self.kv_heads = max(1, stack.kv_heads // shard)
        self.width = self.heads * stack.head_dim
        self.kv_width = self.kv_heads * stack.head_dim
        self.ff = max(1, stack.intermediate_size // shard)
        self.hidden = stack.hidden_size

    def run(self, x: Var, encoded: Var | None) -> Var:
        d, ops = self.dialect, self.ops
        if d.block == "parallel":
            first = self.norm(x)
            attended = self.out_drop(self.attend(first))
            second = self.norm(x) if d.two_norms else first
            return ops.add(ops.add(self.mlp_drop(self.mlp(second)), attended), x)
        if d.block == "post":
            x = self.norm(ops.add(self.out_drop(self.attend(x)), x))
            if encoded is not None:
                x = self.norm(ops.add(self.out_drop(self.attend(x, encoded)), x))
            return self.norm(ops.add(self.mlp_drop(self.mlp(x)), x))
        sandwich = d.block == "sandwich"
        attended = self.out_drop(self.attend(self.norm(x)))
        x = ops.add(x, self.norm(attended) if sandwich else attended)
        if encoded is not None:
            x = ops.add(x, self.out_drop(self.attend(self.norm(x), encoded)))
        fed = self.mlp_drop(self.mlp(self.norm(x)))
        return ops.add(x, self.norm(fed) if sandwich else fed)

    def norm(self, x: Var) -> Var:
        return self.ops.norm(self.dialect.norm, x, self.hidden)

    def out_drop(self, x: Var) -> Var:
        return self.ops.drop(x, self.stack.dropout) if self.dialect.output_dropout else x

    def mlp_drop(self, x: Var) -> Var:
        return self.ops.drop(x, self.stack.dropout) if self.dialect.mlp_dropout else x

    # Attention

    def attend(self, x: Var, encoded: Var | None = None) -> Var:
        d, ops, stack = self.dialect, self.ops, self.stack
        if d.kind == "deberta":
            return self.deberta(x)
        if d.kind == "xlnet":
            return self.xlnet(x)
        cross = encoded is not None
        names, out_name = d.qkv, d.out
        if cross and d.cross:
            names, out_name = d.cross[:3], d.cross[3]
        source = x if encoded is None else encoded
        keys = self.tokens if encoded is None else self.source
        if len(names) == 1:
            fused = ops.linear(names[0], x, self.width + 2 * self.kv_width, self.hidden)
            rows = self.batch * self.tokens
            q, k, v = ops.split(fused, rows * self.width, rows * self.kv_width, rows * self.kv_width)
        else:
            q = ops.linear(names[0], x, self.width, self.hidden)
            k = ops.linear(names[1], source, self.kv_width, self.hidden)
            v = ops.linear(names[2], source, self.kv_width, self.hidden)
        kv_heads = self.kv_heads
        if d.copies_kv and self.kv_heads == 1:
            k, v = ops.copy(k), ops.copy(v)
        if d.repeat_values and self.kv_heads != self.heads:
            q, k, v = ops.copy(q), ops.copy(k, q.elements), ops.copy(v, q.elements)
            kv_heads = self.heads
        if stack.qk_norm and not cross:
            q, k = ops.norm(d.norm, q, stack.head_dim), ops.norm(d.norm, k, stack.head_dim)
        if stack.position == "rotary" and not cross:
            q, k = ops.rotate(q), ops.rotate(k)
        out = ops.attention(
            d,
            q,
            k,
            v,
            heads=self.heads,
            kv_heads=kv_heads,
            queries=self.tokens,
            keys=keys,
            batch=self.batch,
            dropout=stack.attention_dropout,
            bias=self.bias(keys, cross=cross),
            cross=cross,
        )
        return ops.linear(out_name, out, self.hidden, self.width)

    def bias(self, keys: int, *, cross: bool) -> int:
        """Elements of the position bias that a layer of T5 makes its own: merged with a causal or a padding mask, or
        put in order (`create_position_bias_mask`). The zeros of cross-attention are one tensor for all layers."""
        if not self.dialect.learned_bias:
            return 0
        own = self.heads * self.tokens * keys
        if self.ops.recipe.padded:
            return self.batch * own
        return 0 if cross else own

    def deberta(self, x: Var) -> Var:
        """DeBERTa v2's disentangled attention: content-to-position and position-to-content scores beside the content
        scores, gathered by relative position (arXiv:2006.03654; `DisentangledSelfAttention`)."""
        d, ops, stack = self.dialect, self.ops, self.stack
        q, k, v = (ops.copy(ops.linear(name, x, self.width, self.hidden)) for name in d.qkv)
        span = 2 * 256
        before, ops.tag = ops.tag, "attention scores"
        size = self.batch * self.heads * self.tokens**2
        scores = ops.matmul(q, ops.plain(k), size)
        table = ops.var(span * self.hidden, q.width, grad=ops.recipe.full)
        table = ops.drop(table, stack.dropout)
        for name in ("key_proj", "query_proj"):
            place = ops.copy(ops.linear(name, table, self.width, self.hidden), self.batch * span * self.width)
            other = q if name == "key_proj" else k
            met = ops.matmul(other, place, self.batch * self.heads * self.tokens * span)
            index = Store(8 * self.tokens**2, ops.tag)
            # gather keeps what it picks from.
            gathered = ops.record((met,), ops.var(size, met.width, grad=met.grad), (met.store, index))
            scores = ops.add(scores, ops.plain(gathered))
        mask = Store(self.batch * self.tokens**2, ops.tag)
        scores = ops.record((scores,), ops.var(size, scores.width, grad=scores.grad), (mask,))
        if ops.recipe.autocast and ops.recipe.cuda:
            scores = ops.cast(scores, 4)
        probs = ops.drop(ops.softmax(scores), stack.attention_dropout)
        if ops.recipe.autocast:
            probs = ops.cast(probs, ops.recipe.autocast)
        ops.tag = before
        out = ops.copy(ops.matmul(probs, v, q.elements))
        return ops.linear(d.out, out, self.hidden, self.width)

    def xlnet(self, x: Var) -> Var:
        """XLNet's relative attention: content and position scores, the latter shifted (arXiv:1906.08237)."""
        d, ops, stack = self.dialect, self.ops, self.stack
        q, k, v = (ops.linear(name, x, self.width, self.hidden) for name in d.qkv)
        rows = self.batch * self.tokens
        place = ops.var(2 * rows * self.hidden, x.width, grad=False)
        r = ops.linear("r", place, self.width, self.hidden)
        before, ops.tag = ops.tag, "attention scores"
        size = self.batch * self.heads * self.tokens**2
        content = ops.matmul(ops.copy(ops.plain(q)), ops.copy(k), size)
        shifted = ops.matmul(ops.copy(ops.plain(q)), ops.copy(r), 2 * size)
        shifted = ops.plain(ops.copy(shifted), size)
        scores = ops.plain(ops.plain(ops.add(content, shifted)))
        if ops.recipe.autocast and ops.recipe.cuda:
            scores = ops.cast(scores, 4)
        probs = ops.drop(ops.softmax(scores), stack.dropout)
        if ops.recipe.autocast:
            probs = ops.cast(probs, ops.recipe.autocast)
        ops.tag = before
        out = ops.copy(ops.matmul(probs, ops.copy(v), q.elements))
        if out.grad:
            # einsum turns the output matrix around and keeps the copy.
            ops.record((out,), out, (Store(self.hidden * self.width * out.width, "weight copies"),))
        return ops.linear(d.out, out, self.hidden, self.width)

    # MLP

    def mlp(self, x: Var) -> Var:
        if self.moe:
            return self.experts(x)
        d, ops = self.dialect, self.ops
        activation = d.activation or self.stack.activation
        if not d.gate:
            inner = ops.activate(activation, ops.linear(d.up, x, self.ff, self.hidden))
        elif d.gate == d.up:
            rows = x.elements // self.hidden
            fused = ops.linear(d.up, x, 2 * self.ff, self.hidden)
            gate, up = ops.split(fused, rows * self.ff, rows * self.ff)
            inner = ops.mul(up, ops.activate(activation, gate))
        else:
            gate = ops.linear(d.gate, x, self.ff, self.hidden)
            if ops.recipe.compiled:
                # The partitioner recomputes the activation from what went into it.
                up = ops.linear(d.up, x, self.ff, self.hidden)
                inner = ops.record((gate, up), ops.var(up.elements, up.width, grad=up.grad), (gate.store, up.store))
            else:
                inner = ops.mul(ops.activate(activation, gate), ops.linear(d.up, x, self.ff, self.hidden))
        if d.inner_dropout:
            inner = ops.drop(inner, self.stack.dropout)
        return ops.linear(d.down, inner, self.hidden, self.ff)

    def experts(self, x: Var) -> Var:
        """A mixture: every token passes `experts_per_token` of the experts (transformers 5's grouped products)."""
        d, ops, stack = self.dialect, self.ops, self.stack
        chosen = stack.experts_per_token
        rows = x.elements // self.hidden
        routed = ops.linear("gate", x, stack.experts, self.hidden)
        odds = ops.softmax(ops.cast(routed, 4))
        weights = ops.record((odds,), ops.var(rows * chosen, 4, grad=odds.grad), (Store(rows * chosen * 8, ops.tag),))
        weights = ops.record(
            (weights,), ops.var(rows * chosen, 4, grad=odds.grad), (Store(rows * 4, ops.tag), weights.store)
        )
        order = Store(3 * rows * chosen * 8, ops.tag)
        given = ops.record((x,), ops.var(rows * chosen * self.hidden, x.width, grad=x.grad), (order,))
        ff = self.ff // chosen
        fused = self.grouped(given, 2 * ff, self.hidden)
        gate, up = ops.split(fused, fused.elements // 2, fused.elements // 2)
        if d.clamped_experts:
            # gpt-oss: clamp both, gate · sigmoid(α · gate), times up + 1.
            gate, up = ops.plain(ops.keep_input(gate)), ops.plain(ops.keep_input(up))
            inner = ops.mul(ops.plain(up), ops.mul(gate, ops.keep_output(ops.plain(gate))))
        else:
            inner = ops.mul(ops.activate(d.activation or stack.activation, gate), up)
        back = self.grouped(inner, self.hidden, ff)
        kept = (back.store, weights.store)
        out = ops.record((back, weights), ops.var(back.elements, 4), kept, backward_work=back.elements * 4)
        return ops.plain(ops.cast(out, x.width), x.elements)

    def grouped(self, x: Var, out_features: int, in_features: int) -> Var:
        """One product for all experts (`torch.nn.functional.grouped_mm`, which autocast leaves alone)."""
        ops, r = self.ops, self.ops.recipe
        trained = r.full and not r.quantized
        out = ops.var(x.elements // in_features * out_features, x.width, grad=x.grad or trained)
        matrices = self.stack.experts * in_features * out_features
        gradient = matrices * int(r.weights) if trained else 0
        work = matrices * r.compute if r.quantized else 0
        return ops.record(
            (x,), out, (x.store,) if trained else (), weight_grad=gradient, forward_work=work, backward_work=work
        )
