r"""The grammar of mathematical expressions: tokens to a tree, in one reading.

A tree is a nested tuple whose first element says what it is:
("n", Fraction), ("c", "pi" | "e" | "i" | "oo"), ("s", name), ("+", a, b), ("neg", a), ("*", a, b), ("/", a, b),
("^", a, b), ("!", a), ("!!", a), ("%", a), ("deg", a), ("root", n, a), ("log", base, a), ("f", name, arguments),
("call", name, arguments), ("sum" | "prod", name, from, to, body), ("int", name, from, to, body).
"""

from collections.abc import Sequence
from fractions import Fraction

from ernie_pipeline.grading.cursor import Cursor
from ernie_pipeline.grading.tokens import FUNCTIONS, Token, Unreadable
from ernie_pipeline.grading.tree import Tree, is_vector, symbol_name, with_index
from ernie_pipeline.grading.word_set import word_set

CALLED = word_set("f g h F G H")
"""Letters that are functions where a bracket follows."""


_OPENING = {"(": ")", "[": "]", "{": "}"}


_MAX_DEPTH = 80


def parse_expression(tokens: Sequence[Token]) -> Tree:
    """The tree of all the tokens. Raises `Unreadable`."""
    expanded: list[Token] = []
    for token in tokens:
        if expanded and expanded[-1].text in ("angle", "triangle") and token.kind in ("run", "let"):
            letters = min(token.text, token.text[::-1])
            expanded[-1] = expanded[-1]._replace(text=f"{expanded[-1].text} {letters}")
        elif token.kind == "run":
            expanded.extend(
                Token("let", letter, token.space if not number else False) for number, letter in enumerate(token.text)
            )
        else:
            expanded.append(token)
    parser = _Parser(expanded)
    tree = parser.sum()
    if parser.at < len(expanded):
        raise Unreadable(f"cannot read {parser.tokens[parser.at].text!r}")
    return tree


