"""A training step as a row of segments (embeddings, layers, head and loss) and what is alive at each of its moments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from sizing.memory.training.dialects import Dialect, dialect_of
from sizing.memory.training.layers import layer_footprint
from sizing.memory.training.ops import Ops
from sizing.memory.training.recipe import Recipe
from sizing.memory.training.tape import Footprint, Store, Tag
from sizing.models.facts import ModelFacts, Stack

Part = Literal["encoder", "decoder"]
TOKEN_ID_BYTES = 8
"""int64."""
FUSED_PIECES = 16
"""Liger's fused linear cross-entropy cuts the tokens so that a piece's logits are about as large as its input."""


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` equal pieces of the model in a row.

    `kept`: what each leaves for the backward pass, by tag. `ahead`: the most alive in its forward pass, `behind`: in
    its backward pass (with what it kept and the gradients that it leaves), `grads`: gradients of weights it leaves.
    """

    name: str
    count: int
    kept: dict[Tag, int]
    ahead: int
    behind: int
    grads: int
    recomputed: bool = False

    @property
    def kept_bytes(self) -> int:
        return sum(self.kept.values())


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant of a step: bytes kept by tag (split by stack), at work, and of gradients so far."""

    name: str
    kept: dict[str, int]
    working: int
    grads: int
    casts: int = 0
    """16-bit copies of weights that autocast holds until the forward pass ends."""
    fresh: int = 0
    """Of `grads`, those of the segment that is running."""


@dataclass(frozen=True, slots=True)
class Step:
    """The segments of a step in forward order, and bytes that live through it."""

    segments: tuple[Segment, ...]
    constant: int = 0
    """Alive from the first layer to the last backward: position biases, masks, rotation tables."""
    casts: int = 0

    @property
    def grads(self) -> int:
        return sum(s.grads * s.count for s in self.segments)


def step_of(
    model: ModelFacts,
    recipe: Recipe,
    batch: int,
    tokens: int,
    target: int,
    *,
    checkpointing: bool = False,
    head_trained: bool = True,
    dialect: Dialect | None = None,
    frozen_input: bool = False,
    loss_chunks: int = 1,
    fused_loss: bool = False,
    shifted_loss: bool = False,
    converted_outputs: bool = False,
    keeps_logits: bool = False,
    inputs_elsewhere: bool = False,
) -> Step:
    """The training step of `model` on `batch` sequences of `tokens` (and `target` tokens of an encoder-decoder).

    `head_trained`: embeddings and output projection get gradients. `frozen_input`: no gradient flows into the first
    layer (frozen embeddings; checkpointing asks for one all the same). `inputs_elsewhere`: checkpointed inputs are
    offloaded to the host. The rest is about the loss: `head_footprint`.
    """
    d = dialect or dialect_of(model)
    segments: list[Segment] = []
    constant = 0
    encoder, decoder = model.encoder, model.decoder
    both = encoder is not None and decoder is not None
    for stack in model.stacks:
        part: Part = "encoder" if stack is encoder else "decoder"
        length = target if both and part == "decoder" else tokens
        source = tokens if both and stack.cross_attention else 0
        alone = part == "encoder" and not both
        run = _Run(stack, d, recipe, batch, length, source, part, alone)
        # A tied matrix has its gradient from the head already, and the decoder's embedding is the encoder's.
        new_gradient = head_trained and not model.tied_embeddings and (part == "encoder" or not both)
        segments.append(
            run.embeddings(
                model.vocab_size,
                trained=head_trained,
                new_gradient=new_gradient,
                # Checkpointing over frozen embeddings asks for a gradient of their output (enable_input_require_grads).
                carries_gradient=head_trained or checkpointing,
            )
        )
        segments.extend(run.layers(checkpointing, frozen_input=frozen_input, elsewhere=inputs_elsewhere))
        segments.append(run.output(feeds_decoder=both and part == "encoder"))
        constant += run.constants()
        if both and part == "encoder" and not recipe.full:
            constant += run.hidden * recipe.stream  # the encoder's output, which nothing saves but all layers read
    if model.generates:
        head = head_footprint(
            model.main.hidden_size,
            model.vocab_size,
            d,
            recipe,
            batch * (target if both else tokens),
            trained=head_trained,
            chunks=loss_chunks,
            fused=fused_loss,
            shifted=shifted_loss,
            converted=converted_outputs,
            keeps_logits=keeps_logits,
        )
        segments.append(Segment("head", 1, head.saved, head.forward, head.backward, head.weight_grads))
    casts = 0
    if checkpointing and recipe.full and recipe.autocast and recipe.weights > recipe.autocast:
        # Autocast's cache keeps the cast of every trained weight until its context ends, after the loss.
        casts = model.numel(lambda t: t.kind == "linear" and t.layered) * recipe.autocast // recipe.shard
    return Step(tuple(segments), constant, casts)


@dataclass(frozen=True, slots=True)
class _Run:
    """A stack on `batch` sequences of `tokens`, attending to `source` tokens of the encoder (0: none)."""

    stack: Stack
    dialect: Dialect
    recipe: Recipe
    batch: int
    tokens: int
    source: int
    part: Part
    alone: bool
    """An encoder without a decoder."""

    @property
    def hidden(self) -> int:
        """Elements of the hidden states."""
        return self.batch * self.tokens * self.stack.hidden_size

    def embeddings(self, vocab: int, *, trained: bool, new_gradient: bool, carries_gradient: bool) -> Segment:
        """Token (and position) embeddings. The gradient of an embedding is a dense matrix of the whole vocabulary; a
        second use of a tied matrix makes another one before the two are summed."""
        ops = Ops(self.recipe)
        ids = Store(self.batch * self.tokens * TOKEN_ID_BYTES, "activations")
        x = ops.record((), ops.var(self.hidden, self.recipe.stream, grad=carries_gradient), (ids,) if trained else ())
        if self.dialect.embedding_norm:
            x = ops.norm("layernorm", x, self.stack.hidden_size)
        if self.dialect.embedding_dropout:
            x = ops.drop(x, self.stack.dropout)
        found = ops.measure((), x)
        matrix = vocab * self.stack.hidden_size * self.recipe.kept if trained else 0
        gradient = matrix if new_gradient else 0
        if not new_gradient and not self.recipe.cuda:
            matrix *= 2  # the sum is a tensor of its own
        return Segment(f"{self.part} embeddings", 1, found.saved, found.forward, found.backward + matrix, gradient)

    def layers(self, checkpointing: bool, *, frozen_input: bool, elsewhere: bool) -> list[Segment]:
        count = self.stack.layers
        found: list[Segment] = []
        if frozen_input and not checkpointing:
            found.append(self._segment(1, input_grad=False))
            count -= 1
        if count and not checkpointing:
            found.append(self._segment(count))
        elif count:
            found.append(self._checkpointed(count, elsewhere=elsewhere))
        return found

    def _footprint(self, *, input_grad: bool = True) -> Footprint:
        return layer_footprint(
            self.stack,
            self.dialect,
            self.recipe,
            self.batch,
            self.tokens,
            self.source,
            input_grad=input_grad,
            moe=self.stack.experts > 0,
        )

    def _segment(self, count: int, *, input_grad: bool = True) -> Segment:
        found = self._footprint(input_grad=input_grad)
        return Segment(self.part, count, found.saved, found.forward, found.backward, found.weight_grads)

    def _checkpointed(self, count: int, *, elsewhere: bool) -> Segment:
        """torch.utils.checkpoint keeps a layer's input alone and runs the layer again before its backward pass."""
        found = self._footprint()
        size = self.hidden * self.recipe.stream
        again = max(found.forward + found.output, found.backward)
        kept: dict[Tag, int] = {} if elsewhere else {"activations": size}
        return Segment(self.part, count, kept, found.unsaved, again + size, found.weight_grads, recomputed=True)

    def output(self, *, feeds_decoder: bool) -> Segment:
        ops = Ops(self.recipe)
        x = ops.var(self.hidden, self.recipe.stream)
        out = ops.norm(self.dialect.norm, x, self.stack.hidden_size) if self.dialect.final_norm else x
        if self.dialect.final_dropout:
            out = ops.drop(out, self.stack.dropout)
        found = ops.measure((x,), out, counted=(x,))
        saved = dict(found.saved)
        if self.alone and self.recipe.full and self.recipe.autocast:
            # The classification head's dense layer reads one token, cast; its weight's cast is kept.
            saved["weight copies"] = self.stack.hidden_size**2 * self.recipe.autocast
        elif self.dialect.pooled and self.recipe.full:
            saved["activations"] = saved.get("activations", 0) + out.size
        if feeds_decoder and self.recipe.full:
            # Kept once by the cross-attentions that read it; its gradient grows from layer to layer.
            saved["activations"] = saved.get("activations", 0) + out.size
        if self.dialect.learned_bias and self.source and self.recipe.kernel != "eager" and not self.recipe.padded:
            # The mask of cross-attention: zeros, one tensor for all layers.
            size = self.stack.heads * self.tokens * self.source
            saved["cross-attention scores"] = size * (self.recipe.autocast or self.recipe.stream)
        return Segment(f"{self.part} output", 1, saved, found.forward, found.backward, found.weight_grads)

    def constants(self) -> int:
        """Alive from the first layer to the last backward: attention mask, rotation tables, the position bias that all
        layers share with its gradient."""
        width = self.recipe.stream
        scores = self.tokens * self.tokens
        total = self.batch * scores * width if self.recipe.kernel == "eager" else 0
        if self.stack.position == "rotary":
            total += 2 * self.tokens * self.stack.head_dim * width
        if self.dialect.learned_bias:
            total += 2 * self.stack.heads * scores * width + TOKEN_ID_BYTES * scores
        return total


