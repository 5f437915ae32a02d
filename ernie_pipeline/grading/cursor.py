"""A place in a list of tokens, which a parser moves on."""

from ernie_pipeline.grading.tokens import Token, Unreadable


class Cursor:
    """Tokens, taken one after the other; `at` is the next. What is missing is `Unreadable`."""

    def __init__(self, tokens: list[Token]):
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else Token("end", "")

    def take(self) -> Token:
        token = self.peek()
        if token.kind == "end":
            raise Unreadable("it breaks off")
        self.at += 1
        return token

    def accept(self, text: str) -> bool:
        if self.peek().text == text and self.peek().kind in ("op", "cmd"):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise Unreadable(f"{text!r} is missing")

    def raw_argument(self) -> list[Token]:
        if self.peek().text != "{":
            return [self.take()]
        start, depth = self.at, 0
        while True:
            text = self.take().text
            depth += (text == "{") - (text == "}")
            if depth == 0:
                return self.tokens[start + 1 : self.at - 1]
