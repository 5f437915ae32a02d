"""A part of the rows of a set, when several processes share the work of them."""

from typing import Annotated

from pydantic import Field

from ernie_pipeline.recipe.section import Section


class RowPart(Section):
    """Part `number`, from 0, `of` so many: each row is in one of them, by its own key alone."""

    number: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]

    def has(self, key: str) -> bool:
        """Whether the row of that key (hex digits, see `row_key`) is in it."""
        return int(key[:8], 16) % self.of == self.number

    def __str__(self) -> str:
        return f"part {self.number + 1} of {self.of}"
