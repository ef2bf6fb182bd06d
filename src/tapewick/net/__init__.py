"""Connections to others: HTTP, WebSocket and JSON-RPC clients that keep to budgets, reconnect and notice silence."""
