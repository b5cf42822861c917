"""Whoever a name on the command line means, as a responder: a model behind an endpoint, or one that runs here."""

from __future__ import annotations

from etude.config import EndpointConfig
from etude.models.remote import is_endpoint, open_endpoint
from etude.models.responders import LocalResponder, RemoteResponder, Responder


def open_responder(spec: str, endpoint: EndpointConfig, *, device: str = "auto", dtype: str = "auto") -> Responder:
    """`openai:NAME` and `http://host:port/v1#NAME` are asked whether they are there; anything else is loaded (`tiny`, a Hugging Face folder, a hub id).

    Raises InputError for an endpoint that does not answer, and for a model that cannot be loaded.
    """
    if is_endpoint(spec, endpoint.base_url):
        opened = open_endpoint(spec, endpoint)
        opened.check()
        return RemoteResponder(opened)
    from etude.models.language import LanguageModel

    return LocalResponder(LanguageModel.load(spec, device=device, dtype=dtype))
