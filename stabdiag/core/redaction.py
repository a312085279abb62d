"""Secrets in what is recorded: told by the name before them, or by their own form, and left out."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

REDACTED = "[redacted]"

ALWAYS = frozenset(
    {"password", "passwd", "passphrase", "secret", "secrets", "apikey", "credential", "credentials"}
    | {"authorization", "bearer", "signature"}
)
"""Last words of names whose value is a secret, whatever stands before them."""

KEYS = frozenset(
    {"api", "access", "secret", "private", "encryption", "signing", "account", "service", "shared"}
    | {"storage", "wandb"}
)
"""What makes a `key` one: others are columns of a data set."""

ORDINARY = frozenset(
    {"pad", "eos", "bos", "cls", "sep", "mask", "unk", "image", "special", "start", "end", "stop", "prompt"}
    | {"class", "register", "per", "num", "n", "max", "min", "new", "first", "last", "next", "each", "extra"}
    | {"begin", "user", "assistant", "system", "decoder"}
)
"""What makes a `token` one of a text."""

NO_SECRETS = frozenset({"", "true", "false", "none", "null", "yes", "no", "0", "1", REDACTED})

FORMS = re.compile(
    r"""
      \b hf_ (?: (?=[A-Za-z]{0,100}\d) [A-Za-z0-9]{10,} | [A-Za-z0-9]{24,} )          # Hugging Face
    | \b sk- (?: (?=[A-Za-z_-]{0,100}\d) [A-Za-z0-9_-]{12,} | [A-Za-z0-9]{24,} )      # OpenAI, Anthropic
    | \b gh[opusr]_ [A-Za-z0-9]{12,} | \b github_pat_ \w{12,} | \b glpat- [\w-]{12,}
    | \b (?: AKIA | ASIA ) [A-Z0-9]{12,}                                        # AWS
    | \b AIza [\w-]{20,}                                                        # Google
    | \b xox[abeoprs]- [\w-]{10,}                                               # Slack
    | \b wandb_v1_ \w{12,} | \b (?: npm | r8 ) _ [A-Za-z0-9]{20,} | \b pypi- [\w-]{20,}
    | \b eyJ [\w-]{8,2000} \. [\w-]{8,} \. [\w-]*                                 # a JSON web token
    | -----BEGIN [A-Z ]* PRIVATE\ KEY----- .*? (?: -----END [A-Z ]* PRIVATE\ KEY----- | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)
IN_ADDRESS = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.-]{0,20}://[^\s/@:]{0,200}:)(?P<value>[^\s/@]{1,500})(?=@)", re.IGNORECASE
)
ALONE_IN_ADDRESS = re.compile(r"(?P<before>\bhttps?://)(?P<value>[^\s/@:]{1,500})(?=@)", re.IGNORECASE)
SCHEME = re.compile(r"(?P<before>\b(?:Bearer|Authorization:\s?Basic)\s)(?P<value>[\w.~+/=-]{8,})")
SIGNED = re.compile(r"(?P<before>[?&]sig=)(?P<value>[^\s&'\"]+)")
ASSIGNED = re.compile(r"""(?P<before>["']?\]?\s?=\s?["']?|["']\s?:\s?["'])(?P<value>(?!=)[^\s"'&;,{}()]+)""")
NAME = re.compile(r"[\w.-]{1,100}\Z")
OPTION = re.compile(r"-{1,2}[A-Za-z][\w.-]*")

LONGEST = 50_000
"""Characters of a text that are kept: the rest of an endless message says nothing."""

SHORTEST = 6
"""Characters of a value that is looked for wherever it stands: a shorter one would be found in anything."""


def is_secret(name: str) -> bool:
    """Whether what is called `name` (`--api-key`, `HF_TOKEN`, `hub.authToken`) has a secret as its value."""
    parts = [part for part in re.split(r"[-_.]+|(?<=[a-z])(?=[A-Z])", name.strip("-+")) if part]
    last, before = (parts or [""])[-1].lower(), (parts[-2].lower() if len(parts) > 1 else "")
    if last == "token":
        return before not in ORDINARY
    if last == "key":
        return before in KEYS or (name.isupper() and bool(before))
    return last in ALWAYS or last.endswith(("password", "apikey", "authtoken", "accesstoken"))


def redacted(text: str) -> str:
    """The beginning of `text`, without what has the form of a secret, and without the secrets that this
    process was given."""
    text = text[:LONGEST]
    for secret in _given():
        text = text.replace(secret, REDACTED)
    return _by_form(text)


def redacted_command(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command, each secret in them replaced by REDACTED."""
    return tuple(_shown(words))


def redacted_record(value: Any) -> Any:
    """All texts of a JSON document."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_record(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_record(item) for item in value]
    return value


def _shown(words: Iterable[str]) -> Iterator[str]:
    asked = False
    for word in words:
        if asked and not OPTION.match(word) and word.lower() not in NO_SECRETS:
            yield REDACTED
        else:
            yield _by_form(word)
        asked = bool(OPTION.fullmatch(word)) and is_secret(word)


def _by_form(text: str) -> str:
    text = FORMS.sub(REDACTED, text)
    for pattern in (IN_ADDRESS, ALONE_IN_ADDRESS, SCHEME, SIGNED):
        text = pattern.sub(rf"\g<before>{REDACTED}", text)
    return ASSIGNED.sub(_assigned, text)


def _assigned(match: re.Match[str]) -> str:
    # Looked for backwards: to begin with the name would try every place in a long text.
    name = NAME.search(match.string[max(match.start() - 100, 0) : match.start()])
    if name is None or match["value"].lower() in NO_SECRETS or not is_secret(name[0]):
        return match[0]
    return f"{match['before']}{REDACTED}"


@cache
def _given() -> tuple[str, ...]:
    """The secrets on this process's own command line and in its environment, the longest first."""
    found = {value for name, value in os.environ.items() if is_secret(name)}
    for word, shown in zip(sys.orig_argv, redacted_command(sys.orig_argv), strict=True):
        before, mark, after = shown.partition(REDACTED)
        if mark and REDACTED not in after:
            found.add(word[len(before) : len(word) - len(after)])
    telling = (value for value in found if len(value) >= SHORTEST and value.lower() not in NO_SECRETS)
    return tuple(sorted(telling, key=len, reverse=True))
