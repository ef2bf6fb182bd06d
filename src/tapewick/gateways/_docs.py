"""``/docs``: the OpenAPI document as one plain page. No script, no network, nothing to install."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["DATAFEED", "STYLE", "render"]

DATAFEED = (Path(__file__).parent / "datafeed.js").read_bytes()
"""The adapter for charting libraries, served beside the documents."""


STYLE = b"""
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; padding: 1rem 0; }
h2 code { font-size: 1.1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8883; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: #8882; padding: .6rem; overflow-x: auto; }
"""

INTRO = """
<p>JSON over HTTP at <code>/v1</code>, live data over WebSocket at <code>/v1/ws</code>, as server-sent events at
<code>/v1/sse?channels=…</code>, and over gRPC (<code>tapewick.v1.MarketData</code>, a port of its own, off unless
<code>grpc.enabled</code> is set): the same channels, records and positions everywhere.
Times are integers of UTC milliseconds (on-chain orders print ISO 8601); questions may also use ISO 8601, and
<code>times=ns</code>, where it is offered, makes answers print decimal strings of ns.
Prices and sizes are exact decimal strings. Answers of trades and candles print their <code>position</code>: pass it as
<code>since</code> to go on from there. Errors are <code>application/problem+json</code> and name their field.
Machine-readable: <a href="/schema/openapi.json">/schema/openapi.json</a>.</p>
<h2 id="ws">WebSocket</h2>
<pre>&rarr; {"op":"subscribe","id":1,"channels":[{"ch":"candle@binance:BTCUSDT@1m","snapshot":100},
                                       {"ch":"trade@binance:BTCUSDT","since":"EPOCH:48211"}]}
&larr; welcome, subscribed, snapshot, event (durable, with pos), update (the open candle, provisional),
  gap, skip, notice, pong, unsubscribed, error
&rarr; {"op":"unsubscribe","channels":[{"ch":"trade@binance:BTCUSDT"}]}   {"op":"ping"}   {"op":"list"}</pre>
<table><tr><th>channel</th><th>options</th><th>sends</th></tr>
<tr><td><code>trade@ID</code></td><td>snapshot, since, strict, times (ms | ns), backfill (all | skip)</td>
<td>snapshot, event, skip</td></tr>
<tr><td><code>candle@ID@TF</code></td>
<td>snapshot, since, strict, times, mode (all | conflate | latest), max_rate (per second)</td>
<td>snapshot, event, update</td></tr>
<tr><td><code>ticker@ID</code></td><td>mode, max_rate</td><td>snapshot, update: rolling 24 h</td></tr>
<tr><td><code>book@ID</code></td><td>levels (5 10 20 50 100 500)</td><td>snapshot, update (delta, state)</td></tr>
<tr><td><code>book_top@ID</code></td><td>levels, mode, max_rate</td>
<td>snapshot, update: the whole best levels</td></tr>
<tr><td><code>bbo@ID</code></td><td>mode, max_rate</td><td>snapshot, update: best bid and ask</td></tr>
<tr><td><code>health</code>, <code>health@ID</code></td><td></td><td>snapshot, event of kind stream_health, gap_opened,
gap_closed or book_state</td></tr></table>
<p>Data frames are JSON, or protobuf for a socket opened with the subprotocol <code>tapewick.v1.proto</code>.</p>
<p>A <code>gap</code> frame says that a channel could not be resumed where <code>since</code> asked, or was interrupted:
<code>from</code> and <code>to</code> are the positions between which something may be missing, <code>reason</code> says
why, and a snapshot follows. With <code>strict</code> the connection is closed with 4009 instead.</p>
<h2 id="tokens">Tokens</h2>
<p>A server with <code>server.tokens</code>, or <code>server.require_keys</code>, wants one of each client: the header
<code>Authorization: Bearer TOKEN</code> (in gRPC the metadata <code>authorization</code>); on a WebSocket also the
subprotocol <code>tapewick.key.TOKEN</code> beside <code>tapewick.v1.json</code>, or the first message
<code>{"op":"auth","token":"TOKEN"}</code>. In a query string it counts for nothing.</p>
<h2 id="charts">Charting libraries</h2>
<p>Libraries that speak TradingView's UDF take <code>/udf</code> as their address. Those that take a datafeed object
get live bars too: <a href="/docs/datafeed.js">/docs/datafeed.js</a>.</p>
"""


def _type(schema: Mapping[str, Any], shapes: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " | ".join(_type(one, shapes) for one in schema[key])
    if schema.get("type") == "array":
        return f"[{_type(schema.get('items', {}), shapes)}, …]"
    kind = schema.get("type", "any")
    return " | ".join(kind) if isinstance(kind, list) else str(kind)


def _parameters(operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterator[str]:
    for one in operation.get("parameters", ()):
        schema = one.get("schema", {})
        bounds = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
        default = f"default {schema['default']}" if schema.get("default") is not None else ""
        facts = ", ".join(filter(None, ["required" if one.get("required") else "", default, *bounds]))
        cells = (f"<code>{escape(one['name'])}</code>", escape(_type(schema, shapes)), escape(facts))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in (*cells, _prose(one.get('description', ''))))}</tr>"


def _prose(text: str) -> str:
    """A description, whose code is between backquotes."""
    return re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", escape(text))


def _fields(name: str, shape: Mapping[str, Any], shapes: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(_type(schema, shapes))}</td></tr>"
        for field, schema in shape.get("properties", {}).items()
    )
    text = f"<p>{_prose(shape['description'])}</p>" if shape.get("description") else ""
    return f"<section id={escape(name)}><h2><code>{escape(name)}</code></h2>{text}<table>{rows}</table></section>"


def _reference(answer: str, shapes: Mapping[str, Any]) -> str:
    named = f"<code>{escape(answer)}</code>"
    return f'<a href="#{escape(answer)}">{named}</a>' if answer in shapes else named


def _answers(operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> str:
    """What a route answers, how it refuses, and whether it wants a key of everybody."""
    responses = operation.get("responses", {})
    good = responses.get("200", {}).get("content", {})
    answer = next((_type(media.get("schema", {}), shapes) for media in good.values()), "")
    told = f"Answers {_reference(answer, shapes)}. " if answer else ""
    refusals = " ".join(sorted(status for status in responses if status >= "400"))
    told += f"Refuses with {refusals}. " if refusals else ""
    security = operation.get("security") or [{}]
    told += "" if {} in security else f"Needs a {' or a '.join(name for one in security for name in one)}."
    return f"<p>{told}</p>" if told else ""


def render(document: Mapping[str, Any]) -> bytes:
    """The page for an OpenAPI 3.1 document."""
    shapes = document.get("components", {}).get("schemas", {})
    parts = []
    for path, item in document.get("paths", {}).items():
        for method, operation in item.items():
            if not isinstance(operation, Mapping):
                continue
            table = "".join(_parameters(operation, shapes))
            summary, text = escape(operation.get("summary", "")), _prose(operation.get("description") or "")
            parts.append(
                f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
                f"<p><b>{summary}.</b> {text}</p>"
                + (f"<table>{table}</table>" if table else "")
                + _answers(operation, shapes)
                + "</section>"
            )
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        '<link rel=icon href="/favicon.svg"><link rel=stylesheet href="/docs/style.css">'
        f"<body><h1>{title}</h1>{INTRO}{''.join(parts)}"
        + "".join(_fields(name, shape, shapes) for name, shape in shapes.items())
    )
    return page.encode()
