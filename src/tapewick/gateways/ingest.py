"""``POST /v1/ingest/trades``: batches of trades from other programs, answered 202 once the store has committed them.

Who writes shows an API key with the scope ``ingest``, or signs as Standard Webhooks do. While the store is away
trades wait on disk (``_ingest_backlog.py``) and are answered ``queued``. 429 is the sender's own quota, 503 a server
that is full; both say when to try again, and trying again is always safe.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from tapewick import metrics
from tapewick.answers import AnswerFile, Answers
from tapewick.errors import BadRequest, Conflict, StoreError, TooLarge, Unavailable
from tapewick.gateways import _problem
from tapewick.gateways._asking import JSON, answer
from tapewick.gateways._auth import PUBLIC, Guard, carried
from tapewick.gateways._ingest_backlog import Backlog
from tapewick.gateways._ingest_items import VENUE, IngestAnswer, Items, Verdict, decode, registrable
from tapewick.gateways._ingest_rate import Rate
from tapewick.gateways._ingest_signature import Signatures
from tapewick.intake import Intake
from tapewick.keys import Grant
from tapewick.model import Instrument, TradeBatch
from tapewick.spool import Spool

__all__ = ["IngestGateway", "Options"]

log = structlog.get_logger()

AnyRequest = Request[Any, Any, Any]
MOST_KEY = 255  # characters of an idempotency key
MOST_UNDER_WAY = 64  # requests; more are told that the server is full
FIRST_LOOK, LAST_LOOK = 0.02, 0.5  # seconds between two looks for the answer of the same request elsewhere
TURN_PATIENCE = 15.0  # seconds to wait for it
STORE_PATIENCE = 20.0  # seconds after which a store that says nothing is taken to be away
RETRY_AFTER = 2
SPOOL = "spool"
SIGNED = "webhook-signature"


class Options(NamedTuple):
    """What may be sent, and what is kept where; see the settings of section ``ingest``. ``answers``: instead of
    those of the folder."""

    folder: Path
    auto_register: bool = True
    max_items: int = 5000
    max_bytes: int = 1 << 20
    trades_per_s: int = 50_000
    secrets: tuple[str, ...] = ()
    max_instruments: int = 1000
    keep_s: float = 86_400.0
    spool_bytes: int = 0
    answers: Answers | None = None


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
        self._answers = options.answers or AnswerFile(options.folder, options.keep_s)
        self._backlog: Backlog | None = None
        self._registering = asyncio.Lock()
        if options.spool_bytes:
            self._backlog = Backlog(Spool(options.folder / SPOOL, options.spool_bytes), intake, trouble)
        self._under_way = 0

    @property
    def trouble(self) -> str | None:
        """Why what was taken is not all stored; None when it is."""
        return self._backlog.trouble if self._backlog is not None else None

    async def start(self) -> None:
        """Begin to store what waits on disk. Raises ``StoreError``."""
        if self._backlog is not None:
            await self._backlog.start()

    async def close(self) -> None:
        """Close what is kept on disk."""
        if self._backlog is not None:
            await self._backlog.close()
        await self._answers.close()

    async def take(self, request: AnyRequest) -> Response[bytes]:
        """One request, from its credentials to its verdicts."""
        signed = request.headers.get(SIGNED) is not None
        grant = None if signed else self._guard.check(carried(request.headers.get), "ingest")
        body = await self._body(request)
        key = request.headers.get("idempotency-key", "")
        if signed:
            message, source = self._signatures.check(request.headers.get, body, self._now() / 1e9)
            # The header is not signed: with another one a message that was overheard would count as a new one.
            name = f"webhook {source}" if source else "webhook"
            grant, key = Grant(name, frozenset({"ingest"}), f"{VENUE}:*", source), message
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
        answers = self._answers
        known = await self._turn(grant.sender, key, sha256(body).digest())
        if known is not None:
            replayed = answer(known, 202)
            replayed.headers["idempotent-replayed"] = "true"
            return replayed
        try:
            response = await self._work(grant, key, body)
        except BadRequest:
            await answers.forget(grant.sender, key)
            raise
        except BaseException:
            await asyncio.shield(answers.release(grant.sender, key))
            raise
        await answers.end(grant.sender, key, response.content)
        return response

    async def _turn(self, owner: str, key: str, digest: bytes) -> bytes | None:
        """What was answered before, None once it is this request's turn. Raises ``Conflict`` after a while."""
        end, delay = time.monotonic() + TURN_PATIENCE, FIRST_LOOK
        while True:
            try:
                return await self._answers.begin(owner, key, digest, self._now() / 1e9)
            except Conflict:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, LAST_LOOK)

    async def _work(self, grant: Grant, key: str, body: bytes) -> Response[bytes]:
        batch = decode(body, self._options.max_items)
        self._rate.take(grant.id, len(batch.trades))
        if (cause := self._trouble()) is not None and self._backlog is None:
            raise Unavailable(f"nothing can be stored now: {cause}", retry_after=RETRY_AFTER)
        now = self._now()
        items = Items(batch, grant, key, now // 1_000_000)
        known = await self._known(items)
        for trades, indices in items.batches(known, now):
            await self._bring(known[trades.instrument], trades, indices, items)
        verdicts = [verdict for verdict in items.verdicts if verdict is not None]
        counts: defaultdict[str, int] = defaultdict(int)
        for verdict in verdicts:
            counts[verdict.verdict] += 1
        for name, count in counts.items():
            metrics.ingest_trades.labels(name).inc(count)
        log.info("ingest", key=grant.id, **counts)
        told = IngestAnswer(
            counts["accepted"], counts["duplicate"], counts["queued"], counts["rejected"], verdicts
        )  # fmt: skip
        return answer(msgspec.json.encode(told), 202)

    async def _bring(self, own: Instrument, trades: TradeBatch, indices: list[int], items: Items) -> None:
        """Have the trades of one instrument stored, or on disk, and say so. Raises ``Unavailable``."""
        cause, alone = self._away(), False
        if cause is None and self._backlog is not None:
            cause = self._backlog.stuck(own.id)
            alone = cause is not None
        if cause is None:
            try:
                async with asyncio.timeout(STORE_PATIENCE):
                    outcome = await self._intake.store(trades)
            except (StoreError, Unavailable, TimeoutError) as error:
                if self._backlog is None and not isinstance(error, TimeoutError):
                    raise
                cause, alone = str(error) or "the store does not answer", isinstance(error, Unavailable | TimeoutError)
            else:
                for index, fresh, other in zip(indices, *map(list, outcome), strict=True):
                    items.verdicts[index] = Verdict(index, "accepted" if fresh else "duplicate")
                    if other:
                        items.conflict(index)
                return
        if self._backlog is None:
            raise Unavailable(f"nothing can be stored now: {cause}", retry_after=RETRY_AFTER)
        await self._backlog.keep(own, trades, cause, alone=alone and self._away() is None)
        for index in indices:
            items.verdicts[index] = Verdict(index, "queued")

    def _away(self) -> str | None:
        """Why nothing can be stored at the moment; None while it can, as far as is known."""
        return self._trouble() or (self._backlog.cause if self._backlog is not None else None)

    async def _known(self, items: Items) -> dict[str, Instrument]:
        """The instruments with a tape; new ones get theirs if they may and any item is a trade of it. Raises
        ``Unavailable`` where that cannot be told now: what an instrument is must be known before trades of it can be
        kept."""
        ids = items.instruments()
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                known = await self._intake.instruments(ids)
                missing = sorted(id for id in ids - known.keys() if registrable(id))
                if not self._options.auto_register or not missing:
                    return known
                new = [items.new(id) for id in missing]
                if (cause := self._away()) is not None:
                    raise StoreError(cause)
                for one in new:
                    if not items.fitting(one):
                        known[one.id] = one  # so that its items are told what is wrong with them
                        continue
                    async with self._registering:  # of many at once none may slip past the limit
                        if await self._intake.count(VENUE) < self._options.max_instruments:
                            known[one.id] = await self._intake.register(one)
        except (StoreError, TimeoutError) as error:
            raise Unavailable(
                "nothing is known here of an instrument among them, and no new one can be made now: "
                f"{str(error) or 'the store does not answer'}",
                retry_after=RETRY_AFTER,
            ) from error
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
            """202 follows the commit: accepted trades and duplicates are in the store, those queued on disk until the
            store is back. Needs a key with the scope `ingest`, or a Standard Webhooks signature. A repeated
            `Idempotency-Key` (or `webhook-id`) gets the same answer for 24 hours."""
            return await self.take(request)

        return ingest


def _spec(text: str) -> ResponseSpec:
    return ResponseSpec(_problem.Problem, description=text, media_type=_problem.MEDIA_TYPE, generate_examples=False)


_ANSWERS = {
    202: ResponseSpec(
        IngestAnswer, description="Stored, or safe on disk; one verdict per item", generate_examples=False
    ),
    400: _spec("The request as a whole is wrong; nothing was stored"),
    401: _spec("No known key, or a signature that does not fit"),
    403: _spec("The key lacks the scope ingest"),
    409: _spec("The same request is under way; Retry-After tells when its answer is there"),
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
