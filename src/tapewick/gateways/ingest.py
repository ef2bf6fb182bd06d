"""``POST /v1/ingest/trades``: batches of trades from other programs, answered 202 once the store has committed them.

Who writes shows an API key with the scope ``ingest``, or signs as Standard Webhooks do. 429 is the sender's own quota,
503 a server that is full or whose store is away; both say when to try again, and trying again is always safe.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec
import structlog
from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from tapewick import metrics
from tapewick.errors import BadRequest, TooLarge, Unavailable
from tapewick.gateways import _problem
from tapewick.gateways._asking import JSON, answer
from tapewick.gateways._auth import PUBLIC, Guard, carried
from tapewick.gateways._ingest_answers import Answers
from tapewick.gateways._ingest_items import VENUE, IngestAnswer, Items, Verdict, decode, registrable
from tapewick.gateways._ingest_rate import Rate
from tapewick.gateways._ingest_signature import Signatures
from tapewick.intake import Intake
from tapewick.keys import Grant
from tapewick.model import Instrument

__all__ = ["IngestGateway", "Options"]

log = structlog.get_logger()

AnyRequest = Request[Any, Any, Any]
MOST_KEY = 255  # characters of an idempotency key
MOST_UNDER_WAY = 64  # requests; more are told that the server is full
SCALE = 8
SIGNED = "webhook-signature"


class Options(NamedTuple):
    """What may be sent, and where answers are kept; see the settings of section ``ingest``."""

    folder: Path
    auto_register: bool = True
    max_items: int = 5000
    max_bytes: int = 1 << 20
    trades_per_s: int = 50_000
    secrets: tuple[str, ...] = ()
    max_instruments: int = 1000
    keep_s: float = 86_400.0


class IngestGateway:
    """The route. ``trouble`` tells why the store is away, None while it is not;
    ``now`` the time in ns. Raises ``ConfigError``."""

    def __init__(
        self, intake: Intake, guard: Guard, options: Options, trouble: Callable[[], str | None], now: Callable[[], int]
    ) -> None:
        self._intake, self._guard, self._options, self._trouble = intake, guard, options, trouble
        self._now = now
        self._signatures = Signatures(options.secrets)
        self._rate = Rate(options.trades_per_s, options.max_items, time.monotonic)
        self._answers = Answers(options.folder, options.keep_s)
        self._disk = ThreadPoolExecutor(1, "ingest")
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._under_way = 0

    async def close(self) -> None:
        """Close what is kept on disk."""
        await asyncio.get_running_loop().run_in_executor(self._disk, self._answers.close)
        self._disk.shutdown()

    async def take(self, request: AnyRequest) -> Response[bytes]:
        """One request, from its credentials to its verdicts."""
        signed = request.headers.get(SIGNED) is not None
        grant = None if signed else self._guard.check(carried(request.headers.get), "ingest")
        body = await self._body(request)
        key = request.headers.get("idempotency-key", "")
        if signed:
            message = self._signatures.check(request.headers.get, body, self._now() / 1e9)
            grant, key = Grant("webhook", frozenset({"ingest"}), f"{VENUE}:*"), key or message
        assert grant is not None
        if len(key) > MOST_KEY:
            raise BadRequest(f"a key has at most {MOST_KEY} characters", field="idempotency-key")
        if self._under_way >= MOST_UNDER_WAY:
            raise Unavailable("the server is busy with other batches; send this one again", retry_after=1)
        self._under_way += 1
        try:
            return await (self._once(grant, key, body) if key else self._work(grant, "", body))
        finally:
            self._under_way -= 1

    async def _body(self, request: AnyRequest) -> bytes:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise BadRequest("compressed bodies are not taken: send plain JSON", field="content-encoding")
        most, parts, size = self._options.max_bytes, [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise TooLarge(f"the body is larger than {most:,} bytes (ingest.max_bytes): send smaller batches")
            parts.append(part)
        return b"".join(parts)

    async def _once(self, grant: Grant, key: str, body: bytes) -> Response[bytes]:
        """The answer of before where the same request was answered; of two at once the second waits."""
        loop, digest = asyncio.get_running_loop(), sha256(body).digest()
        turn = self._turns.setdefault((grant.id, key), asyncio.Lock())
        async with turn:
            known = await loop.run_in_executor(
                self._disk, self._answers.begin, grant.id, key, digest, self._now() / 1e9
            )
            if known is not None:
                replayed = answer(known, 202)
                replayed.headers["idempotent-replayed"] = "true"
                return replayed
            try:
                response = await self._work(grant, key, body)
            except BadRequest:
                await loop.run_in_executor(self._disk, self._answers.forget, grant.id, key)
                raise
            await loop.run_in_executor(self._disk, self._answers.end, grant.id, key, response.content)
            return response

    async def _work(self, grant: Grant, key: str, body: bytes) -> Response[bytes]:
        batch = decode(body, self._options.max_items)
        self._rate.take(grant.id, len(batch.trades))
        if (cause := self._trouble()) is not None:
            raise Unavailable(f"nothing can be stored now: {cause}", retry_after=2)
        now = self._now()
        items = Items(batch, grant, key, now // 1_000_000)
        known = await self._known(items.instruments(), batch.id_kind)
        for trades, indices in items.batches(known, now):
            for index, new in zip(indices, (await self._intake.store(trades)).tolist(), strict=True):
                items.verdicts[index] = Verdict(index, "accepted" if new else "duplicate")
        verdicts = [verdict for verdict in items.verdicts if verdict is not None]
        counts: defaultdict[str, int] = defaultdict(int)
        for verdict in verdicts:
            counts[verdict.verdict] += 1
        for name, count in counts.items():
            metrics.ingest_trades.labels(name).inc(count)
        log.info("ingest", key=grant.id, **counts)
        told = IngestAnswer(counts["accepted"], counts["duplicate"], counts["rejected"], verdicts)
        return answer(msgspec.json.encode(told), 202)

    async def _known(self, ids: set[str], id_kind: Any) -> dict[str, Instrument]:
        """The instruments with a tape; new ones get theirs if they may."""
        known = await self._intake.instruments(ids)
        if self._options.auto_register:
            for id in sorted(ids - known.keys()):
                if registrable(id) and await self._intake.count(VENUE) < self._options.max_instruments:
                    venue, _, symbol = id.partition(":")
                    made = Instrument(
                        id=id, venue=venue, symbol=symbol, price_scale=SCALE, size_scale=SCALE, id_kind=id_kind
                    )
                    known[id] = await self._intake.register(made)
        return known

    def route(self) -> HTTPRouteHandler:
        """The handler for the application. It checks its callers itself: a signature covers the body."""

        @post(
            "/v1/ingest/trades",
            status_code=202,
            summary="Store a batch of trades",
            tags=["ingest"],
            responses=_ANSWERS,
            operation_class=_Documented,
            opt=PUBLIC,
        )
        async def ingest(request: AnyRequest) -> Response[bytes]:
            """202 follows the commit: accepted trades and duplicates are in the store. Needs a key with the scope
            `ingest`, or a Standard Webhooks signature. A repeated `Idempotency-Key` (or `webhook-id`) gets the same
            answer for 24 hours."""
            return await self.take(request)

        return ingest


def _spec(text: str) -> ResponseSpec:
    return ResponseSpec(_problem.Problem, description=text, media_type=_problem.MEDIA_TYPE, generate_examples=False)


_ANSWERS = {
    202: ResponseSpec(IngestAnswer, description="Stored; one verdict per item", generate_examples=False),
    400: _spec("The request as a whole is wrong; nothing was stored"),
    401: _spec("No known key, or a signature that does not fit"),
    403: _spec("The key lacks the scope ingest"),
    413: _spec("The body is too large"),
    422: _spec("The idempotency key came with another body before"),
    429: _spec("The sender's quota is used up; Retry-After tells when to go on"),
    503: _spec("The server is full or its store is away; Retry-After tells when to try again"),
}
_TEXT, _NUMBER = Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.INTEGER)


@dataclass
class _Documented(Operation):
    """The operation with its body, which is read by hand: a signature covers its bytes."""

    def __post_init__(self) -> None:
        trade = Schema(
            type=OpenAPIType.OBJECT,
            required=["price", "size", "ts_event"],
            properties={
                "trade_id": Schema(
                    one_of=[_TEXT, _NUMBER], description="A number where ids are contiguous, else text."
                ),
                "instrument": Schema(type=OpenAPIType.STRING, description="Where it is not the request's."),
                "ts_event": Schema(type=OpenAPIType.INTEGER, description="Time in ms since 1970."),
                "price": Schema(type=OpenAPIType.STRING, description="Decimal as text, above 0."),
                "size": Schema(type=OpenAPIType.STRING, description="Decimal as text, above 0."),
                "side": Schema(type=OpenAPIType.STRING, enum=["buy", "sell", "unknown"]),
            },
        )
        whole = Schema(
            type=OpenAPIType.OBJECT,
            required=["trades"],
            properties={
                "instrument": Schema(type=OpenAPIType.STRING, description="For example hook:XYZ."),
                "id_kind": Schema(type=OpenAPIType.STRING, enum=["unique", "contiguous"]),
                "source": Schema(type=OpenAPIType.STRING, description="Who names the trades."),
                "trades": Schema(type=OpenAPIType.ARRAY, items=trade),
            },
        )
        self.request_body = RequestBody(content={JSON: OpenAPIMediaType(schema=whole)}, required=True)
