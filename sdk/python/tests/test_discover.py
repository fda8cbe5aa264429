"""What a module offers, how it is described, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from fake_node import SOURCE

import bourse
from bourse import _messages as messages
from bourse import _values as values


def described(folder, source, name="mod.py", path=None):
    """The module's description, found in a process of its own: loading is once per process."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(source))
    code = f"""
import sys; sys.path.insert(0, {SOURCE!r})
from bourse import _discover
try:
    sys.stdout.buffer.write(_discover.load({str(path or file)!r}, {str(folder)!r}).description.SerializeToString())
except Exception as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    if done.returncode:
        raise ValueError(done.stderr.decode())
    return messages.Module.FromString(done.stdout)


def names(module):
    return [function.name for function in module.functions]


def test_plain_functions(tmp_path):
    module = described(
        tmp_path,
        """
        from os.path import join
        from dataclasses import dataclass
        __version__ = "1.2"
        class C: pass
        def shown(): pass
        def _hidden(): pass
        async def also(): pass
        def on_start(): pass
        other = lambda: 1
        """,
    )
    assert names(module) == ["shown", "also", "other"] and module.version == "1.2.0"


def test_decorated_functions_only(tmp_path):
    module = described(
        tmp_path,
        """
        from bourse import function
        def helper(): pass
        @function(http=["GET /a", "POST /a/{x}"], timeout=5, queue_wait="200ms", name="renamed")
        def f(x): "First\\nparagraph.\\n\\nSecond."
        @function
        def _g(): pass
        """,
    )
    assert names(module) == ["renamed", "_g"]
    f = module.functions[0]
    assert list(f.http) == ["GET /a", "POST /a/{x}"] and f.doc == "First paragraph."
    assert dict(f.options) == {"timeout": '"5000ms"', "queue_wait": '"200ms"'}


def test_parameters(tmp_path):
    module = described(
        tmp_path,
        """
        from __future__ import annotations
        from typing import *
        import enum, dataclasses
        class Color(enum.Enum): RED = "red"
        class T(TypedDict): a: int
        @dataclasses.dataclass
        class D: a: int
        def f(a: int, /, b: Optional[str], c: List[int] = [1], *args: float, d: Dict[str, int] = None, e: Union[int, str] = 1,
              g: Literal["x", "y"] = "x", h: Color = Color.RED, i: T = None, j: D = None, k=None, **kw) -> None: pass
        """,
    )
    f = module.functions[0]
    found = [(p.name, p.type, p.required, p.default_json, p.kind) for p in f.parameters]
    assert found == [
        ("a", "int", True, "", 1),
        ("b", "str?", True, "", 0),
        ("c", "list", False, "[1]", 0),
        ("args", "float", False, "", 3),
        ("d", "dict", False, "null", 2) if found[4][1] == "dict" else ("d", "dict?", False, "null", 2),
        ("e", "any", False, "1", 2),
        ("g", "str", False, '"x"', 2),
        ("h", "str", False, '"red"', 2),
        ("i", found[8][1], False, "null", 2),
        ("j", found[9][1], False, "null", 2),
        ("k", "any", False, "null", 2),
        ("kw", "any", False, "", 4),
    ]
    assert {found[8][1], found[9][1]} <= {"dict", "dict?"} and f.returns == "none"


def test_hints_that_say_something(tmp_path):
    module = described(
        tmp_path,
        """
        from __future__ import annotations
        from typing import *
        if TYPE_CHECKING: from nowhere import Hidden
        Id = NewType("Id", int)
        Some = TypeVar("Some")
        Text = TypeVar("Text", bound=str)
        def f(a: Hidden, b: List[int], c: Dict[str, List[Hidden]], d: Dict[str, int], e: Optional[List[int]],
              f: Literal[1, 2], g: Literal["x", None], h: Optional[Literal["x"]], i: Literal["x", 1], j: Id, k: Some,
              l: Text, m: Optional[Dict[str, int]] = None, n: Sequence[str] = ()) -> List[Id]: pass
        """,
    )
    types = {p.name: p.type for p in module.functions[0].parameters}
    assert " ".join(types.values()) == "any list any dict list? int str? str? any int any str dict? list"
    assert module.functions[0].returns == "list"


def test_packages_and_names_that_are_taken(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "part.py").write_text("y = 1\ndef inner(): pass\n")
    module = described(tmp_path, "from .part import y, inner\ndef f(): return y\n", "pack/__init__.py", tmp_path / "pack")
    assert (module.name, names(module)) == ("pack", ["f"])
    module = described(tmp_path, "def send(): pass\n", "email.py")
    assert (module.name, names(module)) == ("email", ["send"])


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="semantic version"):
        described(tmp_path, "__version__ = 'new'\ndef f(): pass\n")
    with pytest.raises(ValueError, match="streams are not supported"):
        described(tmp_path, "def f(): yield 1\n")
    with pytest.raises(ValueError, match="two functions with the name f"):
        described(
            tmp_path,
            "from bourse import function\n@function(name='f')\ndef g(): pass\n@function\ndef f(): pass\n",
        )
    with pytest.raises(ValueError, match="name f: in line 2 and in line 4"):
        described(
            tmp_path,
            "from bourse import function\n@function(name='f')\ndef g(): pass\n@function\ndef f(): pass\n",
        )
    for option in ("pure", "async_", "stream", "fresh", "nonsense"):
        with pytest.raises(bourse.OptionError, match=f"'{option}' is not supported in this version"):
            bourse.function(**{option: 1})
    with pytest.raises(bourse.OptionError, match="did you mean 'timeout'"):
        bourse.function(time_out=1)
    with pytest.raises(bourse.OptionError, match="is not a route"):
        bourse.function(http="/no/method")
    with pytest.raises(bourse.OptionError, match="not a duration"):
        bourse.function(timeout="soon")(lambda: 1)


@pytest.mark.parametrize(
    "source",
    [
        "\n\ndef a(): return 1\nb = 1\ndef a(): return 2\n",
        "\n\nasync def a(): return 1\n\ndef a(): return 2\n",
        "from bourse import function\n@function\ndef a(): pass\n@function\ndef a(x): pass\n",
        "import bourse\n@bourse.function(name='c')\ndef a(): pass\n@bourse.function\ndef a(x): pass\n",
        "from bourse import function\n@function\ndef a(): pass\n\ndef a(x): pass\n@function\ndef b(): pass\n",
    ],
)
def test_two_functions_with_one_name(tmp_path, source):
    with pytest.raises(ValueError, match="mod defines a twice, in line 3 and in line 5"):
        described(tmp_path, source)


def test_a_name_that_is_meant_to_be_defined_again(tmp_path):
    module = described(
        tmp_path,
        """
        import functools, sys, typing
        if sys.platform == "linux":
            def a(): return 1
        else:
            def a(): return 2
        try:
            def b(): pass
        except ImportError:
            def b(): pass
        def c(): pass
        if c:
            def c(): pass
        @typing.overload
        def d(x: int) -> int: ...
        @typing.overload
        def d(x: str) -> str: ...
        def d(x): return x
        def e(): pass
        e = functools.lru_cache(e)
        def e(): pass
        def _h(): pass
        def _h(): pass
        """,
    )
    assert names(module) == ["a", "b", "c", "d", "e"]
    source = "from bourse import function\ndef helper(): pass\ndef helper(): pass\n@function\ndef f(): pass\n"
    assert names(described(tmp_path, source)) == ["f"]


def test_a_decorated_function_is_plain_python():
    @bourse.function(timeout=1)
    def f(a, b=2):
        "Doc."
        return a + b

    assert f(1) == 3 and f.__doc__ == "Doc." and f.__name__ == "f"
    with pytest.raises(bourse.NoNode, match="no node"):
        f.call(1)
    with pytest.raises(bourse.NoNode, match="state needs a running function"):
        bourse.state("a").get()
    with pytest.raises(bourse.NoNode):
        bourse.context.call_id  # noqa: B018
    assert not bourse.context.active
    with pytest.raises(bourse.NoNode, match="no node"):
        f.start(1)


def test_arguments_are_deterministic():
    assert values.encode_arguments((), {"b": 1, "a": {2: 1, 1: 2}}) == values.encode_arguments((), {"a": {1: 2, 2: 1}, "b": 1})
    with pytest.raises(TypeError, match=r"argument 2\['k'\]\[0\] is of type object"):
        values.encode_arguments((1, {"k": [object()]}), {})
