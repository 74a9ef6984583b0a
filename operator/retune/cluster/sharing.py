"""What many resources say alike is held once: most of what a thousand specs hold are the same defaults.

With every model pydantic keeps a set of the names of those fields that were given, which is larger than the model.
Models never change, so neither they nor these sets need be copies. What a model says and equals stays as it was.
"""

from hashlib import blake2b
from weakref import WeakValueDictionary

from retune.api.base import ApiModel

_PARTS: WeakValueDictionary[tuple[type[ApiModel], bytes], ApiModel] = WeakValueDictionary()
"""Parts that are held somewhere, by a digest of what they say."""
_GIVEN: dict[frozenset[str], set[str]] = {}
"""Sets of names of fields."""
_PLAIN = (str, int, type(None))
"""What most fields hold, and is told fast; whether something is a model takes ten times as long."""
_MOST_GIVEN = 4096
"""Sets that are kept, so that nobody fills the memory with new ones."""


def share_parts(model: ApiModel) -> None:
    """Replace the parts of a model that nobody else has yet by equal parts of other models, as far as there are any."""
    fields = vars(model)
    fields |= {name: _known(part) for name, part in fields.items() if isinstance(part, ApiModel)}


def _known(part: ApiModel) -> ApiModel:
    said = blake2b(part.model_dump_json().encode(), digest_size=16).digest()
    known = _PARTS.setdefault((type(part), said), part)
    return known if known == part else part


def share_given(model: ApiModel) -> None:
    """Let a model and all in it have the sets of names that other models have too."""
    own = model.model_fields_set
    names = frozenset(own)
    known = _GIVEN.get(names)
    if known is own:
        return  # this model has been here before
    if known is not None:
        object.__setattr__(model, "__pydantic_fields_set__", known)
    elif len(_GIVEN) < _MOST_GIVEN:
        _GIVEN[names] = own
    for value in vars(model).values():
        if isinstance(value, _PLAIN):
            continue
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, ApiModel):
                share_given(part)
