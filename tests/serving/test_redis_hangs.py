"""A Redis that says nothing: the caller hears of it after one request's time, not after two."""

import time

import pytest

from tests.faults.proxy import Proxy
from tests.faults.servers import port_of
from tests.serving.support import client_of, event, shop_services

pytestmark = pytest.mark.redis
TIMEOUT_S = 2.0


async def test_the_answer_is_503_after_one_requests_time(redis_url: str, unique: str) -> None:
    with Proxy.started(port_of(redis_url)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/{redis_url.rsplit('/', 1)[1]}"
        services, _, _ = shop_services(unique, url, request_timeout_s=TIMEOUT_S)
        async with client_of(services) as client:
            assert (await client.get(f"/v1/topologies/{unique}/predictions/a")).status_code == 404
            with proxy.silent():
                for method, path in (
                    ("POST", f"/v1/topologies/{unique}/predict"),
                    ("POST", f"/v1/topologies/{unique}/explain"),
                    ("GET", f"/v1/topologies/{unique}/predictions/a"),
                ):
                    began_s = time.monotonic()
                    answer = await client.request(method, path, json=event())
                    assert answer.status_code == 503
                    assert time.monotonic() - began_s < 1.7 * TIMEOUT_S
