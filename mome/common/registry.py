"""Parts that a configuration names: what there is, and how to add one's own."""

from collections.abc import Callable


class Registry[T](dict[str, T]):
    """Classes or functions by the name that a configuration gives them.

    Args:
        what: what the entries are, such as ``gate``.
        register: function that adds one, as a user calls it.
    """

    def __init__(self, what: str, register: str):
        super().__init__()
        self.what = what
        self.register = register

    def add(self, name: str) -> Callable[[T], T]:
        """A decorator that enters what it decorates; names are in lower case.

        Raises:
            ValueError: if the name is taken by something else.
        """

        def enter(entry: T) -> T:
            known = self.get(name.lower())
            # A module may be imported again, under the same name, with an entry that equals this.
            if known is not None and _origin(known) != _origin(entry):
                raise ValueError(f"{self.what} {name!r} is taken by {_origin(known)}")
            self[name.lower()] = entry
            return entry

        return enter

    def find(self, name: str) -> T:
        """The entry of this name.

        Raises:
            ValueError: for an unknown name, with those that are known and how to add one.
        """
        try:
            return self[name.lower()]
        except KeyError:
            known = ", ".join(sorted(self)) or "none"
            raise ValueError(
                f"{self.what} {name!r} is unknown; there are {known}. Add it "
                f"with {self.register} in a module that --import names (docs/extend.md)"
            ) from None


def _origin(entry: object) -> str:
    return f"{getattr(entry, '__module__', '')}.{getattr(entry, '__qualname__', repr(entry))}"
