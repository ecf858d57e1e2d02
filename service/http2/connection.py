"""One connection: frames in, frames out, and the calls between them (RFC 9113)."""

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import grpc

from service.http2 import frames, headers
from service.http2.call import LOOKAHEAD_BYTES, Call
from service.http2.frames import Code, ConnectionFault, Kind, Setting
from service.http2.headers import CallHeaders, HeaderReader
from service.http2.late_ends import LateEnds
from service.http2.limits import Limits
from service.http2.reader import LARGEST_DATA_BYTES, FrameReader

# Of all calls together; what bounds the memory is each call's own window.
_WINDOW_BYTES = 16 * 1024 * 1024
# Of HPACK's table, before SETTINGS say something else. Ours stays empty.
_TABLE_BYTES = 4096
# Of one call's headers, encoded.
_BLOCK_BYTES = headers.LARGEST_DECODED_BYTES
# As gRPC's servers: what comes more often than allowed, three times in a row, is an attack or a mistake.
_MOST_PING_STRIKES = 2
# Of what is said beside the calls and not read by the peer.
_WRITE_BUFFER_BYTES = 1024 * 1024
_LOOPBACK_BUFFER_BYTES = 1024 * 1024
_GOODBYE = b"goodbye!"
_ALIVE = b"alive? !"
_GOODBYE_S = 1.0
_CLOSE_S = 5.0

