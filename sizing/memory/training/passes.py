"""A training step as a row of segments (embeddings, layers, head and loss) and what is alive at each of its moments."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from sizing.memory.training.dialects import Dialect, dialect_of
from sizing.memory.training.layers import layer_footprint
from sizing.memory.training.ops import Ops
from sizing.memory.training.recipe import Recipe
from sizing.memory.training.tape import Footprint, Store, Tag
from sizing.models.facts import ModelFacts, Stack

TOKEN_ID_BYTES = 8
"""int64."""


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

    def total(self, grad_share: float = 1.0) -> float:
        return sum(self.kept.values()) + self.working + self.casts + self.grads * grad_share


@dataclass(frozen=True, slots=True)
class Step:
    """The segments of a step in forward order, and bytes that live through it."""

    segments: tuple[Segment, ...]
    constant: int = 0
    """Alive from the first layer to the last backward: position biases, masks, rotation tables."""
    casts: int = 0
    moments: tuple[Moment, ...] = field(default=())

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
    old_loss: bool = False,
) -> Step:
    """The training step of `model` on `batch` sequences of `tokens` (and `target` tokens of an encoder-decoder).

    `head_trained`: embeddings and output projection get gradients. `frozen_input`: no gradient flows into the first
    layer (frozen embeddings without checkpointing).
    """
    d = dialect or dialect_of(model)
    segments: list[Segment] = []
    vocab = model.vocab_size
    tied = model.tied_embeddings
    constant = 0
    encoder, decoder = model.encoder, model.decoder
    source = tokens if encoder is not None and decoder is not None else 0
    stacks = [(s, n) for s, n in ((encoder, tokens), (decoder, target if source else tokens)) if s is not None]
    for stack, length in stacks:
        part = "encoder" if stack is encoder else "decoder"
        own = not (tied or part == "decoder" and source) or (part == "encoder" and not tied)
        segments.append(_embedding(stack, d, recipe, batch, length, vocab, head_trained, part=part, first=own))
        constant += _constants(stack, recipe, batch, length, d)
        cross = source if stack.cross_attention and source else 0
        moe = stack.experts > 0
        if frozen_input and not checkpointing and part == "encoder" or (frozen_input and not source and not checkpointing):
            first = layer_footprint(stack, d, recipe, batch, length, cross, input_grad=False, moe=moe)
            segments.append(_layers(part, first, 1, checkpointing, stack, recipe, batch, length))
            rest = stack.layers - 1
        else:
            rest = stack.layers
        if rest:
            print_ = layer_footprint(stack, d, recipe, batch, length, cross, moe=moe)
            segments.append(_layers(part, print_, rest, checkpointing, stack, recipe, batch, length))
        segments.append(_final(stack, d, recipe, batch, length, part))
    main = model.main
    if model.generates:
        head = head_footprint(
            main.hidden_size,
            vocab,
            d,
            recipe,
            batch * (target if source else tokens),
            trained=head_trained,
            chunks=loss_chunks,
            fused=fused_loss,
            old=old_loss,
        )
        segments.append(
            Segment("head", 1, head.saved, head.forward, head.backward, head.weight_grads)
        )
    return Step(tuple(segments), constant, 0)


def _layers(
    part: str, print_: Footprint, count: int, checkpointing: bool, stack: Stack, recipe: Recipe, batch: int, tokens: int
) -> Segment:
    if not checkpointing:
        return Segment(part, count, print_.saved, print_.forward, print_.backward, print_.weight_grads)
    # torch.utils.checkpoint keeps the layer's input alone and runs the layer again before its backward pass.
    kept: dict[Tag, int] = {"activations": batch * tokens * stack.hidden_size * recipe.stream}
    behind = kept["activations"] + max(print_.forward + print_.output, print_.backward)
    return Segment(part, count, kept, print_.unsaved, behind, print_.weight_grads, recomputed=True)


def _embedding(
    stack: Stack,
    dialect: Dialect,
    recipe: Recipe,
    batch: int,
    tokens: int,
    vocab: int,
    trained: bool,
    *,
    part: str,
    first: bool,
) -> Segment:
    """Token (and position) embeddings. The gradient of an embedding is a dense matrix; a second use of a tied matrix
    makes another one before the two are summed."""
    ops = Ops(recipe)
    ids = Store(batch * tokens * TOKEN_ID_BYTES, "activations")
    x = ops.var(batch * tokens * stack.hidden_size, recipe.stream, grad=trained)
    ops.record((), x, (ids,))
    out = x
    if dialect.embedding_norm:
        out = ops.norm("layernorm", out, stack.hidden_size)
    if dialect.embedding_dropout:
        out = ops.drop(out, stack.dropout)
    found = ops.measure((), out)
    matrix = vocab * stack.hidden_size * recipe.kept if trained else 0
    saved = dict(found.saved) or {"activations": ids.size}
    return Segment(
        f"{part} embeddings", 1, saved, found.forward, found.backward + matrix, matrix if first and trained else 0
    )


def _final(stack: Stack, dialect: Dialect, recipe: Recipe, batch: int, tokens: int, part: str) -> Segment:
    ops = Ops(recipe)
    x = ops.var(batch * tokens * stack.hidden_size, recipe.stream)
    out = ops.norm(dialect.norm, x, stack.hidden_size) if dialect.final_norm else x
    if dialect.final_dropout:
        out = ops.drop(out, stack.dropout)
    found = ops.measure((x,), out, counted=(x,))
    saved = dict(found.saved)
    if part == "encoder" and not dialect.final_norm or part == "encoder":
        # The encoder's output is kept once by the cross-attentions that read it.
        saved["activations"] = saved.get("activations", 0) + out.size
    return Segment(f"{part} output", 1, saved, found.forward, found.backward, found.weight_grads)


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
    old: bool = False,
) -> Footprint:
    """Output projection and cross-entropy over `rows` tokens: logits, their fp32 copy, the log-softmax and, in the
    backward pass, the gradients of both.

    `chunks`: the loss is taken piece by piece (torchtune, litgpt). `fused`: one kernel that holds no logits. `old`:
    transformers before 4.45 copied the shifted fp32 logits once more.
    """
    ops = Ops(recipe)
    ops.tag = "activations"
    x = ops.var(rows * hidden, recipe.stream)
    ops.tag = "logits"
    vocab = -(-vocab // recipe.shard)
    logits = _project(ops, x, hidden, vocab, trained)
    held = [logits]
    if fused:
        return ops.measure((x,), logits, counted=(x,))
    size = rows * vocab
    wide = logits
    if dialect.loss_fp32 or (recipe.autocast and recipe.cuda):
        wide = ops.cast(logits, 4)
        if dialect.loss_fp32 and wide is not logits:
            held.append(wide)
    for _ in range(dialect.logits_steps):
        wide = ops.plain(ops.keep_output(wide))
    if old:
        wide = ops.copy(wide)
    if chunks > 1:
        piece = -(-size // chunks)
        part = ops.copy(wide, piece)
        done = ops.keep_output(part)
        loss = ops.plain(done, 1)
        # Every piece but the last has kept its log-softmax by the time the last one is computed.
        others = Store((size - piece) * wide.width, "logits")
        ops.record((loss,), ops.var(1, 4), (others,))
        return ops.measure((x,), loss, counted=(x,), held=held)
    done = ops.keep_output(wide)
    loss = ops.plain(done, 1)
    return ops.measure((x,), loss, counted=(x,), held=held)


def _project(ops: Ops, x: object, hidden: int, vocab: int, trained: bool):  # type: ignore[no-untyped-def]
    from sizing.memory.training.tape import Var

    assert isinstance(x, Var)
    ops.tag = "logits"
    return ops.linear("lm_head", x, vocab, hidden, trained=trained)


def _constants(stack: Stack, recipe: Recipe, batch: int, tokens: int, dialect: Dialect) -> int:
    """Attention mask, rotation tables, the shared relative position bias and its gradient."""
    mask = batch * tokens * tokens * recipe.stream if recipe.kernel == "eager" else 0
    if stack.position == "rotary":
        return mask + 2 * tokens * stack.head_dim * recipe.stream
    if stack.position == "relative" and dialect.kind == "":
        bias = stack.heads * tokens * tokens * recipe.stream
        return mask + bias * 2 + 8 * tokens * tokens
    return mask


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
    start = before[-1]
    found.append(
        Moment("end of the forward pass", start, last.ahead + step.constant, everything, step.casts)
    )
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
                )
            )
        grads += segment.grads * segment.count
    return tuple(found)


def _label(segment: str, tag: Tag) -> str:
    return f"{segment}: {tag}" if tag == "activations" or "scores" in tag else tag
