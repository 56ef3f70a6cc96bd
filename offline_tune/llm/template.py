"""Rendering a model file's own chat template, which is a program that nobody vouches for.

It runs in jinja2's immutable sandbox: no attribute leads out of it, nothing is changed in place. Beyond that only the
filters and methods that chats need exist, and all that a template makes and every step it takes is paid from a
budget, so that it ends soon and stays small whatever it says. Knows nothing of tokens.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from offline_tune.errors import ModelError

MAX_TEMPLATE = 65_536
MAX_MADE = 4 << 20
MAX_STEPS = 50_000
MAX_SECONDS = 2.0  # of this thread's own time, so that a busy machine does not count

_FILTERS = frozenset(
    "capitalize count d default dictsort first float int items join last length list lower map max min reject "
    "rejectattr replace reverse safe select selectattr sort string title trim unique upper".split()
)
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize count endswith find index isalpha isdigit islower isspace isupper join lower lstrip partition "
        "removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines startswith strip title "
        "upper".split()
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
# what compiling or running an untrusted template may end in, besides jinja2's own errors
_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Render an untrusted template.

    Raises:
        ModelError: it is too long, malformed, reaches outside the sandbox, refuses the messages, or takes more
            steps, room or time than any chat needs.
    """
    if len(template) > MAX_TEMPLATE:
        raise ModelError(
            f"a chat template must have at most {MAX_TEMPLATE} characters, got {len(template)}; choose another model"
        )
    sandbox = _Sandbox()
    try:
        return "".join(map(sandbox.pay, sandbox.from_string(template).generate(**variables)))
    except ModelError:
        raise
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ModelError(
            f"the model's chat template must render the messages, got {reason!r}; choose another model"
        ) from None


class _Sandbox(ImmutableSandboxedEnvironment):
    """One rendering: the sandbox, and what is left of its budget."""

    intercepted_binops = frozenset(("+", "*", "**", "%", "/", "//"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self._steps = MAX_STEPS
        self._room = MAX_MADE
        self._end = time.thread_time() + MAX_SECONDS
        self.finalize = self.pay
        self.globals = {
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _refuse,
            "range": self._range,
            "tojson": _to_json,
            _MADE: lambda value: value,
            _JOINED: lambda *values: "".join(map(str, values)),
        }
        self.filters = {name: self._paid(self.filters[name]) for name in _FILTERS}
        self.filters["tojson"] = self._paid(_to_json)
        self.tests = {name: self._paid(test) for name, test in self.tests.items()}

    def pay(self, value: Any) -> Any:
        """Pay for a value that was made, and for all that it holds."""
        waiting = [value]
        while waiting:
            part = waiting.pop()
            self._spend(1)
            if isinstance(part, str):
                self._make(len(part))
            elif isinstance(part, dict):
                waiting += (*part.keys(), *part.values())
            elif isinstance(part, list | tuple):
                waiting += part
        return value

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may reach an attribute."""
        allowed = next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), None)
        return (allowed is None or attr in allowed) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Nothing: jinja2 would let `str.format` past `is_safe_attribute`, and a width may be a million."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Evaluate an operator whose result may be longer than its operands, or slow where they are long."""
        if operator != "+" and not all(isinstance(x, int | float) and abs(x) < MAX_STEPS for x in (left, right)):
            raise _too_much()
        if operator == "**" and right > 64:
            raise _too_much()
        return self.pay(super().call_binop(context, operator, left, right))

    def call(*args: Any, **kwargs: Any) -> Any:  # the template's own keywords may be named like ours
        """Call what a template calls."""
        self, _, function, *given = args
        self._pay_growth(getattr(function, "__name__", ""), getattr(function, "__self__", None), given)
        return self.pay(ImmutableSandboxedEnvironment.call(*args, **kwargs))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Meter().visit(tree)
        tree.set_environment(self)
        return tree

    def _paid(self, function: Any) -> Callable[..., Any]:
        @functools.wraps(function)  # keeps jinja2's marks of what a filter wants to be passed first
        def paid(*args: Any, **kwargs: Any) -> Any:
            texts = [a for a in args if isinstance(a, str | list)]
            self._pay_growth(function.__name__.removeprefix("do_"), texts[0] if texts else None, texts[1:])
            return self.pay(function(*args, **kwargs))

        return paid

    def _pay_growth(self, name: str, text: Any, given: list[Any]) -> None:
        """Pay beforehand where a text may become longer than what went in."""
        sizes = [len(x) for x in given if isinstance(x, str | list | tuple)]
        if name in ("replace", "join") and sizes and isinstance(text, str | list):
            self._make(len(text) * max(sizes))

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._spend(len(numbers))
        return numbers

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0 or time.thread_time() > self._end:
            raise _too_much()

    def _make(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise _too_much()


# called by the metered template; a template that shadows them pays for its own calls instead
_MADE, _JOINED = "offline_tune_made", "offline_tune_joined"


class _Meter(NodeTransformer):
    """Makes each turn of a loop and each expression that costs or makes something a call, which is paid for."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_call(_MADE, nodes.Const(""))]))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call(_JOINED, *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _call(_MADE, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call(_MADE, node)

    def visit_Test(self, node: nodes.Test) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call(_MADE, node)

    def visit_List(self, node: nodes.List) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call(_MADE, node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call(_MADE, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _call(_MADE, node) if node.ctx == "load" else node


class _Namespace(Namespace):
    """A namespace that does not spell what it holds: nested ones would spell without end."""

    def __repr__(self) -> str:
        return "<namespace>"


def _call(name: str, *args: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load"), list(args), [], None, None)


def _to_json(value: Any, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refuse(message: object = "") -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _too_much() -> ModelError:
    return ModelError(
        f"a chat template must render in {MAX_STEPS} steps, {MAX_MADE} characters and {MAX_SECONDS:g} seconds, "
        "got one that takes more; choose another model"
    )
