"""The kinds of values that a config holds, checked strictly: `true` is no number, and a number is no text."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from PIL import ImageColor
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

LARGEST = 2**31 - 1
"""The largest count: what takes one, down to FAISS and SQLite, holds it in 32 bits."""
LARGEST_SEED = 2**32 - 1
"""What numpy's and scikit-learn's generators take."""
LONGEST_TEXT = 4096


def _number(value: Any) -> Any:
    """Python and pydantic take `True` for 1 and "3" for 3; whoever wrote that meant something else."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("not_a_number", "must be a number")
    return value


def _text(value: str) -> str:
    if len(value) > LONGEST_TEXT:
        raise PydanticCustomError("text_too_long", f"must have at most {LONGEST_TEXT} characters")
    if "\0" in value or (not value.isprintable() and any("\ud800" <= each <= "\udfff" for each in value)):
        raise PydanticCustomError("not_text", "must be text without null characters, in UTF-8")
    return value


def _registry_name(value: str) -> str:
    if not value.strip() or any(character in value for character in "/:"):
        raise PydanticCustomError("not_a_name", "must be a name without / and :, as MLflow's registry asks")
    return value


def _colour(value: str) -> str:
    try:
        is_opaque = len(ImageColor.getrgb(value)) == 3
    except ValueError:
        is_opaque = False
    if not is_opaque:
        raise PydanticCustomError("not_a_colour", "must be a colour such as white, black or '#7f7f7f'")
    return value


def _one_or_each(kind: Any) -> Callable[[Any], Any]:
    """Checks a number, or each of a list of them; a union would tell what is wrong of each of its parts."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def check(value: Any) -> Any:
        is_list = isinstance(value, list | tuple)
        if is_list and not value:
            raise PydanticCustomError("empty", "must hold a number for each view")
        try:
            for each in value if is_list else [value]:
                adapter.validate_python(each)
        except ValidationError as error:
            raise PydanticCustomError("of_a_view", error.errors()[0]["msg"]) from None
        return value

    return check


def _auto_or_number(value: Any) -> Any:
    """In one message, where a union would give one for each of its members."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (is_number and 0 <= value <= LARGEST):
        raise PydanticCustomError("not_auto_or_number", "must be auto, or a number that is at least 0")
    return value


Number = BeforeValidator(_number)

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED), Number]
PositiveInt = Annotated[int, Field(ge=1, le=LARGEST), Number]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST), Number]
TwoOrMore = Annotated[int, Field(ge=2, le=LARGEST), Number]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), Number]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False), Number]
AutoOrNumber = Annotated[Literal["auto"] | NonNegativeFloat, BeforeValidator(_auto_or_number)]
Fraction = Annotated[float, Field(gt=0, lt=1), Number]
Share = Annotated[float, Field(ge=0, le=1), Number]
"""Of a whole, or a probability."""
ShareOfViews = Annotated[Share | tuple[Share, ...], BeforeValidator(_one_or_each(Share))]
"""One for all views, or a list with one for each."""
Scale = Annotated[float, Field(gt=0, le=1), Number]
ScaleOfViews = Annotated[Scale | tuple[Scale, ...], BeforeValidator(_one_or_each(Scale))]
NonNegativeFloatOfViews = Annotated[
    NonNegativeFloat | tuple[NonNegativeFloat, ...], BeforeValidator(_one_or_each(NonNegativeFloat))
]
Momentum = Annotated[float, Field(ge=0, lt=1), Number]
Text = Annotated[str, AfterValidator(_text)]
RegistryName = Annotated[str, AfterValidator(_text), AfterValidator(_registry_name)]
Colour = Annotated[str, AfterValidator(_text), AfterValidator(_colour)]
Flag = Annotated[bool, Strict()]


def _auto_or_flag(value: Any) -> Any:
    """In one message, where a union would give one for each of its members."""
    if value != "auto" and not isinstance(value, bool):
        raise PydanticCustomError("not_auto_or_flag", "must be auto, true or false")
    return value


AutoOrFlag = Annotated[Literal["auto"] | Flag, BeforeValidator(_auto_or_flag)]


def or_own(*names: str, also: str | None = None) -> WithJsonSchema:
    """For editors: one of these names, `module:name` of the user's own, or what the pattern `also` finds."""
    patterns = [".:."] if also is None else [".:.", also]
    kinds = [{"type": "string", "enum": list(names)}, *({"type": "string", "pattern": each} for each in patterns)]
    return WithJsonSchema({"anyOf": kinds})


class Section(BaseModel):
    """A part of the config: immutable, and closed to unknown keys. The text below a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