class _Parser(Cursor):
    """Recursive descent."""

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        tree = self.term()
        while self.peek().kind == "op" and self.peek().text in "+-" and self.peek().text:
            sign = self.take().text
            right = self.term()
            tree = ("+", tree, right if sign == "+" else ("neg", right))
        while self.peek().text in ("cup", "cap") and self.peek().kind == "cmd":
            name = self.take().text
            tree = ("f", name, (tree, self.sum()))
        if self.peek().text in ("over", "choose") and self.peek().kind == "cmd":
            operator = self.take().text
            under = self.sum()
            tree = ("/", tree, under) if operator == "over" else ("f", "binom", (tree, under))
        self.depth -= 1
        return tree

    def term(self) -> Tree:
        if self.accept("-"):
            return ("neg", self.term())
        if self.accept("+"):
            return self.term()
        tree = self.factor()
        while True:
            token = self.peek()
            if token.text in ("*", "/", "cdot", "times", "div") and token.kind in ("op", "cmd"):
                self.at += 1
                right = self.signed_factor()
                if token.text == "times" and is_vector(tree) and is_vector(right):
                    tree = ("f", "cross", (tree, right))
                else:
                    tree = ("/", tree, right) if token.text in ("/", "div") else ("*", tree, right)
            elif self.starts_factor(token):
                if token.kind == "num" and self.tokens[self.at - 1].kind == "num":
                    raise Unreadable("two numbers side by side")
                tree = ("*", tree, self.factor())
            else:
                return tree

    def signed_factor(self) -> Tree:
        if self.accept("-"):
            return ("neg", self.signed_factor())
        if self.accept("+"):
            return self.signed_factor()
        return self.factor()

    def starts_factor(self, token: Token) -> bool:
        if token.kind in ("num", "let", "fn"):
            return True
        if token.kind == "op":
            return token.text in ("(", "[", "{", "norm") or (token.text == "|" and not self.bars)
        return token.kind == "cmd" and token.text in _STARTING

    def factor(self) -> Tree:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        tree = self.primary()
        while True:
            token = self.peek()
            if token.kind == "op" and token.text == "^":
                self.at += 1
                tree = ("^", tree, self.exponent())
            elif token.kind == "op" and token.text == "!":
                self.at += 1
                tree = ("!!", tree) if self.accept("!") else ("!", tree)
            elif token.kind == "op" and token.text == "%":
                self.at += 1
                tree = ("%", tree)
            elif token.kind == "cmd" and token.text == "degree":
                self.at += 1
                tree = ("deg", tree)
            else:
                self.depth -= 1
                return tree

    def exponent(self) -> Tree:
        if self.peek().text == "{":
            tree = self.group("{")
        elif self.accept("-"):
            tree = ("neg", self.exponent())
        else:
            tree = self.primary()
        if self.peek().text == "^" and self.peek().kind == "op":
            self.at += 1
            tree = ("^", tree, self.exponent())
        return tree

    def group(self, opening: str) -> Tree:
        self.expect(opening)
        bars, self.bars = self.bars, 0
        tree = self.sum()
        self.expect(_OPENING[opening])
        self.bars = bars
        return tree

    def argument(self) -> Tree:
        """What a command takes: a group, or the next primary."""
        return self.group("{") if self.peek().text == "{" else self.primary()

    def primary(self) -> Tree:
        token = self.take()
        if token.kind == "num":
            return self.number(token)
        if token.kind == "let":
            return self.symbol(token)
        if token.kind == "fn":
            return self.function(token.text)
        if token.kind == "op" and token.text in _OPENING:
            self.at -= 1
            return self.group(token.text)
        if token.text in ("|", "vert") or token.text == "norm":
            return self.absolute(token.text)
        if token.kind == "cmd":
            return self.command(token)
        raise Unreadable(f"cannot read {token.text!r}")

    def number(self, token: Token) -> Tree:
        """A number, or a mixed one: whole number and proper fraction side by side."""
        value = token.value or Fraction(0)
        part = self.mixed_part() if value.denominator == 1 and token.places is None else None
        return ("n", value + part) if part is not None else ("n", value)

    def mixed_part(self) -> Fraction | None:
        """The proper fraction of whole numbers that comes next, taken; None, and nothing taken, where none comes."""
        start, ahead = self.at, self.peek()
        if ahead.kind == "cmd" and ahead.text == "frac":
            self.at += 1
            try:
                over, under = self.argument(), self.argument()
            except Unreadable:
                over = under = ("s", "")
        elif ahead.kind == "num" and ahead.space and self.peek(1).text == "/" and self.peek(2).kind == "num":
            over, under = ("n", ahead.value), ("n", self.peek(2).value)
            self.at += 3
        else:
            return None
        whole = over[0] == under[0] == "n" and over[1].denominator == under[1].denominator == 1
        if whole and 0 < over[1] < under[1]:
            return Fraction(over[1], under[1])
        self.at = start
        return None

    def symbol(self, token: Token) -> Tree:
        name = token.text
        primes = ""
        subscript = ""
        upper: Tree | None = None
        while True:
            if self.accept("'"):
                primes += "'"
            elif self.peek().text == "_" and self.peek().kind == "op":
                self.at += 1
                subscript += "_" + symbol_name(self.raw_argument())
            elif self.peek().text == "^" and self.peek(1).text == "{" and self.peek(2).text == "prime":
                self.at += 4
                primes += "'"
            elif self.peek().text == "^" and self.peek(1).text == "prime":
                self.at += 2
                primes += "'"
            else:
                break
        if name in "CPA" and subscript and self.peek().text == "^" and subscript[1:].isalnum():
            self.at += 1
            upper = self.exponent()
            kind = "binom" if name == "C" else "perm"
            return ("f", kind, (self._subscript_tree(subscript[1:]), upper))
        if name == "C" and self.peek().text == "(" and not subscript:
            chosen = self.two_arguments()
            if chosen is not None:
                return ("f", "binom", chosen)
        name += primes + subscript
        if name == "Gamma" and self.peek().text == "(":
            return ("f", "Gamma", self.call_arguments())
        if self.peek().text == "(" and (token.text in CALLED or primes) and not self.peek().space:
            return ("call", name, self.call_arguments())
        if self.peek().text == "(" and self.peek(1).kind == "num" and self.peek(2).text == ")" and name != "pi":
            return ("call", name, self.call_arguments())  # a value at a number: y(0)
        constants = {"e": "e", "i": "i", "imath": "i", "pi": "pi"}
        return ("c", constants[name]) if name in constants else ("s", name)

    def two_arguments(self) -> tuple[Tree, ...] | None:
        """Of C(n, k); None, and nothing taken, where the bracket holds something else."""
        start = self.at
        try:
            arguments = self.call_arguments()
        except Unreadable:
            arguments = ()
        if len(arguments) == 2:
            return arguments
        self.at = start
        return None

    @staticmethod
    def _subscript_tree(text: str) -> Tree:
        return ("n", Fraction(text)) if text.isdigit() else ("s", text)

    def call_arguments(self) -> tuple[Tree, ...]:
        """Arguments in brackets, parted by commas."""
        opening = self.take().text
        closing = {"(": ")", "[": "]", "{": "}", "lbrace": "rbrace"}[opening]
        bars, self.bars = self.bars, 0
        arguments = [self.sum()]
        while self.accept(",") or self.accept(";"):
            arguments.append(self.sum())
        self.expect(closing)
        self.bars = bars
        return tuple(arguments)

    def limit(self) -> Tree:
        """lim_{x \\to a} of what follows."""
        self.expect("_")
        where = self.raw_argument()
        if len(where) < 3 or where[1].text != "to":
            raise Unreadable("no reading of this limit")
        return ("lim", where[0].text, parse_expression(where[2:]), self.term())

    def function(self, name: str) -> Tree:
        if name == "lim":
            return self.limit()
        power: Tree | None = None
        base: Tree | None = None
        while self.peek().text in ("^", "_") and self.peek().kind == "op":
            if self.take().text == "^":
                power = self.exponent()
            else:
                base = self.argument()
        tree = self.applied(name, base, self.function_arguments())
        inverse = f"ar{name}" if name in ("sinh", "cosh", "tanh") else f"arc{name}"
        if power == ("neg", ("n", Fraction(1))) and inverse in FUNCTIONS:
            return ("f", inverse, tree[-1] if tree[0] == "f" else (tree[-1],))
        return tree if power is None else ("^", tree, power)

    @staticmethod
    def applied(name: str, base: Tree | None, arguments: tuple[Tree, ...]) -> Tree:
        if name in ("log", "ln", "lg") and len(arguments) == 1:
            bases = {"ln": ("c", "e"), "lg": ("n", Fraction(10)), "log": ("s", "base of log")}
            return ("log", base or bases[name], arguments[0])
        if base is not None:
            raise Unreadable(f"a subscript of {name}")
        return ("f", name, arguments)

    def function_arguments(self) -> tuple[Tree, ...]:
        """The bracket behind a function, or the factors that follow it up to a sign or another function."""
        opening = self.peek().text
        if opening in ("(", "lbrace", "[") and self.peek().kind == "op":
            return self.call_arguments()
        if opening == "{":
            return (self.group("{"),)
        if self.accept("-"):
            return (("neg", self.function_arguments()[0]),)
        tree = self.factor()
        while self.starts_factor(self.peek()) and self.peek().kind != "fn" and self.peek().text not in ("(", "["):
            tree = ("*", tree, self.factor())
        if self.peek().text == "/" and self.peek(1).kind == "num":
            self.at += 1
            tree = ("/", tree, self.factor())
        return (tree,)

    def absolute(self, opening: str) -> Tree:
        self.bars += 1
        tree = self.sum()
        self.bars -= 1
        if self.take().text != opening:
            raise Unreadable("a bar is not closed")
        return ("f", "abs" if opening != "norm" else "norm", (tree,))

    def command(self, token: Token) -> Tree:
        name = token.text
        if name == "frac":
            return self.fraction()
        if name == "sqrt":
            degree: Tree | None = None
            if self.peek().text == "[":
                degree = self.group("[")
            return ("root", degree or ("n", Fraction(2)), self.argument())
        if name == "binom":
            return ("f", "binom", (self.argument(), self.argument()))
        if name == "infty":
            return ("c", "oo")
        if name in ("lfloor", "lceil"):
            tree = self.sum()
            self.expect("r" + name[1:])
            return ("f", name[1:] if name == "lceil" else "floor", (tree,))
        if name in ("sum", "prod", "int"):
            return self.big(name)
        raise Unreadable(f"no reading of \\{name}")

    def fraction(self) -> Tree:
        start = self.at
        over = self.argument()
        middle = self.at
        under = self.argument()
        first, second = (
            [t.text for t in self.tokens[a:b] if t.text not in "{}"] for a, b in ((start, middle), (middle, self.at))
        )
        if first[:1] in (["d"], ["partial"]) and second[:1] == first[:1] and len(second) > 1:
            return ("s", " ".join(["derivative", *first, "by", *second]))
        return ("/", over, under)

    def big(self, name: str) -> Tree:
        bounds: dict[str, list[Token]] = {}
        while self.peek().text in ("_", "^") and self.peek().kind == "op":
            sign = self.take().text
            bounds[sign] = self.raw_argument()
        if name == "int":
            return self.integral(bounds)
        if set(bounds) != {"_", "^"} or len(bounds["_"]) < 3 or bounds["_"][1].text != "=":
            raise Unreadable(f"no reading of this \\{name}")
        body = self.factor()
        while self.starts_factor(self.peek()) or self.peek().text in ("cdot", "times"):
            self.accept("cdot") or self.accept("times")
            body = ("*", body, self.factor())
        variable = bounds["_"][0].text
        body = with_index(body, f"_{variable}")
        return (name, variable, parse_expression(bounds["_"][2:]), parse_expression(bounds["^"]), body)

    def integral(self, bounds: dict[str, list[Token]]) -> Tree:
        end = next(
            (
                at
                for at in range(len(self.tokens) - 2, self.at - 1, -1)
                if self.tokens[at].text == "d" and self.tokens[at + 1].kind == "let"
            ),
            None,
        )
        if end is None:
            raise Unreadable("an integral without its variable")
        body = parse_expression(self.tokens[self.at : end]) if end > self.at else ("n", Fraction(1))
        variable = self.tokens[end + 1].text
        self.at = end + 2
        if set(bounds) != {"_", "^"}:
            return ("call", f"integral by {variable}", (body,))
        return ("int", variable, parse_expression(bounds["_"]), parse_expression(bounds["^"]), body)


_STARTING = word_set("frac sqrt binom infty lfloor lceil sum prod int vert")
