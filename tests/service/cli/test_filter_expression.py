"""The filters that a person writes."""

import re

import pytest
from click.testing import CliRunner
from fovea import And, Equals, Exists, Filter, In, Not, Or, Range

from service.cli import main
from service.cli.filter_expression import parse_filter

A, B, C = Equals("a", 1), Equals("b", 2), Equals("c", 3)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('label = "cat" and year >= 2020', And((Equals("label", "cat"), Range("year", gte=2020)))),
        ('label in ("a", "b")', In("label", ("a", "b"))),
        ("x not in (1, -2.5, true)", Not(In("x", (1, -2.5, True)))),
        ("exists(x)", Exists("x")),
        ("not exists ( x )", Not(Exists("x"))),
        ("a == 1", A),
        ("a != 1", Not(A)),
        ("a <> 1", Not(A)),
        ("a>1", Range("a", gt=1)),
        ("a<1", Range("a", lt=1)),
        ("a<=-1e3", Range("a", lte=-1000.0)),
        ("a>=.5", Range("a", gte=0.5)),
        ("a=1.", Equals("a", 1.0)),
        ("a = FALSE", Equals("a", False)),
        ("a=1 or b=2 and c=3", Or((A, And((B, C))))),
        ("(a=1 or b=2) and c=3", And((Or((A, B)), C))),
        ("a=1 AND b=2 And c=3", And((A, B, C))),
        ("not a=1 and b=2", And((Not(A), B))),
        ("not not a=1", Not(Not(A))),
        ("not (a=1 or b=2)", Not(Or((A, B)))),
        ("`two words`=1", Equals("two words", 1)),
        ("`and`=1", Equals("and", 1)),
        ("exif.f-number=1", Equals("exif.f-number", 1)),
        ("größe=1", Equals("größe", 1)),
        (r'''a="it's \"so\" \\"''', Equals("a", 'it\'s "so" \\')),
        ("a='say \"x\"'", Equals("a", 'say "x"')),
        ("a=''", Equals("a", "")),
        ("a = 9223372036854775807", Equals("a", 2**63 - 1)),
        ("a = -9223372036854775808", Equals("a", -(2**63))),
    ],
)
def test_expressions(expression: str, expected: Filter) -> None:
    found = parse_filter(expression)
    assert repr(found) == repr(expected)  # 1 and 1.0 and True are equal


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "the end at character 1; expected an attribute's name, not, exists or '('"),
        ("a", "the end at character 2; expected one of = != < <= > >= in"),
        ("a =", "the end at character 4; expected a value: text in quotes, a number, true or false"),
        ("a = cat", "'cat' at character 5; expected a value: text in quotes"),
        ("a = 1 b = 2", "'b' at character 7; expected and, or, or the end"),
        ("a = 1 and", "the end at character 10; expected an attribute's name"),
        ("(a = 1", "the end at character 7; expected ')'"),
        ("a = 1)", "')' at character 6; expected and, or, or the end"),
        ("a in 1", "'1' at character 6; expected '('"),
        ("a in ()", "')' at character 7; expected a value"),
        ("a in (1 2)", "'2' at character 9; expected ')'"),
        ("a not = 1", "'=' at character 7; expected 'in'"),
        ("exists a", "'a' at character 8; expected '('"),
        ("exists(1)", "'1' at character 8; expected an attribute's name"),
        ('a = "cat', "'\"' at character 5; expected text that ends with the same quote"),
        ("a = 1 & b = 2", "'&' at character 7; expected a name or a value"),
        ("1 = a", "'1' at character 1; expected an attribute's name"),
        ("a = 9223372036854775808", "expected a whole number of 64 bits"),
        ("a = " + "9" * 5000, "expected a whole number of 64 bits"),
        ("(" * 40 + "a=1" + ")" * 40, "more than 30 levels"),
        ("not " * 5000 + "a=1", "more than 30 levels"),
    ],
)
def test_what_is_no_expression_is_told_with_its_place(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_filter(expression)


@pytest.mark.parametrize(
    ("expression", "line", "caret"),
    [
        ("label = red", "  label = red", "          ^"),
        ("label =", "  label =", "         ^"),
        ("a = 1 and\n  b = cat or\nc = 1", "    b = cat or", "        ^"),
        ("a\t= cat", "  a\t= cat", "   \t  ^"),
        ("größe = '猫' oder", "  größe = '猫' oder", "               ^"),  # two columns in a terminal
        ("a = 'o\u0308' oder", "  a = 'o\u0308' oder", "          ^"),  # the dots take none
    ],
)
def test_the_caret_stands_under_the_place(expression: str, line: str, caret: str) -> None:
    done = CliRunner().invoke(main, ["search", "--id", "a", "--filter", expression])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-2:] == [line, caret]
    assert re.search(
        r"^Error: Invalid value for '--filter': .* at character \d+; ", done.stderr, re.MULTILINE
    )
