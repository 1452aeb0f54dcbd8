"""Checks: numbered rules that a peer keeps, breaks, or has no occasion for; and the report of a run of them.

A check is an async function of a *probe* (what it may ask of the peer). It returns what was seen, raises `Broken` with
the reason when the rule is broken, and `NotApplicable` when there is nothing to judge. Numbers and names of checks
stay as they are once published: scripts select by them.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, NoReturn, TypeVar

import trio

from talkpath.errors import ConfigError

P = TypeVar("P")


class Verdict(enum.StrEnum):
    """How a check came out."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


class Broken(Exception):
    """The peer broke the rule; says how."""


class NotApplicable(Exception):
    """There was nothing to judge; says why."""


def broken(reason: str) -> NoReturn:
    """Raise `Broken`."""
    raise Broken(reason)


def expect(true: bool, reason: str) -> None:
    """Raise `Broken` unless something is so."""
    if not true:
        raise Broken(reason)


def skip(reason: str) -> NoReturn:
    """Raise `NotApplicable`."""
    raise NotApplicable(reason)


@dataclass(frozen=True, slots=True)
class Check(Generic[P]):
    """One rule."""

    number: int
    name: str
    rule: str
    """What is right, in one line."""
    judge: Callable[[P], Awaitable[str]]
    limit_s: float = 30.0
    """A check that takes longer is broken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check came out."""

    number: int
    name: str
    rule: str
    verdict: Verdict
    reason: str
    """What was seen, what is wrong, or why there was nothing to judge."""


@dataclass(frozen=True, slots=True)
class ConformanceReport:
    """All findings of one run; the field names are those of ``--json``."""

    wire: str
    against: str
    """``application`` or ``platform``: who was checked."""
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(finding.verdict is not Verdict.FAILED for finding in self.findings)

    def count(self, verdict: Verdict) -> int:
        """Return how many checks came out so."""
        return sum(finding.verdict is verdict for finding in self.findings)

    def summary(self) -> str:
        """Say it in one line."""
        return ", ".join(f"{self.count(verdict)} {verdict.value}" for verdict in Verdict)

    def to_json(self) -> str:
        """Return the report as one JSON object on one line."""
        counts = {verdict.value.replace(" ", "_"): self.count(verdict) for verdict in Verdict}
        checks = [asdict(finding) for finding in self.findings]
        return json.dumps({"wire": self.wire, "against": self.against, **counts, "checks": checks})

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        name_width = max((len(finding.name) for finding in self.findings), default=0)
        return [
            f"{finding.number:3d}  {finding.name:<{name_width}}  "
            f"{_MARKS[finding.verdict]:<6}  {finding.reason}".rstrip()
            for finding in self.findings
        ] + [f"{self.wire} {self.against}: {self.summary()}"]


_MARKS = {Verdict.PASSED: "ok", Verdict.FAILED: "FAILED", Verdict.NOT_APPLICABLE: "n/a"}


def selected(checks: Sequence[Check[P]], only: Sequence[str]) -> tuple[Check[P], ...]:
    """Return the checks of these numbers and names, in their own order; all where nothing is named.

    Raises:
        ConfigError: a check that there is not.
    """
    known = {word for check in checks for word in (check.name, str(check.number))}
    unknown = [word for word in only if word not in known]
    if unknown:
        raise ConfigError(f"no check is called {unknown[0]!r}; --list shows them")
    return tuple(check for check in checks if not only or check.name in only or str(check.number) in only)


def listing(checks: Sequence[Check[P]]) -> list[str]:
    """Return the rules as lines for people."""
    width = max(len(check.name) for check in checks)
    return [f"{check.number:3d}  {check.name:<{width}}  {check.rule}" for check in checks]


async def judge(check: Check[P], probe: P) -> Finding:
    """Run one check. What the peer's connection does to it (`OSError`) is a finding; anything else is a bug of ours."""
    verdict, reason = Verdict.FAILED, f"no result within {check.limit_s:g} s"
    with trio.move_on_after(check.limit_s):
        try:
            verdict, reason = Verdict.PASSED, await check.judge(probe)
        except Broken as exc:
            reason = str(exc)
        except NotApplicable as exc:
            verdict, reason = Verdict.NOT_APPLICABLE, str(exc)
        except OSError as exc:
            reason = f"the connection failed: {exc.strerror or type(exc).__name__}"
    return Finding(check.number, check.name, check.rule, verdict, reason)


async def judge_all(
    checks: Sequence[Check[P]], probe: P, *, on_finding: Callable[[Finding], None] | None = None
) -> tuple[Finding, ...]:
    """Run checks one after the other; `on_finding` is told of each as it comes out."""
    findings = []
    for check in checks:
        findings.append(await judge(check, probe))
        if on_finding is not None:
            on_finding(findings[-1])
    return tuple(findings)
