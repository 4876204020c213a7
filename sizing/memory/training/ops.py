"""The building blocks of a layer under a `Recipe`: linear layers, adapters, quantized weights, norms, attention."""

from __future__ import annotations

from sizing.memory.training.dialects import Dialect
from sizing.memory.training.recipe import Recipe
from sizing.memory.training.tape import Store, Tape, Var

GPTQ_UNPACKING_BYTES = 8
"""Per weight: shifted int32, masked int16 and the 16-bit product with the scales (auto_gptq `qlinear_cuda.py`)."""
STATISTIC_BYTES = 4
"""LayerNorm's mean and reciprocal deviation, attention's log-sum-exp: fp32 a row."""


class Ops(Tape):
    """A `Tape` that knows the recipe: what is trained and in which widths."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(in_place=recipe.cuda)
        self.recipe = recipe

    # Linear layers

    def linear(self, name: str, x: Var, out_features: int, in_features: int, *, trained: bool | None = None) -> Var:
        """`torch.nn.Linear` (or its quantized stand-in) called `name`, with its LoRA adapter where it has one.

        Autograd keeps the input only for a trained weight. Under autocast the input is cast anew for every layer, and
        the cast of a 32-bit weight is kept for the gradient of the input. A quantized weight is expanded for the
        product and again for its gradient (bitsandbytes `MatMul4Bit`); `MatMul8bitLt` keeps its input.
        """
        r = self.recipe
        learns = r.full and not r.quantized if trained is None else trained
        rows = x.elements // in_features
        given = x
        if r.quantized == "4bit" and trained is None:
            x = self.cast(x, r.compute)
        elif r.autocast:
            x = self.cast(x, r.autocast)
        width = r.autocast or x.width
        out = self.var(rows * out_features, width, grad=x.grad or learns)
        matrix = in_features * out_features
        keeps = r.quantized == "int8" or (r.quantized == "4bit" and r.keeps_4bit_input)
        saved = [x.store] if learns or (keeps and trained is None) else []
        work = 0
        if r.quantized == "4bit" and trained is None:
            work = matrix * r.compute
        elif r.quantized == "gptq" and trained is None:
            # auto-gptq without exllama unpacks in torch (int32, int16, then 16-bit) and autograd keeps the weight.
            work = matrix * GPTQ_UNPACKING_BYTES
            if x.grad:
                saved.append(Store(matrix * r.compute, "weight copies"))
        elif r.autocast and r.weights != r.autocast and not (r.quantized and trained is None):
            saved.append(Store(matrix * r.autocast, "weight copies"))
        stored = int(r.weights) if r.weights >= 1 else 2
        grad = matrix * stored if learns else 0
        casts = matrix * r.autocast if learns and r.autocast and stored != r.autocast else 0
        self.record((x,), out, saved, weight_grad=grad, forward_work=work, backward_work=max(work, casts))
        if r.quantized == "4bit" and trained is None:
            out = self.cast(out, given.width if not r.autocast else r.autocast)
        if r.rank and r.adapts(name) and trained is None:
            out = self._adapt(given, out, rows, out_features, in_features)
        return out

    def _adapt(self, x: Var, result: Var, rows: int, out_features: int, in_features: int) -> Var:
        """LoRA: `result + B(A(dropout(cast(x)))) · scale` (PEFT `lora/layer.py`, arXiv:2106.09685)."""
        r = self.recipe
        narrow = self.cast(x, r.adapter)
        if r.adapter_dropout:
            narrow = self.dropout(narrow, r.adapter_dropout, 1 if r.cuda else narrow.width)
        if r.autocast:
            narrow = self.cast(narrow, r.autocast)
        low = self.var(rows * r.rank, narrow.width)
        a_trained = r.adapter_a_trained
        size_a, size_b = in_features * r.rank * r.adapter, out_features * r.rank * r.adapter
        saved = [narrow.store] if a_trained else []
        kept = [low.store]
        if r.autocast and r.adapter != r.autocast:
            # The casts of the matrices, for the gradients of what they multiply.
            if narrow.grad:
                saved.append(Store(in_features * r.rank * r.autocast, "weight copies"))
            kept.append(Store(out_features * r.rank * r.autocast, "weight copies"))
        self.record((narrow,), low, saved, weight_grad=size_a if a_trained else 0)
        wide = self.var(rows * out_features, narrow.width)
        if r.scattered_adapter:
            kept.append(Store(int(wide.size * r.scattered_adapter), self.tag))
        self.record((low,), wide, kept, weight_grad=size_b)
        return self.cast(self.add(result, self.plain(wide)), result.width)

    # Norms

    def norm(self, kind: str, x: Var, size: int) -> Var:
        """Normalization of rows of `size`, by its implementation: `layernorm` (torch's kernel), `rms` (LLaMA: in fp32,
        then back), `t5` (the product itself widens), `gemma` (fp32 with 1 + weight)."""
        r = self.recipe
        trained = r.norms_trained
        rows = x.elements // size
        if kind == "layernorm":
            if r.autocast and r.cuda:
                x = self.cast(x, 4)
            out = self.var(x.elements, x.width, grad=x.grad or trained)
            statistics = Store(2 * rows * STATISTIC_BYTES, self.tag)
            return self.record((x,), out, (x.store, statistics), weight_grad=2 * size * r.kept if trained else 0)
        if r.compiled:
            # One kernel that keeps its input and a statistic a row.
            out = self.var(x.elements, x.width, grad=x.grad or trained)
            statistics = Store(rows * STATISTIC_BYTES, self.tag)
            return self.record((x,), out, (x.store, statistics), weight_grad=size * r.kept if trained else 0)
        width = x.width
        wide = self.cast(x, 4)
        square = self.keep_input(wide)
        mean = self.plain(square, rows)
        root = self.keep_output(mean)
        if kind == "t5":
            # bf16 times an fp32 column is fp32; `hidden_states` itself stays 16-bit.
            normal = self._column(x, root, 4)
            normal = self.cast(normal, r.kept) if r.kept < 4 else normal
        else:
            normal = self._column(wide, root, 4)
            if kind == "rms":
                normal = self.cast(normal, width)
        out = self.scale(normal, size, trained=trained)
        if kind == "gemma":
            out = self.cast(out, width)
        elif kind == "rms" and r.kept > width:
            # A 16-bit tensor times an fp32 weight is fp32.
            wider = self.var(out.elements, r.kept, grad=out.grad)
            out = self.record((out,), wider)
        return out

    def _column(self, x: Var, column: Var, width: int) -> Var:
        """x times one number a row."""
        out = self.var(x.elements, max(width, x.width), grad=x.grad)
        work = out.size if x.grad else 0
        return self.record((x, column), out, (column.store, x.store), backward_work=work)

    # Attention

    def rotate(self, x: Var) -> Var:
        """Rotary positions: `x·cos + rotate_half(x)·sin`; cos and sin are shared by all layers and not counted here."""
        return self.add(self.plain(x), self.plain(self.copy(x)))

    def attention(
        self,
        dialect: Dialect,
        q: Var,
        k: Var,
        v: Var,
        *,
        heads: int,
        kv_heads: int,
        queries: int,
        keys: int,
        batch: int,
        dropout: float,
        bias: int,
        cross: bool = False,
    ) -> Var:
        """The attention core: [batch, heads, queries, keys] scores, unless a fused kernel keeps them to itself.

        eager: the operations as written. sdpa, flash: torch's fused kernels save query, key, value, output, the
        log-sum-exp of each row and a random state (`derivatives.yaml`, `_scaled_dot_product_flash_attention`). A
        learned position bias is a mask of `bias` elements that sdpa keeps in every layer (0: none, or one for all).
        """
        r = self.recipe
        kernel = r.kernel if r.kernel in dialect.attentions else dialect.attentions[-1]
        before = self.tag
        width = r.autocast or q.width
        if kernel != "eager":
            expands = kv_heads != heads and (dialect.repeats_kv or (kernel == "sdpa" and r.padded))
            if expands:
                k = self.copy(k, q.elements // queries * keys)
                v = self.copy(v, q.elements // queries * keys)
            q, k, v = (self.cast(t, width) for t in (q, k, v))
            saved = [q.store, k.store, v.store]
            out = self.var(q.elements, width, grad=q.grad or k.grad or v.grad)
            self.tag = "cross-attention scores" if cross else "attention scores"
            if bias:
                saved.append(Store(bias * width, self.tag))
            rows = Store(batch * heads * queries * STATISTIC_BYTES, self.tag)
            self.tag = before
            # The gradient of a mask is as large as the scores; flash adds up the queries' gradient in fp32.
            work = batch * heads * queries * keys * width if dialect.learned_bias else q.elements * 4
            self.record((q, k, v), out, (*saved, out.store, rows), backward_work=work)
            return self.copy(out) if dialect.copies_output else out

        size = batch * heads * queries * keys
        expanded = q.elements // queries * keys
        if dialect.scores_fp32:
            q, k = self.cast(q, 4), self.cast(k, 4)
        if r.autocast:
            q, k, v = (self.cast(t, r.autocast) for t in (q, k, v))
        # matmul wants [batch * heads, tokens, head_dim]: a copy, but of a single sequence a view, which keeps a fused
        # projection whole. Keys and values are repeated to all heads, a single one by a stride of 0.
        if batch == 1:
            repeat = self.copy if 1 < kv_heads < heads else self.view
            q, k, v = self.view(q), repeat(k, expanded), repeat(v, expanded)
        else:
            q, k, v = self.copy(q), self.copy(k, expanded), self.copy(v, expanded)
        self.tag = "cross-attention scores" if cross else "attention scores"
        scores = self.plain(self.matmul(q, k, size))
        for _ in range(dialect.score_steps):
            scores = self.plain(self.keep_output(scores))
        if dialect.masked_fill:
            mask = Store(batch * queries * keys, self.tag)
            scores = self.record((scores,), self.var(size, scores.width, grad=scores.grad), (mask,))
        else:
            scores = self.plain(scores)
        if dialect.softmax == "upcast":
            probs = self.cast(self.softmax(scores, 4), v.width)
        elif dialect.softmax == "float":
            probs = self.cast(self.softmax(self.cast(scores, 4)), v.width)
        elif r.autocast and r.cuda:
            probs = self.softmax(self.cast(scores, 4))
        else:
            probs = self.softmax(scores)
        probs = self.cast(probs, v.width) if dialect.scores_fp32 else probs
        if dialect.attention_dropout:
            probs = self.dropout(probs, dropout, 1 if r.cuda else probs.width)
        if r.autocast:
            probs = self.cast(probs, r.autocast)
        self.tag = before
        return self.copy(self.matmul(probs, v, q.elements))

    # Pointwise

    def drop(self, x: Var, p: float) -> Var:
        return self.dropout(x, p, 1 if self.recipe.cuda else x.width)

    def activate(self, name: str, x: Var) -> Var:
        """An activation by its name in transformers' `ACT2FN`."""
        if name in ("gelu_new", "gelu_fast", "gelu_10"):
            # NewGELUActivation: 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), written out in torch.
            # pow is among the functions that autocast runs in fp32 on CUDA.
            wide = self.cast(x, 4) if self.recipe.autocast and self.recipe.cuda else x
            half = self.plain(x)
            cube = self.plain(self.keep_input(wide))
            curve = self.keep_output(self.plain(self.add(x, cube)))
            return self.mul(half, self.plain(curve))
        if name == "quick_gelu":
            return self.mul(x, self.keep_output(self.plain(x)))
        if name in ("relu", "tanh", "sigmoid"):
            return self.keep_output(x)
        return self.keep_input(x)
