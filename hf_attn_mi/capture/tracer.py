"""Follows attention through the torch calls of a model: logits -> softmax -> rows times values -> W_O.

A `FunctionMode` receives every torch function that the model calls and runs it unchanged. It recognizes
attention by what is computed, not by names: a softmax over the last dimension that is multiplied with values, a
scaled-dot-product call, or a multi-head-attention call. Tags on the tensors follow the product through views and
transposes to the linear map that is applied to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_attn_mi.capture import torch_ops as ops
from hf_attn_mi.capture.attention_product import (
    Product,
    columns_of,
    einsum_product,
    fused_product,
    matrix_product,
    multi_head_call,
    share_heads,
    windowed_values,
)
from hf_attn_mi.capture.followed_pass import FollowedPass, PassFollower
from hf_attn_mi.capture.function_mode import FunctionMode
from hf_attn_mi.capture.module_names import ModuleNames
from hf_attn_mi.capture.projection import PROJECTIONS, resolve_projection
from hf_attn_mi.capture.records import AttentionCall, Projection
from hf_attn_mi.capture.replacement import Replace, replace_rows
from hf_attn_mi.capture.validation import CaptureValidation, head_sum_error

Position = tuple[int, int]  # frame and instruction of a module's code, as `ModuleNames.running` returns it
ATTENTION = ops.SOFTMAX | {F.scaled_dot_product_attention, F.multi_head_attention_forward}


class AttentionTracer(FunctionMode):
    """Streams an `AttentionCall` for every attention product computed by the modules in `names`."""

    def __init__(
        self,
        names: ModuleNames,
        validation: CaptureValidation,
        consumer: Callable[[AttentionCall], None],
        replace: Replace | None = None,
    ) -> None:
        super().__init__()
        self.names, self.validation, self.consumer, self.replace = names, validation, consumer, replace
        self.pending: list[ops.ProductRecord] = []
        self.follower = PassFollower()
        self.start_pass()

    def start_pass(self, repeated: FollowedPass | None = None) -> None:
        """Discard the calls of an earlier forward pass.

        Args:
            repeated: a pass that was followed, whose operations are expected again.
        """
        self.flush()
        self.count = 0
        self.follower.start(repeated, keeps=self.replace is None)
        # for each module its last position and the number of its calls
        self.last_position: dict[str, tuple[Position | None, int]] = {}
        self.validation.start_pass()

    def end_pass(self) -> FollowedPass | None:
        """Check the pass; return what was followed where a further pass of the same call can repeat it.

        Raises:
            UnsupportedModelError: the attention was not captured exactly.
        """
        self.flush()
        if not self.follower.has_repeated(self.count):
            self.validation.verify()
        return self.follower.followed(self.count)

    def flush(self) -> None:
        """Emit the calls whose product was not followed to a linear map."""
        for record in list(self.pending):
            self._emit(record)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        repeats = self.follower.repeated is not None
        if (repeats and func not in ATTENTION) or func in ops.READS or ops.recomputing():
            return func(*args, **kwargs)
        if repeats and func is not F.scaled_dot_product_attention:
            self.follower.differs()
        before = ops.set_owner(id(self))
        try:
            return self._trace(func, args, kwargs)
        finally:
            ops.set_owner(before)

    def _trace(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in ops.SHAPE or func in ops.SAME:
            return self._shape(func, args, kwargs)
        if func in ops.PRODUCT or func in ops.EINSUM:
            return self._product(func, args, kwargs)
        if func in ops.SOFTMAX:
            return self._softmax(func, args, kwargs)
        if func is F.scaled_dot_product_attention:
            return self._fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        result = func(*args, **kwargs)
        if not ops.any_tagged(args, kwargs):
            return result
        if func in ops.ADD and len(args) > 1 and isinstance(ops.get_tag(args[0]), ops.OutputPartTag):
            return self._add_parts(args, result)
        if func in PROJECTIONS:
            self._project(func, args, kwargs, result)
        elif func in ops.CONCAT:
            self._concat(args, kwargs, result)
        else:
            self._other(func, args, kwargs, result)
        return result

    # --- operations that keep or change a tag --------------------------------------------------------------

    def _shape(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        tag = ops.get_tag(args[0]) if args else None
        if tag is None or not isinstance(result, Tensor) or result is args[0]:
            return result
        if isinstance(tag, ops.OutputTag) and tag.features is not None and func in ops.SHAPE:
            if func in (Tensor.view, Tensor.view_as):
                tag = ops.OutputTag(tag.records, tag.features.reshape(result.shape))
            else:
                tag = ops.OutputTag(tag.records, func(tag.features, *args[1:], **kwargs))
        elif isinstance(tag, (ops.RowsTag, ops.RowsPartTag)) and not ops.keeps_last(func, args[0], result):
            whole = tag if isinstance(tag, ops.RowsTag) else tag.whole
            columns = columns_of(args[1], args[0]) if func is Tensor.__getitem__ and whole is tag else None
            self.validation.softmax_used(whole.number)
            if func in ops.MOVE:
                tag = replace(whole, transposed=True)
            elif columns is not None:
                tag = ops.RowsPartTag(whole, args[0], *columns)
            else:
                return result
        ops.set_tag(result, tag)
        return result

    def _concat(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        parts = args[0] if args else kwargs["tensors"]
        tags = [ops.get_tag(part) for part in parts]
        outputs = [tag for tag in tags if isinstance(tag, ops.OutputTag)]
        if outputs:
            features = None
            if any(tag.features is not None for tag in outputs):
                dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
                pieces = [
                    tag.features
                    if isinstance(tag, ops.OutputTag) and tag.features is not None
                    else torch.full(part.shape, -1, dtype=torch.int32, device=part.device)
                    for tag, part in zip(tags, parts)
                ]
                features = torch.cat(pieces, dim)
            ops.set_tag(result, ops.OutputTag([r for tag in outputs for r in tag.records], features))
        elif isinstance(tags[0], ops.LogitsTag):  # attention sinks: an extra column of logits
            ops.set_tag(result, ops.LogitsTag(tags[0].left, tags[0].right, is_scaled_product=False))

    def _other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        for position, argument in enumerate((*args, *kwargs.values())):
            tag = ops.get_tag(argument)
            if isinstance(tag, ops.OutputTag):
                name = getattr(func, "__name__", str(func))
                if ops.has_tensor(result) or name in ("__setitem__", "index_put_"):
                    for record in tag.records:
                        self._end(record, name)
                    if result is argument:
                        ops.set_tag(argument, None)
            elif isinstance(tag, ops.LogitsTag) and isinstance(result, Tensor):
                others = [a for i, a in enumerate(args) if i != position]
                new_tag = ops.logits_after(func, tag, others)
                if new_tag is not None:
                    ops.set_tag(result, new_tag)
            elif isinstance(tag, (ops.RowsTag, ops.RowsPartTag)) and ops.has_tensor(result):
                self.validation.softmax_used((tag.whole if isinstance(tag, ops.RowsPartTag) else tag).number)
                if isinstance(tag, ops.RowsTag) and isinstance(result, Tensor) and result.shape == argument.shape:
                    ops.set_tag(result, tag)

    # --- attention products --------------------------------------------------------------------------------

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.follower.differs()  # what is done with its result is not known of a further pass
        result = func(*args, **kwargs)
        logits = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if isinstance(result, Tensor) and result.dim() >= 2 and dim in (-1, result.dim() - 1):
            running = self.names.running()
            source = ops.get_tag(logits)
            if running is not None:
                number = self.validation.add_softmax(running[0], result.dim())
                source = source if isinstance(source, ops.LogitsTag) else None
                ops.set_tag(result, ops.RowsTag(number, logits, source, running[0]))
        return result

    def _product(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operands = ops.operands_of(func, args, kwargs)
        tags = [ops.get_tag(operand) for operand in operands]
        result = func(*args, **kwargs)
        if len(operands) != 2 or not isinstance(result, Tensor):
            return result
        rows_at = next((i for i, tag in enumerate(tags) if isinstance(tag, (ops.RowsTag, ops.RowsPartTag))), None)
        if rows_at is not None:
            return self._rows_times_values(func, args, operands, rows_at, result)
        if any(isinstance(tag, ops.OutputTag) for tag in tags):
            self._project(func, args, kwargs, result)
        elif not any(isinstance(operand, nn.Parameter) for operand in operands):
            ops.set_tag(result, ops.LogitsTag(*operands))
        return result

    def _rows_times_values(self, func: Any, args: Any, operands: list[Tensor], rows_at: int, result: Tensor) -> Tensor:
        rows, values = operands[rows_at], operands[1 - rows_at]
        tag = ops.get_tag(rows)
        if isinstance(tag, ops.RowsPartTag):
            sinks = tag.start == 0 and tag.stop == tag.rows.shape[-1] - 1
            if func in ops.EINSUM and rows_at == 0:
                part = windowed_values(args[0], rows, values, result)
                if part is not None:
                    ops.set_tag(result, ops.OutputPartTag(tag, [(tag.start, tag.stop, part)]))
                    return result
            if not sinks:
                self.validation.add_problem(
                    tag.whole.module_name, "only a part of the attention rows is multiplied with values"
                )
                return result
            tag = tag.whole
        assert isinstance(tag, ops.RowsTag)
        running = self.names.running()
        name, position = (tag.module_name, None) if running is None else running
        width = tag.logits.shape[-1]  # one less without the column of attention sinks
        product: Product | str
        if isinstance(ops.get_tag(values), ops.RowsTag):
            product = "attention matrices are multiplied with one another"
        elif tag.transposed:
            product = "a softmax enters a product with its queries and keys exchanged"
        elif func in ops.EINSUM:
            product = einsum_product(args[0], rows_at == 0, rows, values, result, tag)
        elif rows_at == 1 or rows.dim() < 3 or rows.shape[-1] not in (width, width - 1):
            product = "a softmax enters a matrix product that is not rows times values"
        else:
            product = matrix_product(rows, values, result, tag, self.names.head_count(name))
        self.validation.softmax_multiplied(tag.number)
        if isinstance(product, str):
            self.validation.add_problem(name, product)
            return result
        return self._add_product(name, position, product, result)

    def _add_parts(self, args: tuple[Any, ...], result: Tensor) -> Tensor:
        """Add the products of parts of the columns; the attention product is complete once the parts cover all keys."""
        first, second = ops.get_tag(args[0]), ops.get_tag(args[1])
        if not (isinstance(first, ops.OutputPartTag) and isinstance(second, ops.OutputPartTag)):
            return result
        whole, rows = first.part.whole, first.part.rows
        if second.part.whole.number != whole.number:
            return result
        values = sorted([*first.values, *second.values], key=lambda v: v[0])
        edges = [0, *(stop for _, stop, _ in values)]
        if [start for start, _, _ in values] != edges[:-1] or edges[-1] != rows.shape[-1]:
            ops.set_tag(result, ops.OutputPartTag(first.part, values))
            return result
        running = self.names.running()
        name, position = (whole.module_name, None) if running is None else running
        self.validation.softmax_multiplied(whole.number)
        product = matrix_product(rows, torch.cat([v for _, _, v in values], -2), result, whole, None)
        if isinstance(product, str):
            self.validation.add_problem(name, product)
            return result
        return self._add_product(name, position, product, result)

    def _fused(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args)) | kwargs
        result = func(*args, **kwargs)
        running = self.names.running()
        if running is None:
            return result
        product = fused_product(bound, result, self.names.head_count(running[0]))
        if isinstance(product, str):
            self.validation.add_problem(running[0], product)
            return result
        known = self.follower.known(self.count, running[0], _shapes(bound))
        if known is not None:
            share_heads(product.call, self.names.kv_groups(running[0]), False)
            record = self._record(*running, product.call)
            self._emit(record, None if known.projection is None else known.projection())
            return result
        return self._add_product(*running, product, result, shapes=_shapes(bound))

    def _multi_head(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.follower.differs()
        running = self.names.running()
        result = func(*args, **kwargs)
        if running is None:
            return result
        call, projection, project = multi_head_call(args, kwargs)
        record = self._record(*running, call)
        if self._replaced(record):
            result = (project(call["output"]), *result[1:])
        self.validation.add_check(running[0], None, projection, None, None)
        self._emit(record, projection)
        return result

    def _add_product(
        self,
        name: str,
        position: Position | None,
        product: Product,
        result: Tensor,
        *,
        shapes: tuple[torch.Size, ...] | None = None,
    ) -> Tensor:
        """Tag the result of a product; `shapes` are those of query, key and value of a fused kernel."""
        checking = name not in self.validation.checks
        share_heads(product.call, self.names.kv_groups(name), checking)
        record = self._record(name, position, product.call)
        record.shapes = shapes
        if self._replaced(record):
            result = product.to_result(product.call["output"]).to(result.dtype)
        ops.set_tag(result, ops.OutputTag([record], product.features() if checking else None))
        return result

    def _replaced(self, record: ops.ProductRecord) -> bool:
        """Whether the caller has replaced the rows of this product; its output is that of the new rows then."""
        return self.replace is not None and replace_rows(record.call, self._public(record, None), self.replace)

    def _record(self, name: str, position: Position | None, call: dict[str, Any]) -> ops.ProductRecord:
        record = ops.ProductRecord(self.count, name, call)
        last, repeat = self.last_position.get(name, (None, -1))
        if position is None or last is None or last[0] != position[0] or last[1] >= position[1]:
            repeat += 1  # another call of the module (a layer shared by several depths), not a second product
        self.last_position[name] = (position, repeat)
        call["layer"] = self.names.layer(name, repeat)
        self.count += 1
        self.validation.called.add(name)
        self.pending.append(record)
        return record

    # --- the end of a product: W_O, or an operation that is not linear -------------------------------------

    def _project(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        linear = PROJECTIONS[func](args, kwargs) if func in PROJECTIONS else None
        tag = None if linear is None else ops.get_tag(linear.source)
        if linear is None or not isinstance(tag, ops.OutputTag):
            self._other(func, args, kwargs, result)
            return
        for record in tag.records:
            if record.done:
                continue
            output, head_dim = record.call["output"], record.call["value"].shape[-1]
            features = self.validation.features(record.module_name)
            known = features is not None
            if not known and tag.features is not None:
                features = resolve_projection(linear.input_features_last(tag.features), output.shape[1], head_dim)
            if features is None:
                self._end(record, "linear map that does not take whole heads")
                continue
            projection = linear.projection(features)
            if not known:
                source, output = linear.input_features_last(linear.source), linear.output_features_last(result)
                error = head_sum_error(source, projection, output)
                self.validation.add_check(record.module_name, None, projection, result, error)
            if linear.is_fixed:
                self.follower.keep(record, partial(linear.projection, features))
            self._emit(record, projection)

    def _end(self, record: ops.ProductRecord, operation: str) -> None:
        if not record.done:
            record.ended_by = operation
            self.validation.add_check(record.module_name, operation, None, None, None)
            self.follower.keep(record, None)
            self._emit(record)

    def _emit(self, record: ops.ProductRecord, projection: Projection | None = None) -> None:
        record.done = True
        self.pending.remove(record)
        call = self._public(record, projection)
        record.call = {}
        with torch._C.DisableTorchFunction():  # what the consumer computes does not belong to the model
            self.consumer(call)

    @staticmethod
    def _public(record: ops.ProductRecord, projection: Projection | None) -> AttentionCall:
        return AttentionCall(index=record.index, module_name=record.module_name, projection=projection, **record.call)


def _shapes(bound: dict[str, Any]) -> tuple[torch.Size, ...]:
    return bound["query"].shape, bound["key"].shape, bound["value"].shape
