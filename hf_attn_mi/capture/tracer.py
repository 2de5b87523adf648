"""Follows attention through a model's own torch calls: logits -> softmax -> rows times values -> W_O.

One `TorchFunctionMode` sees every torch function the model calls, passes each on unchanged and recognises
attention by what is computed, not by names: a softmax over the last dimension that is multiplied with values, a
scaled-dot-product call, or a multi-head-attention call. Tags on the tensors follow the product through views
and transposes to the linear map that consumes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_attn_mi.capture import operations as ops
from hf_attn_mi.capture.layout import einsum_layout, head_layout, inverse
from hf_attn_mi.capture.multihead import multi_head_call
from hf_attn_mi.capture.naming import ModuleNames
from hf_attn_mi.capture.projection import PROJECTIONS, resolve_projection
from hf_attn_mi.capture.records import AttentionCall, repeat_heads
from hf_attn_mi.capture.verdict import Findings, head_sum_error

Replace = Callable[[AttentionCall], Tensor | None]


class AttentionTracer(TorchFunctionMode):
    """Streams an `AttentionCall` for every attention product computed by the modules in `names`."""

    def __init__(
        self,
        names: ModuleNames,
        findings: Findings,
        consumer: Callable[[AttentionCall], None],
        replace: Replace | None = None,
    ) -> None:
        super().__init__()
        self.names, self.findings, self.consumer, self.replace = names, findings, consumer, replace
        self.pending: list[ops.ProductRecord] = []
        self.start_pass()

    def start_pass(self) -> None:
        """Forget the calls of an earlier forward pass."""
        self.flush()
        self.count, self.calls_of = 0, {}  # type: ignore[var-annotated]
        self.findings.start_pass()

    def flush(self) -> None:
        """Hand out the calls whose product was never followed to a linear map."""
        for record in list(self.pending):
            self._emit(record)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch._C._current_graph_task_id() != -1:  # recomputation inside a backward pass is no new call
            return func(*args, **kwargs)
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
        if func in PROJECTIONS:
            self._project(func, args, kwargs, result)
        elif func in ops.CONCAT:
            self._concat(args, kwargs, result)
        else:
            self._other(func, args, kwargs, result)
        return result

    # --- what passes a tag on ------------------------------------------------------------------------------

    def _shape(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        tag = ops.get_tag(args[0]) if args else None
        if tag is None or not isinstance(result, Tensor) or result is args[0]:
            return result
        if isinstance(tag, ops.Output) and tag.features is not None and func in ops.SHAPE:
            rest = [torch.zeros(result.shape) if a is args[1] and isinstance(a, Tensor) and func is Tensor.view_as
                    else a for a in args[1:]]  # fmt: skip
            tag = ops.Output(tag.records, func(tag.features, *rest, **kwargs))
        ops.set_tag(result, tag)
        return result

    def _concat(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        parts = args[0] if args else kwargs["tensors"]
        tags = [ops.get_tag(part) for part in parts]
        outputs = [tag for tag in tags if isinstance(tag, ops.Output)]
        if outputs:
            features = None
            if any(tag.features is not None for tag in outputs):
                dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
                pieces = [
                    tag.features
                    if isinstance(tag, ops.Output) and tag.features is not None
                    else torch.full(part.shape, -1, dtype=torch.int32, device=part.device)
                    for tag, part in zip(tags, parts)
                ]
                features = torch.cat(pieces, dim)
            ops.set_tag(result, ops.Output([r for tag in outputs for r in tag.records], features))
        elif isinstance(tags[0], ops.Logits):  # attention sinks: an extra column beside the logits
            ops.set_tag(result, ops.Logits(tags[0].left, tags[0].right, plain=False))

    def _other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        for position, argument in enumerate((*args, *kwargs.values())):
            tag = ops.get_tag(argument)
            if isinstance(tag, ops.Output):
                name = getattr(func, "__name__", str(func))
                if _has_tensor(result) or name in ("__setitem__", "index_put_"):
                    for record in tag.records:
                        self._end(record, name)
                    if result is argument:
                        ops.set_tag(argument, None)
            elif isinstance(tag, ops.Logits) and isinstance(result, Tensor):
                others = [a for i, a in enumerate(args) if i != position]
                moved = self._moved_logits(func, tag, others)
                if moved is not None:
                    ops.set_tag(result, moved)
            elif isinstance(tag, ops.Rows) and isinstance(result, Tensor) and result.shape == argument.shape:
                ops.set_tag(result, tag)

    @staticmethod
    def _moved_logits(func: Any, tag: ops.Logits, others: list[Any]) -> ops.Logits | None:
        other = others[0] if others else None
        if func in ops.MULTIPLY or func in ops.DIVIDE:
            if isinstance(other, (int, float)) and tag.bias is None:
                factor = float(other) if func in ops.MULTIPLY else 1.0 / float(other)
                return ops.Logits(tag.left, tag.right, tag.scale * factor, None, tag.plain)
            return ops.Logits(tag.left, tag.right, plain=False)
        if func in ops.ADD:
            if isinstance(other, Tensor) and ops.get_tag(other) is None:
                bias = other if tag.bias is None else tag.bias + other
                return ops.Logits(tag.left, tag.right, tag.scale, bias, tag.plain)
            return ops.Logits(tag.left, tag.right, plain=False)
        return ops.Logits(tag.left, tag.right, plain=False) if func in ops.LOGITS else None

    # --- what makes a record -------------------------------------------------------------------------------

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        logits = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if isinstance(result, Tensor) and result.dim() >= 2 and dim in (-1, result.dim() - 1):
            name = self.names.running()
            source = ops.get_tag(logits)
            if name is not None:
                identity = self.findings.softmax_seen(name, result.dim())
                source = source if isinstance(source, ops.Logits) else None
                ops.set_tag(result, ops.Rows(identity, logits, source, name))
        return result

    def _product(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operands = _operands(func, args, kwargs)
        tags = [ops.get_tag(operand) for operand in operands]
        result = func(*args, **kwargs)
        if len(operands) != 2 or not isinstance(result, Tensor):
            return result
        rows_at = next((i for i, tag in enumerate(tags) if isinstance(tag, ops.Rows)), None)
        if rows_at is not None:
            return self._rows_times_values(func, args, kwargs, operands, rows_at, result)
        if any(isinstance(tag, ops.Output) for tag in tags):
            self._project(func, args, kwargs, result)
        elif not any(isinstance(operand, nn.Parameter) for operand in operands):
            ops.set_tag(result, ops.Logits(*operands))
        return result

    def _rows_times_values(
        self, func: Any, args: Any, kwargs: Any, operands: list[Tensor], rows_at: int, result: Tensor
    ) -> Tensor:
        rows, values = operands[rows_at], operands[1 - rows_at]
        tag = ops.get_tag(rows)
        assert isinstance(tag, ops.Rows)
        name = self.names.running() or tag.module_name
        if isinstance(ops.get_tag(values), ops.Rows):
            self.findings.problem(name, "attention matrices are multiplied with one another")
            return result
        width = tag.logits.shape[-1]
        if func in ops.EINSUM:
            layout = einsum_layout(args[0], rows_at == 0)
            if layout is None or rows.shape[-1] not in (width, width - 1):
                self.findings.problem(name, f"a softmax enters einsum {args[0]!r}, which is not rows times values")
                return result
            into = [t.permute(order) for t, order in zip((rows, values, result), (layout.rows, layout.values, layout.output))]  # noqa: E501
            rows_, values_, output = into
            logits = tag.logits.permute(layout.rows) if rows.shape[-1] == width and tag.logits.dim() == 4 else None

            def again(new: Tensor) -> Tensor:
                new = new.permute(inverse(layout.rows))
                return torch.einsum(args[0], *((new, values) if rows_at == 0 else (values, new)))

            back = inverse(layout.output)
            features = _features(output).permute(back)
        else:
            if rows_at == 1 or rows.dim() < 3 or rows.shape[-1] not in (width, width - 1):
                self.findings.problem(name, "a softmax enters a matrix product that is not rows times values")
                return result
            head = head_layout(rows, self.names.head_count(name), None)
            if head is None or rows.dim() != values.dim():
                self.findings.problem(name, f"cannot tell the heads in attention rows of shape {tuple(rows.shape)}")
                return result
            rows_, values_, output = head.to_heads(rows), head.to_heads(values), head.to_heads(result)
            logits = head.to_heads(tag.logits) if rows.shape == tag.logits.shape else None

            def again(new: Tensor) -> Tensor:
                return torch.matmul(head.from_heads(new, rows), values)

            features = head.from_heads(_features(output).expand(output.shape), result)
        self.findings.softmax_used(tag.identity)
        groups = self._groups(name, values_, output.shape[1])
        call = dict(
            query=None, key=None, value=values_[:, ::groups], mask=None, scale=None, is_causal=False, output=output,
            rows=rows_, raw_logits=logits,
        )  # fmt: skip
        if tag.source is not None and tag.source.plain and func not in ops.EINSUM:
            call.update(_query_and_key(tag.source, head, rows_.shape, groups))
        return self._found(name, call, result, features, again)

    def _fused(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args)) | kwargs
        result = func(*args, **kwargs)
        name = self.names.running()
        if name is None:
            return result
        query, key, value, mask = bound["query"], bound["key"], bound["value"], bound.get("attn_mask")
        head = head_layout(query, self.names.head_count(name), None)
        if head is None or (query.dim() != value.dim()) or (mask is not None and query.dim() == 5):
            self.findings.problem(name, f"cannot tell the heads in a query of shape {tuple(query.shape)}")
            return result
        output = head.to_heads(result)
        kv = head if value.shape[:-2] == query.shape[:-2] else head_layout(value, None, head.batch)
        assert kv is not None
        values, keys = kv.to_heads(value), kv.to_heads(key)
        groups = self._groups(name, values, head.heads)
        if mask is not None and mask.dim() < 4:
            mask = head.to_heads(mask) if mask.dim() == 3 and mask.shape[0] == query.shape[0] else mask[None, None]
            mask = mask.reshape(*([1] * (4 - mask.dim())), *mask.shape) if mask.dim() < 4 else mask[:, :, -mask.shape[-2]:]  # noqa: E501
        call = dict(
            query=head.to_heads(query), key=keys[:, ::groups], value=values[:, ::groups], mask=mask,
            scale=bound.get("scale") or query.shape[-1] ** -0.5, is_causal=bool(bound.get("is_causal", False)),
            output=output, rows=None, raw_logits=None,
        )  # fmt: skip

        def again(new: Tensor) -> Tensor:
            rows = new.to(value.dtype)
            return head.from_heads(rows @ repeat_heads(values, head.heads), result)

        features = head.from_heads(_features(output).expand(output.shape), result)
        return self._found(name, call, result, features, again)

    def _multi_head(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = self.names.running()
        result = func(*args, **kwargs)
        if name is None:
            return result
        call, projection, again = multi_head_call(args, kwargs)
        record = self._record(name, call)
        if self.replace is not None:
            new = self.replace(self._public(record, None))
            if new is not None:
                call["rows"], call["raw_logits"] = new, None
                projected, call["output"] = again(new)
                result = (projected, *result[1:])
        self.findings.settle(name, projection.features, None)
        self._emit(record, projection)
        return result

    def _found(self, name: str, call: dict[str, Any], result: Tensor, features: Tensor, again: Any) -> Tensor:
        record = self._record(name, call)
        if self.replace is not None:
            new = self.replace(self._public(record, None))
            if new is not None:
                shape = (*call["output"].shape[:3], call["value"].shape[-2])
                if tuple(new.shape) != shape:
                    raise ValueError(f"replace must return rows of shape {shape}, not {tuple(new.shape)}.")
                result = again(new.to(call["value"].dtype)).to(result.dtype)
                call["rows"], call["raw_logits"] = new, None
                call["output"] = new.to(call["value"].dtype) @ repeat_heads(call["value"], shape[1])
        checking = not self.findings.is_settled(name)
        ops.set_tag(result, ops.Output([record], features.to(result.device) if checking else None))
        return result

    def _record(self, name: str, call: dict[str, Any]) -> ops.ProductRecord:
        record = ops.ProductRecord(self.count, name, call)
        call["layer"] = self.names.layer(name, self.calls_of.get(name, 0))
        self.count += 1
        self.calls_of[name] = self.calls_of.get(name, 0) + 1
        self.findings.call_seen(name)
        self.pending.append(record)
        return record

    def _groups(self, name: str, values: Tensor, heads: int) -> int:
        groups = self.names.kv_groups(name)
        if groups == 1 or values.shape[1] != heads or heads % groups:
            return 1
        if not self.findings.is_settled(name):
            same = torch.equal(values[:, ::groups].repeat_interleave(groups, 1), values)
            return groups if same else 1
        return groups

    # --- where the trail ends ------------------------------------------------------------------------------

    def _project(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        found = PROJECTIONS[func](args, kwargs) if func in PROJECTIONS else None
        tag = None if found is None else ops.get_tag(found.source)
        if found is None or not isinstance(tag, ops.Output):
            self._other(func, args, kwargs, result)
            return
        for record in tag.records:
            if record.done:
                continue
            output, head_dim = record.call["output"], record.call["value"].shape[-1]
            features = self.findings.features(record.module_name)
            known = features is not None
            if not known and tag.features is not None:
                features = resolve_projection(found.arrange(tag.features), output.shape[1], head_dim)
            if features is None:
                self._end(record, "linear map that does not take whole heads")
                continue
            projection = found.projection(features)
            if not known:
                error = head_sum_error(found.arrange(found.source), projection, found.restore(result))
                self.findings.settle(record.module_name, features, None, error)
            self._emit(record, projection)

    def _end(self, record: ops.ProductRecord, operation: str) -> None:
        if not record.done:
            record.ended_by = operation
            self.findings.settle(record.module_name, None, operation)
            self._emit(record)

    def _emit(self, record: ops.ProductRecord, projection: Any = None) -> None:
        record.done = True
        self.pending.remove(record)
        call = self._public(record, projection)
        record.call = {}
        self.consumer(call)

    @staticmethod
    def _public(record: ops.ProductRecord, projection: Any) -> AttentionCall:
        return AttentionCall(
            index=record.index, module_name=record.module_name, projection=projection, **record.call
        )


def _has_tensor(result: Any) -> bool:
    if isinstance(result, (tuple, list)):
        return any(isinstance(item, Tensor) for item in result)
    return isinstance(result, Tensor)


def _features(output: Tensor) -> Tensor:
    """head * head_dim + coordinate for every element of (batch, heads, queries, head_dim)."""
    _, heads, _, width = output.shape
    numbers = torch.arange(heads * width, dtype=torch.int32).view(1, heads, 1, width)
    return numbers.expand(output.shape)


def _operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    if func in ops.EINSUM:
        rest = args[1:]
        return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], (list, tuple)) else list(rest)
    return [*args, *(kwargs[k] for k in ("input", "other", "mat2", "tensor2") if k in kwargs)][:2]


def _query_and_key(source: ops.Logits, head: Any, shape: torch.Size, groups: int) -> dict[str, Any]:
    """Query, key, scale and bias where the logits are one scaled product plus one added tensor."""
    query, key = source.left, source.right
    if query.dim() != head.dims or key.dim() != head.dims:
        return {}
    query, key = head.to_heads(query), head.to_heads(key).transpose(-1, -2)
    if query.shape[:3] != shape[:3] or key.shape[-2] != shape[-1] or key.shape[1] != query.shape[1]:
        return {}
    bias = source.bias
    if bias is not None and bias.dim() not in (head.dims, 4):
        return {}
    if bias is not None and bias.dim() == 3:
        bias = head.to_heads(bias) if bias.shape[0] == head.batch * head.heads else bias[:, None]
    return dict(query=query, key=key[:, ::groups], scale=source.scale, mask=bias)
