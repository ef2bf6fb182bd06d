"""What must never be shown: the secrets of the settings, wherever a message carries one along.

Settings tell their secrets here when they are loaded; logs, errors, answers and findings pass ``masked`` before they
leave the process. Credentials inside addresses are recognised even when nobody told of them.
"""

from __future__ import annotations

import re

__all__ = ["learn", "masked", "plain"]

HIDDEN = "***"
LEAST = 6  # characters: shorter texts are words of every message
SEGMENT = 16  # characters from which on a part of an address's path is taken for a key
PARAMETERS = re.compile(r"key|token|secret|pass|auth|sig", re.IGNORECASE)
_userinfo = re.compile(r"(\w[\w+.-]*://)[^\s/@'\"]+@")
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def learn(value: str) -> None:
    """``value`` is a secret, or an address that holds some."""
    global _pattern
    found = set(_of_address(value)) if "://" in value else {value}
    new = {text for text in found if len(text) >= LEAST} - _known
    if new:
        _known.update(new)
        longest = sorted(_known, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, longest)))


def masked(text: str) -> str:
    """``text`` without what is secret in it."""
    if "://" in text:
        text = _userinfo.sub(rf"\1{HIDDEN}@", text)
    return text if _pattern is None else _pattern.sub(HIDDEN, text)


def plain(text: str) -> str:
    """``text`` as part of one line: what would begin another, or move a terminal, is escaped."""
    return _control.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _of_address(value: str) -> list[str]:
    """The user's password, path parts and parameters that look like keys."""
    from urllib.parse import parse_qsl, unquote, urlsplit  # help, which has no secrets, need not wait for it

    found: list[str] = []
    for one in value.split(","):
        try:
            parts = urlsplit(one.strip())
            found += [parts.password or "", unquote(parts.password or "")]
        except ValueError:
            continue
        found += [part for part in parts.path.split("/") if len(part) >= SEGMENT]
        found += [text for name, text in parse_qsl(parts.query) if PARAMETERS.search(name)]
    return found
