"""Decorators of views that may answer instead of the view."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from keysvc_client.middleware.policy import checked_scopes

View: TypeAlias = Callable[..., Any]


def deciding(refuse: Callable[[tuple[str, ...]], Any]) -> Callable[..., Callable[[View], View]]:
    """The decorator of a framework.

    Parameters:
        refuse: the framework's answer to a request whose key lacks one of these scopes; None: it has them.
    """

    def requires_scopes(*scopes: str) -> Callable[[View], View]:
        """State the scopes that a view needs, all of them."""
        checked = checked_scopes(scopes)

        def decorate(view: View) -> View:
            @wraps(view)
            def guarded(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
                refused = refuse(checked)
                return view(*arguments, **named) if refused is None else refused

            @wraps(view)
            async def guarded_async(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
                refused = refuse(checked)
                return await view(*arguments, **named) if refused is None else refused

            return guarded_async if iscoroutinefunction(view) else guarded

        return decorate

    return requires_scopes
