"""Which methods a controller has, found out once and not for every request."""

_found = {}


class CachedMethods:
    """Mixed into a controller of Swift's."""

    @property
    def allowed_methods(self):
        if self._allowed_methods is None:
            self._allowed_methods = set(self._methods("publicly_accessible"))
        return self._allowed_methods

    @property
    def private_methods(self):
        if self._private_methods is None:
            self._private_methods = set(self._methods("privately_accessible"))
        return self._private_methods

    @classmethod
    def _methods(cls, mark):
        key = cls, mark
        if key not in _found:
            _found[key] = frozenset(
                name for name in dir(cls) if getattr(getattr(cls, name), mark, False))
        return _found[key]
