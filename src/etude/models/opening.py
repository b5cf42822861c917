"""Whoever a name on the command line means: a model behind an endpoint, or one that runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etude.config import EndpointConfig
from etude.models.remote import is_endpoint, open_endpoint
from etude.models.responders import LocalResponder, RemoteResponder, Responder

if TYPE_CHECKING:
    from etude.models.language import LanguageModel


def open_model(spec: str, endpoint: EndpointConfig, *, device: str = "auto", dtype: str = "auto", slots: int = 0) -> LanguageModel | Responder:
    """`openai:NAME` and `http://host:port/v1#NAME` are asked whether they are there; anything else is loaded (`tiny`, a Hugging Face folder, a hub id).

    Raises InputError for an endpoint that does not answer, and for a model that cannot be loaded.
    """
    if is_endpoint(spec):
        opened = open_endpoint(spec, endpoint)
        opened.check()
        return RemoteResponder(opened)
    from etude.models.language import LanguageModel

    return LanguageModel.load(spec, device=device, dtype=dtype, slots=slots)


def responder_of(model: LanguageModel | Responder) -> Responder:
    """The same model for questions."""
    from etude.models.language import LanguageModel

    return LocalResponder(model) if isinstance(model, LanguageModel) else model


def open_responder(spec: str, endpoint: EndpointConfig, *, device: str = "auto", dtype: str = "auto") -> Responder:
    """As `open_model`, for questions alone. An address without an endpoint's name is refused too."""
    is_endpoint(spec, endpoint.base_url)
    return responder_of(open_model(spec, endpoint, device=device, dtype=dtype))