@lru_cache(maxsize=1024)
def head_footprint(
    hidden: int,
    vocab: int,
    dialect: Dialect,
    recipe: Recipe,
    rows: int,
    *,
    trained: bool,
    chunks: int = 1,
    fused: bool = False,
    shifted: bool = False,
    converted: bool = False,
    keeps_logits: bool = False,
) -> Footprint:
    """Output projection and cross-entropy over `rows` tokens: logits, their fp32 copy, the log-softmax and, in the
    backward pass, the gradients of both.

    `chunks`: the loss is taken piece by piece (torchtune, litgpt). `fused`: one kernel that holds no logits.
    `shifted`: logits but for the last token are copied first (transformers before 4.45). `converted`: accelerate's
    autocast returns the outputs in fp32 (`convert_outputs_to_fp32`). `keeps_logits`: the training loop holds the
    model's outputs while it runs backward.
    """
    ops = Ops(recipe)
    x = ops.var(rows * hidden, recipe.stream)
    ops.tag = "logits"
    vocab = -(-vocab // recipe.shard)
    if fused:
        # One kernel works through the logits in pieces and keeps the gradient of its input instead.
        return ops.measure(
            (x,), ops.linear("lm_head", x, max(1, vocab // FUSED_PIECES), hidden, trained=trained), counted=(x,)
        )
    piece = ops.view(x, -(-x.elements // chunks)) if chunks > 1 else x
    logits = ops.linear("lm_head", piece, vocab, hidden, trained=trained)
    if dialect.logits_bias:
        logits = ops.plain(ops.cast(logits, max(logits.width, recipe.kept)))
    for _ in range(dialect.logits_steps):
        # In the logits' own type: less, the tanh that is kept, and more again.
        logits = ops.plain(ops.keep_output(ops.plain(logits)))
    held = [logits]
    wide = logits
    if dialect.loss_fp32:
        wide = ops.cast(logits, 4)
        if shifted:
            held = [wide]  # `logits = logits.float()` let go of the 16-bit ones
        elif wide is not logits and chunks == 1:
            held.append(wide)
    if shifted:
        wide = ops.copy(wide)
        held.append(wide)
    done = ops.keep_output(wide)
    # log_softmax keeps the type of the logits; autocast takes nll_loss to fp32, which keeps its input.
    picked = ops.cast(done, 4) if recipe.autocast and recipe.cuda else done
    saved = [picked.store]
    if chunks > 1:
        # All pieces' logits are made before the first loss is taken; an uncompiled loss keeps their log-softmax, too.
        each = logits.width + (0 if recipe.compiled else picked.width)
        saved.append(Store((rows * vocab - logits.elements) * each, "logits"))
    loss = ops.record((picked,), ops.var(1, 4), saved)
    if converted and logits.width < 4:
        # The model's variables are gone when accelerate turns its outputs, logits and all, to fp32.
        copy = ops.record((logits,), ops.var(logits.elements, 4, grad=False))
        return ops.measure((x,), loss, counted=(x,), held=(logits, copy))
    if keeps_logits:
        ops.nodes[-1].saved = (*ops.nodes[-1].saved, held[0].store)
    return ops.measure((x,), loss, counted=(x,), held=held)


def moments(step: Step, *, grads_before: bool = False) -> tuple[Moment, ...]:
    """The instants at which memory can peak: the end of the forward pass and the backward pass of each segment.

    `grads_before`: gradients of an earlier micro-batch are there from the start (gradient accumulation).
    """
    found: list[Moment] = []
    everything = step.grads if grads_before else 0
    kept: dict[str, int] = {}
    before: list[dict[str, int]] = []
    for segment in step.segments:
        before.append(dict(kept))
        for tag, size in segment.kept.items():
            key = _label(segment.name, tag)
            kept[key] = kept.get(key, 0) + size * segment.count
    last = step.segments[-1]
    working = max(0, last.ahead - last.kept_bytes)
    found.append(Moment("end of the forward pass", dict(kept), working + step.constant, everything, step.casts))
    grads = 0
    for segment, earlier in zip(reversed(step.segments), reversed(before), strict=True):
        for position in (segment.count, 1) if segment.count > 1 else (1,):
            # `position` layers of the segment still keep their tensors when this one's backward runs.
            here = dict(earlier)
            for tag, size in segment.kept.items():
                key = _label(segment.name, tag)
                here[key] = here.get(key, 0) + size * position
            done = grads + segment.grads * (segment.count - position)
            working = max(0, segment.behind - segment.kept_bytes - segment.grads)
            which = "" if segment.count == 1 else (", last layer" if position == segment.count else ", first layer")
            found.append(
                Moment(
                    f"backward pass, {segment.name}{which}",
                    here,
                    working + step.constant,
                    max(done + segment.grads, everything),
                    fresh=segment.grads,
                )
            )
        grads += segment.grads * segment.count
    return tuple(found)


def _label(segment: str, tag: Tag) -> str:
    return f"{segment}: {tag}" if tag == "activations" or "scores" in tag else tag
