"""A line that can be held: by its program, by a wire's pause, and by a suspicion that its caller speaks.

Theory of operation. Whoever holds the line sets a bit; with the first the far end is held, with the last it goes on.
Where the wire has a pause, that is it. Where it has only a clear, the clear is sent, the native stream takes back what
by its model has not been played (`tp_stream_rewind`), and that is sent again when the line goes on; the checkpoints in
it are kept meanwhile. Where nothing takes back what was sent, which is little then, it is heard to its end and the rest
waits. What is said while the line is held queues behind, a clear ends every hold.
"""

from __future__ import annotations

from functools import partial

from talkpath._native import lib
from talkpath.audio import AudioChunk
from talkpath.errors import NotOnThisWire
from talkpath.events import Clear, Pause, Resume, WireEvent
from talkpath.line.config import LineConfig
from talkpath.line.listen import AudioHook
from talkpath.line.speaking import SpeakingLine
from talkpath.path.barge_in import Act, BargeIn, Interruption, Verdict, check_policy, read_answer
from talkpath.path.stream import NEVER, Stream
from talkpath.records import EndReason
from talkpath.wire.dialect import Dialect

PROGRAM, SUSPICION = 1, 2
"""Who may hold a line."""
POLICY_CHUNK_MS = 20


def can(dialect: Dialect, command: WireEvent) -> bool:
    """Whether the wire has a message for `command`."""
    try:
        dialect.check(command)
    except NotOnThisWire:
        return False
    return True


