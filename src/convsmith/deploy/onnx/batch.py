"""A batch size that stands for every batch size: Python may carry it into shapes, and may not decide by it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from convsmith.deploy.onnx.refusals import NotQuickError, Refusals

# No side, width or count of a network is a multiple of it (`representative` looks), so that a number tells by itself
# whether it comes from the batch. Fake tensors make its size free of cost.
CANDIDATES = (1009, 1013, 1019, 1021, 1031)
SIZES = {Tensor.shape.__get__, Tensor.size, Tensor.__len__, Tensor.numel, Tensor.nelement, torch.numel}  # type: ignore[attr-defined]
TENSORS = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor}  # whose values would be constants


class BatchBranchError(Exception):
    """Forward decided by the batch size."""


class Batch(int):
    """`multiple` times the batch size. As an int it is that of the batch which stands for all.

    Products with integers are such numbers again, and so are quotients without remainder. A comparison whose outcome
    is the same for every batch size is answered, any other raises BatchBranchError, and other arithmetic NotQuickError;
    `refusals` keeps what was raised.
    """

    multiple: int
    refusals: Refusals
    __hash__ = int.__hash__

    def __new__(cls, multiple: int, representative: int, refusals: Refusals) -> Batch:
        """That multiple of the batch size which `representative` stands for."""
        made = super().__new__(cls, multiple * representative)
        made.multiple = multiple
        made.refusals = refusals
        return made

    @property
    def representative(self) -> int:
        """The batch size that stands for all."""
        return int(self) // self.multiple

    def __mul__(self, other: Any) -> Any:
        """An integer multiple."""
        if type(other) is int:
            return self._with(self.multiple * other) if other > 0 else 0 if other == 0 else _refuse(self)
        return NotImplemented if not isinstance(other, int | float) else _refuse(self)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        """A quotient, which must be without remainder."""
        if isinstance(other, Batch):
            return self.multiple // other.multiple if self.multiple % other.multiple == 0 else _refuse(self)
        if type(other) is int and other > 0 and self.multiple % other == 0:
            return self._with(self.multiple // other)
        return _refuse(self)

    def __mod__(self, other: Any) -> Any:
        """The remainder, if it is none."""
        if isinstance(other, Batch):
            return 0 if self.multiple % other.multiple == 0 else _refuse(self)
        return 0 if type(other) is int and other > 0 and self.multiple % other == 0 else _branch(self, "%", other)

    def __bool__(self) -> bool:
        """No batch is empty."""
        return True

    def _with(self, multiple: int) -> Batch:
        return Batch(multiple, self.representative, self.refusals)


def _refuse(number: Batch, *_: Any) -> NoReturn:
    raise number.refusals.kept(NotQuickError("arithmetic on the batch size"))


def _branch(number: Batch, sign: str, other: Any) -> NoReturn:
    name = "batch" if number.multiple == 1 else f"{number.multiple} * batch"
    raise number.refusals.kept(BatchBranchError(f"forward evaluates {name} {sign} {other}"))


def _comparison(compare: Callable[[Any, Any], bool], sign: str) -> Callable[[Batch, Any], Any]:
    def method(self: Batch, other: Any) -> Any:
        if isinstance(other, Batch):
            return compare(self.multiple, other.multiple)
        if not isinstance(other, int | float):
            return NotImplemented
        # From the smallest batch to any large one, the outcome is monotonous, but for equality between them.
        smallest, largest = compare(self.multiple, other), compare(float("inf"), other)
        if smallest != largest or (sign in ("==", "!=") and other >= self.multiple):
            _branch(self, sign, other)
        return smallest

    return method


for _name, _sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    setattr(Batch, f"__{_name}__", _comparison(getattr(operator, _name), _sign))
_REFUSED = ("add", "radd", "sub", "rsub", "truediv", "rtruediv", "rfloordiv", "rmod", "pow", "rpow", "divmod", "neg")
for _name in (*_REFUSED, "float"):  # `math.sqrt` would go on with the root of the size that stands for all
    setattr(Batch, f"__{_name}__", _refuse)


class Sizes(TorchFunctionMode):
    """Inside of this block, the sizes that Python code reads off tensors are Batch where they come from the batch."""

    def __init__(self, representative: int, refusals: Refusals):
        super().__init__()
        self.representative, self.refusals = representative, refusals

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; where it reads sizes, mark them."""
        if func in TENSORS and any(isinstance(part, Batch) for part in pytree.tree_leaves(args)):
            raise self.refusals.kept(NotQuickError("a tensor of the batch size"))
        result = func(*args, **(kwargs or {}))
        if func not in SIZES:
            return result
        if func is Tensor.__len__ and self._mark(result) is not result:
            words = "forward evaluates len(batch), a constant to Python where x.shape[0] is free,"
            raise self.refusals.kept(BatchBranchError(words))
        if isinstance(result, torch.Size):
            return torch.Size([self._mark(size) for size in result])
        return self._mark(result)

    def _mark(self, size: Any) -> Any:
        if type(size) is int and is_from_batch(size, self.representative):
            return Batch(size // self.representative, self.representative, self.refusals)
        return size


def is_from_batch(number: int, representative: int) -> bool:
    """Whether a number is a positive multiple of the batch size that stands for all, but not the largest integer."""
    return 0 < number < 2**62 and number % representative == 0


def representative(sizes: set[int]) -> int:
    """A batch size of which none of the sizes is a multiple; NotQuickError if there is none among a few primes."""
    for candidate in CANDIDATES:
        if not any(is_from_batch(size, candidate) for size in sizes):
            return candidate
    raise NotQuickError("sizes that look like batch sizes")
