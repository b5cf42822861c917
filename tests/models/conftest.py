"""`--sampler vllm` runs the sampler's tests against vLLM instead of the embedded engine (`make test-vllm`), and on `tiny` and `smollm2` besides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from random_models import ARCHITECTURES, POOL, VLLM_HEAD, build, with_vllm
from transformers import PreTrainedModel


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sampler", choices=("engine", "vllm"), default="engine", help="what the sampler's tests are run against")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_model" in metafunc.fixturenames:
        names = (*ARCHITECTURES, "tiny", "smollm2") if with_vllm(metafunc.config) else ARCHITECTURES
        metafunc.parametrize("any_model", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def llama(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build("llama", VLLM_HEAD) if with_vllm(request.config) else build("llama")


@pytest.fixture(scope="session")
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param, VLLM_HEAD) if with_vllm(request.config) else build(request.param)


@pytest.fixture(autouse=True)
def pool_is_free() -> Iterator[None]:
    yield
    POOL.give_back()