Find = Callable[[str], "grpc.RpcMethodHandler[Any, Any] | None"]


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(
        self, find: Find, limits: Limits, connections: "set[Connection]", on_last: Callable[[], None]
    ) -> None:
        """Make it; its transport calls it from then on.

        Args:
            find: the handler of a path.
            limits: its own.
            connections: of its server; it is among them while it is open, and while a handler of its runs.
            on_last: called when it is gone and no other is left.
        """
        self._find, self._limits = find, limits
        self._connections, self._on_last = connections, on_last
        self._loop = asyncio.get_running_loop()
        self._headers = HeaderReader()
        self._calls: dict[int, Call] = {}  # not ended
        # Under way; of ended calls too. Held here, for asyncio holds its tasks only weakly.
        self._handlers: set[asyncio.Task[None]] = set()
        self._late_ends = LateEnds(self._loop, self._stop_sending)
        self._reader = FrameReader(self, _BLOCK_BYTES)
        self._data: Call | None = None  # whose DATA frame is coming,
        self._data_id = self._data_flags = 0  # its stream and flags
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, what came of its header block
        self._last_id = 0  # of the streams that the peer began,
        self._taken_id = 0  # and of those that weren't ignored
        self._received_bytes = 0  # that the connection's window wasn't renewed for
        self._send_window = frames.DEFAULT_WINDOW_BYTES
        self._call_window = frames.DEFAULT_WINDOW_BYTES
        self._frame_bytes = frames.DEFAULT_FRAME_BYTES
        self._table_update = b""  # for the next header block
        self._transport: asyncio.Transport | None = None
        self._full = False  # the transport's buffer
        self._settled = self._closing = self._lost = False
        self._going = self._peer_goes = False  # begins, or lets the other begin, no calls any more
        self._heard = True
        self._strikes, self._last_ping_s = 0, float("-inf")
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # What asyncio tells it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what may be sent."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._connections.add(self)
        with contextlib.suppress(OSError):  # the peer has left already: connection_lost comes
            _tune(transport.get_extra_info("socket"), self._limits.ping_timeout_s)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        limits = self._limits
        greeting = frames.settings(
            {
                Setting.MAX_CONCURRENT_STREAMS: limits.concurrent_calls,
                Setting.INITIAL_WINDOW_SIZE: LOOKAHEAD_BYTES,
                Setting.MAX_FRAME_SIZE: LARGEST_DATA_BYTES,
                Setting.MAX_HEADER_LIST_SIZE: headers.LARGEST_LIST_BYTES,
            }
        )
        self._write(greeting + frames.window_update(0, _WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES))
        self._after("preface", limits.preface_s, self.abort)
        self._after("alive", limits.ping_every_s, self._ask_whether_alive)
        if limits.age_s:
            self._after("age", limits.age_s, self._grow_old)
        if self._going:  # it was accepted while its server stopped
            self._going = False
            self.go_away()

    def connection_lost(self, _: Exception | None) -> None:
        """Nobody is there any more."""
        self._closing = self._lost = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._late_ends.close()
        self._drop_calls()
        self._leave_if_over()

    def pause_writing(self) -> None:
        """The peer doesn't read: nothing more is read of it either, or its pings would fill the memory."""
        self._full = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False
        if self._transport is not None:
            self._transport.resume_reading()
        for call in list(self._calls.values()):
            call.may_send()

    def data_received(self, data: bytes) -> None:
        """Take what came, a part of a frame or many."""
        self._heard = True
        try:
            self._reader.feed(data)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))

    def eof_received(self) -> bool:
        """The peer sends nothing more: a client that ends so is gone."""
        self._close(_CLOSE_S)
        self._drop_calls()
        return False

    # What its server tells it.

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not self._calls and not self._handlers

    def go_away(self) -> None:
        """Ask the peer to begin nothing new; the connection closes when its calls have ended.

        First without a number, so that what is under way to us is still served, then with the last one.
        """
        if self._going or self._closing:
            return
        self._going = True
        if self._transport is None:  # it will, once it has one
            return
        self._write(
            frames.go_away(frames.LARGEST_STREAM_ID, Code.NO_ERROR) + frames.frame(Kind.PING, 0, 0, _GOODBYE)
        )
        self._after("goodbye", _GOODBYE_S, self._say_goodbye)

    def cancel_calls(self, status: grpc.StatusCode, message: str) -> None:
        """End every call that is under way, and begin no other."""
        if "goodbye" in self._timers:
            self._say_goodbye()
        for call in list(self._calls.values()):
            call.leave(status, message)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    # Frames in.

    def take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """See `Sink`."""
        if self._block is not None and kind != Kind.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block isn't continued")
        if not self._settled and kind != Kind.SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame isn't SETTINGS")
        match kind:
            case Kind.HEADERS:
                self._take_headers(flags, stream_id, payload)
            case Kind.CONTINUATION:
                self._continue(flags, stream_id, payload)
            case Kind.WINDOW_UPDATE:
                self._open_window(stream_id, payload)
            case Kind.RST_STREAM:
                self._check_begun(stream_id)
                self._check_size(len(payload) == 4, kind, payload)
                self._late_ends.came(stream_id)
                if call := self._calls.get(stream_id):
                    self._forget(call)
                    call.leave()
            case Kind.SETTINGS:
                self._settle(flags, stream_id, payload)
            case Kind.PING:
                self._check_stream(stream_id == 0, kind, stream_id)
                self._check_size(len(payload) == 8, kind, payload)
                self._answer_ping(flags, payload)
            case Kind.GOAWAY:
                self._check_stream(stream_id == 0, kind, stream_id)
                self._check_size(len(payload) >= 8, kind, payload)
                self._peer_goes = True
                self._close_if_done()
            case Kind.PUSH_PROMISE:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "clients don't push")
            case Kind.PRIORITY:
                self._check_stream(stream_id != 0, kind, stream_id)
                self._check_size(len(payload) == 5, kind, payload)
            case _:
                pass  # extensions are to be ignored

    @staticmethod
    def _check_stream(good: bool, kind: int, stream_id: int) -> None:
        if not good:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream_id}")

    @staticmethod
    def _check_size(good: bool, kind: int, payload: bytes) -> None:
        if not good:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of type {kind} has {len(payload)} bytes")

    def _check_begun(self, stream_id: int) -> None:
        if not stream_id % 2 or stream_id > self._last_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"stream {stream_id} hasn't begun")

    def begin_data(self, stream_id: int, flags: int) -> None:
        """See `Sink`."""
        if self._block is not None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block isn't continued")
        self._check_begun(stream_id)
        self._data, self._data_id, self._data_flags = self._calls.get(stream_id), stream_id, flags
        if self._data is not None and self._data.half_closed:
            raise ConnectionFault(Code.STREAM_CLOSED, f"DATA after the end of stream {stream_id}")

    def receive(self, part: memoryview, padding_bytes: int) -> None:
        """See `Sink`."""
        self._received_bytes += len(part) + padding_bytes
        if self._received_bytes >= _WINDOW_BYTES // 4:
            self._write(frames.window_update(0, self._received_bytes))
            self._received_bytes = 0
        if self._data is not None:
            self._data.receive(part, padding_bytes)

    def end_data(self) -> None:
        """See `Sink`."""
        call, self._data = self._data, None
        if self._data_flags & frames.END_STREAM:
            self._late_ends.came(self._data_id)
            if call is not None:
                call.finish_request()

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        payload = frames.unpadded(payload, flags)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS without the priority that it announces")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._end_block(stream_id, flags, payload)
        else:
            self._block = stream_id, flags, bytearray(payload)

    def _continue(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"nothing to continue on stream {stream_id}")
        _, first_flags, block = self._block
        block += payload
        # Empty ones could come for ever.
        if len(block) > _BLOCK_BYTES or not (payload or flags & frames.END_HEADERS):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"more than {_BLOCK_BYTES} bytes of headers")
        if flags & frames.END_HEADERS:
            self._block = None
            self._end_block(stream_id, first_flags, bytes(block))

    def _end_block(self, stream_id: int, flags: int, block: bytes) -> None:
        # Even where the stream doesn't matter any more: the next block refers to what this one said.
        call_headers = self._headers.read(block)
        if stream_id > self._last_id and stream_id % 2:
            self._last_id = stream_id
            self._begin_call(stream_id, flags, call_headers)
        elif not stream_id % 2 or call_headers.path:  # no trailers, which have none
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a call begins with number {stream_id}")
        elif call := self._calls.get(stream_id):  # trailers, which say nothing in gRPC
            if call.half_closed:
                raise ConnectionFault(Code.STREAM_CLOSED, f"HEADERS after the end of stream {stream_id}")
            if not flags & frames.END_STREAM:
                raise ConnectionFault(Code.PROTOCOL_ERROR, f"HEADERS in the middle of stream {stream_id}")
            call.finish_request()
        else:
            self._late_ends.came(stream_id)

    def _begin_call(self, stream_id: int, flags: int, call_headers: CallHeaders) -> None:
        if self._going and "goodbye" not in self._timers:
            return  # the peer was told that nothing above the last number is served
        self._taken_id = stream_id
        if call_headers.malformed:
            self._write(frames.reset(stream_id, Code.PROTOCOL_ERROR))
            return
        # Handlers of callers who left count too, but one whose answer was sent may not be over yet.
        most = self._limits.concurrent_calls
        if len(self._calls) >= most or len(self._handlers) >= 2 * most:
            self._write(frames.reset(stream_id, Code.REFUSED_STREAM))
            return
        handler, refusal = None, b""
        if call_headers.method != "POST":
            refusal = headers.refusal(405)
        elif not headers.is_grpc(call_headers.content_type):
            refusal = headers.refusal(415)
        elif call_headers.fault is not None:
            status, reason = call_headers.fault
            refusal = headers.BEGINNING + headers.ending(status.value[0], reason)
        else:
            handler = self._find(call_headers.path)
            if handler is None:
                refusal = headers.BEGINNING + headers.ending(
                    grpc.StatusCode.UNIMPLEMENTED.value[0], "Method not found!"
                )
        if handler is None:
            self._say(self._block_frames(stream_id, refusal, frames.END_STREAM))
            if not flags & frames.END_STREAM:
                self._late_ends.expect(stream_id)
            return
        call = Call(self, stream_id, call_headers, handler, self._call_window, self._limits.message_bytes)
        self._calls[stream_id] = call
        task = call.start(self._loop)
        self._handlers.add(task)
        task.add_done_callback(self._end_handler)
        if flags & frames.END_STREAM:
            call.finish_request()

    def _open_window(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes")
        more = frames.unpack_number(payload)[0] & frames.LARGEST_WINDOW_BYTES
        # The peer takes in what was sent long ago, and measures the line with pings meanwhile.
        self._strikes = 0
        if not stream_id:
            if not more:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            was_shut = self._send_window <= 0
            self._send_window += more
            if self._send_window > frames.LARGEST_WINDOW_BYTES:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
            if was_shut:  # else nobody waits for it
                for waiting in list(self._calls.values()):
                    waiting.may_send()
            return
        self._check_begun(stream_id)
        if call := self._calls.get(stream_id):
            call.send_window += more
            if not more or call.send_window > frames.LARGEST_WINDOW_BYTES:
                self._reset(call, Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR)
            else:
                call.may_send()

    def _settle(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or (flags & frames.ACK and payload):
            raise ConnectionFault(
                Code.PROTOCOL_ERROR if stream_id else Code.FRAME_SIZE_ERROR,
                f"SETTINGS on stream {stream_id} with {len(payload)} bytes",
            )
        if flags & frames.ACK:
            return
        listed = frames.read_settings(payload)
        settings = dict(listed)  # of most only the last matters
        self._frame_bytes = settings.get(Setting.MAX_FRAME_SIZE, self._frame_bytes)
        tables = [value for name, value in listed if name == Setting.HEADER_TABLE_SIZE]
        if min(tables, default=_TABLE_BYTES) < _TABLE_BYTES:
            # It has to be told that its wish is followed, the smallest (RFC 7541, section 4.2).
            self._table_update = headers.NO_TABLE
        window = settings.get(Setting.INITIAL_WINDOW_SIZE, self._call_window)
        if window != self._call_window:
            more, self._call_window = window - self._call_window, window
            for call in list(self._calls.values()):
                call.send_window += more
                if call.send_window > frames.LARGEST_WINDOW_BYTES:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a call's window is too large")
                call.may_send()
        self._settled = True
        if timer := self._timers.pop("preface", None):
            timer.cancel()
        self._write(frames.frame(Kind.SETTINGS, frames.ACK, 0))

    def _answer_ping(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if payload == _GOODBYE and "goodbye" in self._timers:
                self._say_goodbye()
            return
        now = self._loop.time()
        if now - self._last_ping_s < self._limits.ping_interval_s:
            self._strikes += 1
            if self._strikes > _MOST_PING_STRIKES:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too_many_pings")
        else:
            self._strikes = 0
        self._last_ping_s = now
        self._write(frames.frame(Kind.PING, frames.ACK, 0, payload))

    # Frames out.

    def begin_and_end(self, call: Call, message: bytes, ending: bytes) -> bool:
        """See `Wire`."""
        size = len(message)
        if (
            call.begun or self._full or size > self._frame_bytes
            or size > call.send_window or size > self._send_window
        ):  # fmt: skip
            return False
        call.send_window -= size
        self._send_window -= size
        self._finish(
            call,
            self._block_frames(call.stream_id, headers.BEGINNING),
            frames.header(Kind.DATA, 0, call.stream_id, size),
            message,
            self._block_frames(call.stream_id, ending, frames.END_STREAM),
        )
        return True

    async def send(self, call: Call, message: bytes) -> None:
        """See `Wire`."""
        if not call.begun and not call.ended:
            call.begun = True
            self._say(self._block_frames(call.stream_id, headers.BEGINNING))
        sent = 0
        while sent < len(message):
            if call.ended:
                raise asyncio.CancelledError  # which its task is about to be told
            size = min(len(message) - sent, self._frame_bytes, call.send_window, self._send_window)
            if size <= 0 or self._full:
                call.room = self._loop.create_future()
                try:
                    await call.room
                finally:
                    call.room = None
                continue
            call.send_window -= size
            self._send_window -= size
            part = message if size == len(message) else message[sent : sent + size]
            self._say(frames.header(Kind.DATA, 0, call.stream_id, size), part)
            sent += size

    def end(self, call: Call, ending: bytes) -> None:
        """See `Wire`."""
        block = ending if call.begun else headers.BEGINNING + ending
        self._finish(call, self._block_frames(call.stream_id, block, frames.END_STREAM))

    def allow(self, call: Call, more_bytes: int) -> None:
        """See `Wire`."""
        self._say(frames.window_update(call.stream_id, more_bytes))

    def _finish(self, call: Call, *parts: bytes) -> None:
        call.begun = True
        self._say(*parts)
        if not call.half_closed and not self._closing:
            self._late_ends.expect(call.stream_id)
        self._forget(call)

    def _block_frames(self, stream_id: int, block: bytes, flags: int = 0) -> bytes:
        """A header block, in as many frames as the peer wants."""
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        if len(block) <= self._frame_bytes:
            return frames.frame(Kind.HEADERS, flags | frames.END_HEADERS, stream_id, block)
        kind, cut = Kind.HEADERS, []
        for begin in range(0, len(block), self._frame_bytes):
            part = block[begin : begin + self._frame_bytes]
            if begin + len(part) == len(block):
                flags |= frames.END_HEADERS
            cut.append(frames.frame(kind, flags, stream_id, part))
            kind, flags = Kind.CONTINUATION, 0
        return b"".join(cut)

    def _say(self, *parts: bytes) -> None:
        """Write something of a call: the peer's pings are to be few only while there is nothing such."""
        self._strikes, self._last_ping_s = 0, float("-inf")
        self._write(b"".join(parts))

    def _write(self, content: bytes) -> None:
        if self._transport is not None and not self._closing:
            self._transport.write(content)

    def _stop_sending(self, stream_id: int) -> None:
        self._write(frames.reset(stream_id, Code.NO_ERROR))

    def _reset(self, call: Call, code: Code) -> None:
        self._write(frames.reset(call.stream_id, code))
        self._forget(call)
        call.leave()

    # Ends.

    def _forget(self, call: Call) -> None:
        call.ended = True
        if self._data is call:  # what came of its body isn't kept until the rest has come
            self._data = None
        if self._calls.pop(call.stream_id, None) is not None:
            self._close_if_done()

    def _end_handler(self, task: "asyncio.Task[None]") -> None:
        self._handlers.discard(task)
        if not task.cancelled():
            task.exception()
        self._close_if_done()
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        if self._lost and not self._handlers:
            self._connections.discard(self)
            if not self._connections:
                self._on_last()

    def _say_goodbye(self) -> None:
        if timer := self._timers.pop("goodbye", None):
            timer.cancel()
        self._write(frames.go_away(self._taken_id, Code.NO_ERROR))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if (self._peer_goes or (self._going and "goodbye" not in self._timers)) and self.idle:
            self._close(self._limits.grace_s)

    def _close(self, longest_s: float) -> None:
        """When the peer has read what was said, or after so many seconds."""
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._after("close", longest_s, self.abort)
        self._transport.close()

    def _drop_calls(self) -> None:
        """Nobody gets their answers any more."""
        for call in list(self._calls.values()):
            self._forget(call)
            call.leave()

    def _grow_old(self) -> None:
        self.go_away()
        self._after("grace", self._limits.grace_s, self.abort)

    def _ask_whether_alive(self) -> None:
        if self._heard:
            self._heard = False
            self._after("alive", self._limits.ping_every_s, self._ask_whether_alive)
        else:
            self._write(frames.frame(Kind.PING, 0, 0, _ALIVE))
            self._after("alive", self._limits.ping_timeout_s, self._give_up)

    def _give_up(self) -> None:
        if self._heard:
            self._ask_whether_alive()
        else:
            self.abort()

    def _fail(self, code: Code, reason: str) -> None:
        self._write(frames.go_away(self._taken_id, code, reason))
        self._close(_CLOSE_S)
        self._drop_calls()

    def _after(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        if before := self._timers.get(name):
            before.cancel()
        self._timers[name] = self._loop.call_later(seconds, then)


def _tune(connection: socket.socket, timeout_s: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":  # a peer that vanished is noticed while something is sent to it, too
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * timeout_s))
    if _is_loopback(connection.getpeername()[0]):
        # Loopback's segments of 64 KiB overflow the buffer that Linux begins with, and what is lost is
        # sent again only milliseconds later. Others keep its own way of finding the right size.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LOOPBACK_BUFFER_BYTES)


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    # ::ffff:127.0.0.1, as IPv4 comes to a socket of both: Python's own answer is yes only from 3.13 on.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
