"""Words for the choices in dataclasses: a field whose type is an enum takes its members' words."""

from dataclasses import fields
from enum import Enum


def take_words(record) -> None:
    """Turn words in a dataclass's fields into the members of enums that the fields' types are.

    "adam" in a field of type Rule becomes Rule.ADAM, so that `is` finds it. Works on frozen ones.
    Raises ValueError, naming the enum, for a word that it doesn't have.
    """
    for field in fields(record):
        if isinstance(field.type, type) and issubclass(field.type, Enum):
            object.__setattr__(record, field.name, field.type(getattr(record, field.name)))
