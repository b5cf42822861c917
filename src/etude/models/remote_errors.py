"""What the `openai` client raises, told to whoever can change something about it."""

from __future__ import annotations

import os
from typing import Any

from etude.errors import EtudeError, InputError


def in_the_users_terms(error: Exception, base_url: str, model: str, api_key_env: str, timeout: float, about: str = "") -> EtudeError:
    """An InputError for what the user can change (address, key, model, prompt), an EtudeError for a server that keeps failing or answers nonsense.

    about: which request it was.
    """
    import openai

    about = f" ({about})" if about else ""
    if isinstance(error, openai.APITimeoutError):
        return EtudeError(f"{base_url} gave no answer in {timeout:g} seconds{about}; send fewer requests at once or allow more time")
    if isinstance(error, openai.APIConnectionError):
        return InputError(f"nothing answers at {base_url} ({error.__cause__ or error}); is the server running, and is the address right?")
    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        state = "refuses the key in" if os.environ.get(api_key_env) else "wants a key; there is none in"
        return InputError(f"{base_url} {state} the variable {api_key_env} (HTTP {error.status_code}); set it to a valid key")
    if isinstance(error, openai.NotFoundError):
        return InputError(f"{base_url} has no model {model!r}, or is not the address of an API (HTTP 404: {said(error)}); check both")
    if isinstance(error, (openai.BadRequestError, openai.UnprocessableEntityError)):
        return InputError(f"{base_url} refuses the request{about}: {said(error)} (HTTP {error.status_code})")
    if isinstance(error, openai.APIStatusError):
        return EtudeError(f"{base_url} keeps failing{about}: HTTP {error.status_code}, {said(error)}")
    return EtudeError(f"{base_url} answered what is no chat completion{about}: {error}")


def refused(error: Exception, *words: str) -> bool:
    """Whether an error comes from a server that refuses a request as it is, with one of these words if any are given: perhaps it takes another."""
    import openai

    cause = error.__cause__
    return isinstance(cause, (openai.BadRequestError, openai.UnprocessableEntityError)) and (not words or any(word in said(cause).lower() for word in words))


def said(error: Any) -> str:
    """What the server said, on one line."""
    return " ".join(str(error.message).split())[:300]
