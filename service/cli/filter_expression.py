"""Filters as a person writes them: `label = "cat" and year >= 2020` → the client's filter.

expression = term { "or" term }
term       = factor { "and" factor }
factor     = "not" factor | "(" expression ")" | "exists" "(" name ")"
           | name ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
           | name [ "not" ] "in" "(" value { "," value } ")"
value      = "text" | 'text' | number | true | false
name       = letters, digits, "_", "." and "-", not first a digit; any other between backquotes
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

import click
from fovea import AttributeValue, Filter, attribute

F = TypeVar("F", bound=Callable[..., object])
HELP = (
    "Only items whose attributes are so, for instance 'label = \"cat\" and year >= 2020', "
    "'label in (\"a\", \"b\")', 'not exists(label) or (score > 0.5 and checked = true)'. "
    "Compare with = != < <= > >= or in (…); combine with and, or, not and parentheses; text stands in "
    "quotes, a name of other signs than letters, digits, _ . - in `backquotes`."
)
_MAX_DEPTH = 30
_KEYWORDS = ("and", "or", "not", "in", "exists", "true", "false")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>`[^`]+`|[^\W\d][\w.-]*)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<sign><=|>=|!=|<>|==|[=<>(),])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARE: dict[str, Callable[[Any, AttributeValue], Filter]] = {
    "=": lambda left, right: left == right,
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<>": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse_filter(expression: str) -> Filter:
    """The filter of an expression.

    Raises:
        ValueError: it isn't one; says where, and what was expected.
    """
    parser = _Parser(expression)
    found = parser.expression(0)
    parser.expect_end()
    return found


def filter_option(function: F) -> F:
    """--filter."""
    return click.option("--filter", "condition", metavar="EXPRESSION", callback=_converted, help=HELP)(
        function
    )


def _converted(_: click.Context, __: click.Parameter, expression: str | None) -> Filter | None:
    if expression is None:
        return None
    try:
        return parse_filter(expression)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


class _Parser:
    """By recursive descent; a method for each rule of the grammar."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = list(self._read())
        self._place = 0

    def _read(self) -> list[_Token]:
        tokens: list[_Token] = []
        place = 0
        while not tokens or tokens[-1].kind != "end":
            match = _TOKEN.match(self._expression, place)
            if match is None or match.lastgroup is None:
                start = place + len(self._expression[place:]) - len(self._expression[place:].lstrip())
                character = self._expression[start]
                wanted = "text that ends with the same quote" if character in "\"'`" else "a name or a value"
                self._fail(_Token("unknown", character, start), wanted)
            kind, text = match.lastgroup, match[match.lastgroup]
            if kind == "name" and text.lower() in _KEYWORDS:
                kind, text = "word", text.lower()
            tokens.append(_Token(kind, text, match.start(match.lastgroup)))
            place = match.end()
        return tokens

    def expression(self, depth: int) -> Filter:
        """Terms, of which one holds."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} levels of parentheses and not")
        found = self._term(depth)
        while self._take("word", "or"):
            found |= self._term(depth)
        return found

    def _term(self, depth: int) -> Filter:
        found = self._factor(depth)
        while self._take("word", "and"):
            found &= self._factor(depth)
        return found

    def _factor(self, depth: int) -> Filter:
        if self._take("word", "not"):
            if depth > _MAX_DEPTH:
                raise ValueError(f"more than {_MAX_DEPTH} levels of parentheses and not")
            return ~self._factor(depth + 1)
        if self._take("sign", "("):
            found = self.expression(depth + 1)
            self._expect("sign", ")")
            return found
        if self._take("word", "exists"):
            self._expect("sign", "(")
            name = self._name("an attribute's name")
            self._expect("sign", ")")
            return attribute(name).exists()
        return self._comparison()

    def _comparison(self) -> Filter:
        left = attribute(self._name("an attribute's name, not, exists or '('"))
        if self._take("word", "not"):
            self._expect("word", "in")
            return ~left.is_in(self._values())
        if self._take("word", "in"):
            return left.is_in(self._values())
        token = self._next()
        if token.text not in _COMPARE:
            self._fail(token, "one of = != < <= > >= in")
        return _COMPARE[token.text](left, self._value())

    def _values(self) -> list[AttributeValue]:
        self._expect("sign", "(")
        values = [self._value()]
        while self._take("sign", ","):
            values.append(self._value())
        self._expect("sign", ")")
        return values

    def _value(self) -> AttributeValue:
        token = self._next()
        match token.kind:
            case "text":
                return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
            case "number":
                return self._number(token)
            case "word" if token.text in ("true", "false"):
                return token.text == "true"
        return self._fail(token, "a value: text in quotes, a number, true or false")

    def _number(self, token: _Token) -> AttributeValue:
        if not re.fullmatch(r"[+-]?\d+", token.text):
            return float(token.text)
        if len(token.text) > 20 or not -(2**63) <= int(token.text) < 2**63:
            self._fail(token, "a whole number of 64 bits")
        return int(token.text)

    def _name(self, wanted: str) -> str:
        token = self._next()
        if token.kind != "name":
            self._fail(token, wanted)
        return token.text.strip("`")

    def expect_end(self) -> None:
        """Nothing may follow."""
        token = self._next()
        if token.kind != "end":
            self._fail(token, "and, or, or the end")

    def _expect(self, kind: str, text: str) -> None:
        if not self._take(kind, text):
            self._fail(self._next(), repr(text))

    def _take(self, kind: str, text: str) -> bool:
        token = self._tokens[self._place]
        found = token.kind == kind and token.text == text
        self._place += found
        return found

    def _next(self) -> _Token:
        token = self._tokens[self._place]
        self._place += token.kind != "end"
        return token

    def _fail(self, token: _Token, wanted: str) -> NoReturn:
        found = "the end" if token.kind == "end" else repr(token.text)
        raise ValueError(
            f"{found} at character {token.start + 1}; expected {wanted}\n"
            f"{_pointed_at(self._expression, token.start)}"
        )


def _pointed_at(expression: str, place: int) -> str:
    """The line of the place by itself, whatever stands before the message, and a caret under the place."""
    before = expression[:place].split("\n")[-1]
    line = before + expression[place:].split("\n")[0]
    return f"  {line}\n  {''.join(map(_blank, before))}^"


def _blank(character: str) -> str:
    """What is as wide in a terminal, and empty."""
    if character == "\t":
        return character
    if unicodedata.combining(character):
        return ""
    return "  " if unicodedata.east_asian_width(character) in "WF" else " "