class HoldingLine(SpeakingLine):
    """The side of a `Line` that is held and let go; see the module."""

    __slots__ = (
        "_barge_ins",
        "_can_pause",
        "_held_by",
        "_interruption",
        "_policy",
        "_policy_ear",
        "_stream",
        "_suspicions",
        "_takes_back",
        "config",
    )

    config: LineConfig
    _stream: Stream | None
    _barge_ins: int
    _suspicions: int
    _policy: BargeIn | None
    _policy_ear: AudioHook | None
    _held_by: int
    """Bits: PROGRAM, SUSPICION."""
    _can_pause: bool
    """The wire has a pause."""
    _takes_back: bool
    """It has none, but a clear that takes back what was sent."""
    _interruption: Interruption | None

    def _end_by_callable(self, whose: str, reason: EndReason, exc: Exception) -> None:
        raise NotImplementedError

    def _clear(self, now_ns: int) -> None:
        raise NotImplementedError

    def barge_in(self, policy: BargeIn | None, *, suspicion_ms: int = 1000) -> None:
        """Let `policy` decide, on each 20 ms of caller's audio, what it does to what is said to him.

        Anything serves that takes an `AudioChunk` and answers a bool (True clears) or a `Verdict`: SUSPECT pauses at
        once, REJECT goes on with the next sample, CONFIRM clears. `VoiceGate` is for noisy lines and knows all three,
        `EnergyGate` clears when it is loud; None removes the policy, and a suspicion with it. It is called within the
        driver's step and must be quick. When it raises, the line ends with ``policy_failed``.

        A pause is exact to the sample where the wire has one (native, Asterisk's); on AudioSocket it comes after the
        up to 60 ms that have been sent. Elsewhere the wire's clear takes
        its place, and what by the line's model has not been played is sent again: the model is off by the difference
        between two messages' times on their way and the platform's frame, so so much may be heard twice or not at all,
        and a checkpoint in what is sent again comes out ASSUMED. For that the line keeps what it sends ahead, in
        memory, from now on: what was sent before can be cleared and not held. So set the policy before you speak.

        Args:
            suspicion_ms: A suspicion that the policy does not decide in this time has ended: 20 to 10,000.

        Raises:
            NotOnThisWire: the wire has no clear.
            ConfigError: the caller's track is not streamed, `suspicion_ms`, or what cannot be a policy.
            CallEnded: the line is over.
        """
        if policy is not None:
            self._check_live()
            self._dialect.check(Clear())
            check_policy(policy)
            interruption = Interruption(suspicion_ms)
            if self._takes_back and getattr(policy, "suspects", True):
                assert self._stream is not None
                self._stream.keep_tail(self._speech.tail_bytes(self.config.send_ahead_ms))
            if self._policy_ear is None:
                self._policy_ear = AudioHook(
                    self._hearing, self._hearing.sample_rate_hz, POLICY_CHUNK_MS, "inbound", self._ask_policy
                )
            if self._interruption is not None:
                interruption.due_ns = self._interruption.due_ns  # a suspicion that is on ends when it would have
            self._interruption = interruption
        else:
            if self._policy_ear is not None:
                self._policy_ear.close()
                self._policy_ear = None
            if self._interruption is not None and self._interruption.suspected and self.end_reason is None:
                self._interruption.due_ns = 0  # over, in the next step
                self._commands.put(self._on_time)
        self._policy = policy

    def _ask_policy(self, chunk: AudioChunk, now_ns: int) -> None:
        policy = self._policy
        assert policy is not None
        assert self._interruption is not None
        try:
            verdict = read_answer(policy(chunk))
        except Exception as exc:
            self._end_by_callable("the barge-in policy", EndReason.POLICY_FAILED, exc)
            return
        if verdict is None or (verdict is Verdict.SUSPECT and self._policy is not policy):  # it took itself away
            self._interruption.answer(None, now_ns, bool)
            return
        # What the program said before it could know of this speech is held or cleared with the rest.
        self._commands.run(now_ns)
        if self.end_reason is not None:
            return
        match self._interruption.answer(verdict, now_ns, partial(self._is_heard, verdict, now_ns)):
            case Act.PAUSE:
                self._suspicions += 1
                self._journal("barge-in", "suspected")
                self._hold(SUSPICION, now_ns)
            case Act.RESUME:
                self._journal("barge-in", "rejected")
                self._let_go(SUSPICION, now_ns)
            case Act.CLEAR:
                self._barge_ins += 1
                self._journal("barge-in")
                self._speech.clears_asked += 1
                self._clear(now_ns)
            case Act.NOTHING:
                pass

    def _is_heard(self, verdict: Verdict, now_ns: int) -> bool:
        """Whether anything said, or to come from a `play`, is still to be heard, and can be treated so.

        What was sent before the policy came has not been kept, so it cannot be held where a hold means to send again.
        """
        if verdict is Verdict.SUSPECT and self._takes_back:
            assert self._stream is not None
            if int(lib.tp_stream_model_played(self._native, now_ns)) < self._stream.tail_from:
                return False
        return self._speech.feeding > 0 or self._speech.is_heard(now_ns)

    async def pause(self) -> None:
        """Have the platform hold what the line says, at the sample it has reached; return once that is written.

        Meanwhile nothing more of it is sent, `play` and checkpoints wait, and what is said is queued. `resume` goes on
        at the next sample, `clear` drops what waits and ends the pause. On a line that is paused already
        nothing happens.

        Raises:
            NotOnThisWire: the wire has no pause (the native wire and Asterisk's have one).
            CallEnded: the line is over.

        Cancellation: it may still happen.
        """
        self._check_live()
        self._dialect.check(Pause())
        await self._commands.perform(partial(self._hold, PROGRAM))

    async def resume(self) -> None:
        """Let what the line says go on after a `pause`; nothing happens on a line that is not paused.

        Raises:
            NotOnThisWire: the wire has no pause.
            CallEnded: the line is over.

        Cancellation: it may still happen.
        """
        self._check_live()
        self._dialect.check(Resume())
        await self._commands.perform(partial(self._let_go, PROGRAM))

    @property
    def paused(self) -> bool:
        """Whether `pause` has taken effect, and no `resume` or `clear` since."""
        return bool(self._held_by & PROGRAM)

    def _on_time(self, now_ns: int) -> None:
        """A moment has come that was waited for."""
        interruption = self._interruption
        if interruption is not None and interruption.look(now_ns) is Act.RESUME:
            self._journal("barge-in", "undecided")
            self._let_go(SUSPICION, now_ns)
        if self._paused_ns is None:
            self._checkpoints.assume_kept(now_ns)
            if not self._dialect.has_marks:
                self._checkpoints.assume(now_ns, after_ns=0)
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Have an ALARM come when the next thing is due that nobody else tells of."""
        due = NEVER if self._interruption is None else self._interruption.due_ns
        if self._paused_ns is None:
            due = min(due, self._checkpoints.next_kept_ns())
            if not self._dialect.has_marks:
                due = min(due, self._checkpoints.next_expected_ns())
        self._speech.wake_at(due)

    def _hold(self, who: int, now_ns: int) -> None:
        """Have the far end hold what it has, at the sample it has reached; in the step.

        Where it can only clear it is told to, and what it has not played by the model is sent again afterwards. Where
        it cannot even do that, it reaches the end of what has been sent first.
        """
        held, self._held_by = self._held_by, self._held_by | who
        if held:
            return
        with self.driver.paused():
            # A checkpoint that is due lies before the pause: it is sent first.
            self.pull_events(now_ns)
            if self.end_reason is not None or not self._held_by:
                return  # what came in just now has ended the line, or the reason to hold it
            held_ns = now_ns if self._can_pause or self._takes_back else now_ns + self._speech.ahead_ns(now_ns)
            self._paused_ns = held_ns
            self._speech.hold(True, held_ns)
            if self._can_pause:
                self._write(Pause())
            elif self._takes_back:
                lib.tp_stream_rewind(self._native)
                self._checkpoints.keep(now_ns, confirmed_later=self._dialect.confirms_clear)
                self._write(Clear())
        if self._takes_back and not (self._dialect.confirms_clear or self._dialect.returns_marks_on_clear):
            self._checkpoints.settle_cleared()
        self._set_alarm()
        self._reschedule(now_ns)

    def _let_go(self, who: int, now_ns: int) -> None:
        """Let the far end go on, unless somebody else holds it; in the step."""
        self._held_by &= ~who
        if self._held_by or self._paused_ns is None:
            return
        paused_ns, self._paused_ns = self._paused_ns, None
        with self.driver.paused():
            self._checkpoints.shift(paused_ns, self._speech.hold(False, now_ns))
        if self._can_pause:
            self._write(Resume())
        self._set_alarm()
        self._reschedule(now_ns)
