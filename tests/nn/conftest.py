import pytest

from convsmith.nn import native
from tests.nn.operators import needs_a_compiler, without_operators


@pytest.fixture(params=[pytest.param(True, marks=needs_a_compiler), False])
def operators(request, monkeypatch):
    """Built or not; the value tells."""
    if request.param:
        assert native.is_built()
    else:
        without_operators(monkeypatch)
    return request.param
