"""Connections, fail-over and patience, against gateways that fail on demand."""

import itertools
import socket
import threading
import time
import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from sheepstack.client.address import parse
from sheepstack.client.call import ControlCall, ReadCall, object_call
from sheepstack.client.caller import Caller
from sheepstack.client.connection import Connection
from sheepstack.client.errors import (
    Closed, ClusterUnreachable, ConnectionLost, OutcomeUnknown)
from sheepstack.client.inbox import Inbox
from sheepstack.client.pool import Pool
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import Header, VdiRequest
from sheepstack.wire.opcodes import Op
from sheepstack.wire.results import Result
from tests.unit.scripted_gateway import HOST, ScriptedGateway, connected_pair, receive

OID = 0x5600000000


class ChunkedSource:
    """Gives the bytes of a stream in pieces of given sizes."""

    def __init__(self, stream, sizes):
        self._stream = memoryview(stream)
        self._sizes = itertools.cycle(sizes)

    def recv_into(self, buffer):
        size = next(self._sizes)
        if size == 0:
            raise TimeoutError
        count = min(size, len(buffer), len(self._stream))
        buffer[:count] = self._stream[:count]
        self._stream = self._stream[count:]
        return count


class InboxTest(unittest.TestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from([0, 1, 100, 4096, 40000, 300000]), max_size=12),
           st.lists(st.sampled_from([0, 1, 47, 48, 49, 5000, 70000, 10 ** 6]), min_size=1)
           .filter(any), st.booleans())
    def test_any_cutting_of_the_stream_gives_the_same(self, lengths, sizes, into_sinks):
        calls, stream, expected = {}, bytearray(), []
        for number, length in enumerate(lengths):
            sink = memoryview(bytearray(length)) if into_sinks else None
            call = ReadCall(OID + number, 0, length, sink)
            calls[call.ident] = call
            data = bytes([number + 1]) * length
            expected.append((call, data))
            stream += _answer_to(call, data)
        inbox = Inbox(ChunkedSource(stream, sizes), calls, lambda: None)
        complete = []
        while len(complete) < len(lengths):
            try:
                complete += inbox.receive()
            except TimeoutError:
                continue
        self.assertEqual(complete, [call for call, _ in expected])
        self.assertEqual(calls, {})
        for call, data in expected:
            self.assertEqual(call.sink if into_sinks else call.data or b"", data)
        with self.assertRaises(EOFError):
            while True:
                try:
                    inbox.receive()
                except TimeoutError:
                    continue

    def test_unknown_id(self):
        call = ReadCall(OID, 0, 4)
        inbox = Inbox(ChunkedSource(_answer_to(call, b"1234"), [100]), {}, None)
        with self.assertRaises(RemoteProtocolError):
            inbox.receive()

    def test_too_long_an_answer(self):
        for call in (ReadCall(OID, 0, 4), object_call(int(Op.REMOVE_OBJ), OID)):
            source = ChunkedSource(_answer_to(call, b"12345"), [100])
            with self.assertRaises(RemoteProtocolError):
                Inbox(source, {call.ident: call}, None).receive()

    def test_end_within_a_large_payload(self):
        call = ReadCall(OID, 0, 10 ** 6)
        inbox = Inbox(ChunkedSource(_answer_to(call, bytes(10 ** 6))[:-1], [10 ** 6]),
                      {call.ident: call}, None)
        with self.assertRaises(EOFError):
            inbox.receive()


def _answer_to(call, data):
    from sheepstack.wire.header import OBJ_RESPONSE

    return OBJ_RESPONSE.pack(2, 2, 0, 1, call.ident, len(data), 0, 1, 0) + data


class ConnectionTest(unittest.TestCase):
    def setUp(self):
        self.connection, self.peer = connected_pair()
        self.peer.settimeout(10)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.connection.close)

    def submit(self, count, length=4):
        calls = [ReadCall(OID + number, 0, length) for number in range(count)]
        for call in calls:
            self.connection.submit(call)
        return calls

    def test_answers_in_any_order(self):
        calls = self.submit(5)
        self.connection.flush()
        requests = [receive(self.peer) for _ in calls]
        for request in reversed(requests):
            request.answer(b"%04d" % (request.oid - OID))
        deadline = time.monotonic() + 5
        for number, call in enumerate(calls):
            self.connection.wait(call, deadline)
            self.assertEqual(call.data, b"%04d" % number)

    def test_many_threads_wait(self):
        results = {}

        def ask(number):
            for _ in range(20):
                call = ReadCall(OID + number, 0, 4)
                self.connection.submit(call)
                self.connection.wait(call, time.monotonic() + 10)
                results.setdefault(number, []).append(call.data)

        def serve():
            while True:
                try:
                    # Two at a time, the later one first.
                    pair = [receive(self.peer), receive(self.peer)]
                except (EOFError, OSError):
                    return
                for request in reversed(pair):
                    request.answer(b"%04d" % (request.oid - OID))

        threading.Thread(target=serve, daemon=True).start()
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.assertEqual(results, {number: [b"%04d" % number] * 20 for number in range(8)})

    def test_requests_that_follow_others_are_gathered(self):
        self.submit(10)
        self.assertEqual(len(self.peer.recv(10000)), 48)
        self.connection.flush()
        self.assertEqual(len(self.peer.recv(10000)), 9 * 48)

    def test_all_calls_end_when_the_peer_goes(self):
        calls = self.submit(3)
        self.peer.close()
        for call in calls:
            self.connection.wait(call, time.monotonic() + 5)
            self.assertIsInstance(call.error, ConnectionLost)
        with self.assertRaises(ConnectionLost):
            self.submit(1)

    def test_all_calls_end_when_the_peer_talks_nonsense(self):
        calls = self.submit(2)
        self.peer.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 10)
        for call in calls:
            self.connection.wait(call, time.monotonic() + 5)
            self.assertIsInstance(call.error, ConnectionLost)

    def test_closing_wakes_who_waits(self):
        call, = self.submit(1)
        threading.Timer(0.1, self.connection.close).start()
        self.connection.wait(call, time.monotonic() + 10)
        self.assertIn("closed", str(call.error))

    def test_an_attendant_receives_what_nobody_waits_for(self):
        answered = threading.Event()

        class Watched(ReadCall):
            def on_answer(self):
                answered.set()

        calls = [Watched(OID + number, 0, 4) for number in range(3)]
        for call in calls[:2]:
            self.connection.submit_unattended(call)
        receive(self.peer).answer(b"1234")
        receive(self.peer).answer(b"5678")
        self.assertTrue(answered.wait(5))
        while self.connection.calls:
            time.sleep(0.01)
        answered.clear()
        self.connection.submit_unattended(calls[2])
        receive(self.peer).answer(b"9999")
        self.assertTrue(answered.wait(5))
        self.assertEqual([call.data for call in calls], [b"1234", b"5678", b"9999"])

    def test_a_callback_cannot_wait_on_its_own_connection(self):
        caught = []

        class Recursive(ReadCall):
            def on_answer(call):
                other = ReadCall(OID, 0, 4)
                self.connection.submit(other)
                try:
                    self.connection.wait(other, time.monotonic() + 5)
                except RuntimeError as error:
                    caught.append(error)

        call = Recursive(OID, 0, 4)
        self.connection.submit(call)
        receive(self.peer).answer(b"1234")
        self.connection.wait(call, time.monotonic() + 5)
        self.assertEqual(len(caught), 1)

    def test_large_writes_and_reads_pass_each_other(self):
        size, count = 4 << 20, 8
        blob = bytes(range(256)) * (size >> 8)

        def serve():
            # A server that reads on only when its answer is taken.
            for _ in range(2 * count):
                request = receive(self.peer)
                if request.payload:
                    assert request.payload == blob
                    request.answer()
                else:
                    request.answer(blob)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        reads = [ReadCall(OID, 0, size) for _ in range(count)]
        writes = [object_call(int(Op.WRITE_OBJ), OID, 0, blob) for _ in range(count)]
        for call in reads + writes:
            self.connection.submit_unattended(call)
        deadline = time.monotonic() + 30
        for call in reads + writes:
            self.connection.wait(call, deadline)
            self.assertIsNone(call.error)
        for call in reads:
            self.assertEqual(call.data, blob)

    def test_silence_is_asked_about_and_then_believed(self):
        connection, peer = connected_pair(timeout=1.0)
        self.addCleanup(peer.close)
        call = ReadCall(OID, 0, 4)
        connection.submit(call)
        started = time.monotonic()
        connection.wait(call, started + 10)
        self.assertIsInstance(call.error, ConnectionLost)
        self.assertTrue(connection.was_silent)
        self.assertLess(time.monotonic() - started, 4.5)
        self.assertEqual([receive(peer).opcode for _ in range(2)],
                         [Op.READ_OBJ, Op.GET_CLUSTER_DEFAULT])

    def test_what_a_gateway_has_not_taken_when_it_is_given_up_never_comes(self):
        """Its network may come back long after the same was written through another one."""
        with socket.socket() as listener, socket.socket() as sock:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listener.bind((HOST, 0))
            listener.listen()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            sock.connect(listener.getsockname())
            peer, _ = listener.accept()
            self.addCleanup(peer.close)
            connection = Connection(sock, "gateway", 1.0)
            call = object_call(int(Op.WRITE_OBJ), OID, 0, b"w" * 200_000)
            connection.submit(call)
            connection.wait(call, time.monotonic() + 10)
            self.assertTrue(connection.was_silent)
            with self.assertRaises(ConnectionResetError):
                receive(peer)

    def test_a_slow_answer_is_waited_for_while_the_gateway_lives(self):
        connection, peer = connected_pair(timeout=1.0)
        self.addCleanup(peer.close)
        self.addCleanup(connection.close)

        def serve():
            request = receive(peer)
            for _ in range(5):
                receive(peer).answer()
            request.answer(b"late")

        threading.Thread(target=serve, daemon=True).start()
        call = ReadCall(OID, 0, 4)
        connection.submit(call)
        connection.wait(call, time.monotonic() + 10)
        self.assertEqual(call.data, b"late")


def read_call():
    return ReadCall(OID, 0, 4)


def control_call():
    return ControlCall(VdiRequest(Op.NEW_VDI).pack(), resendable=False)


class CallerTest(unittest.TestCase):
    def gateway(self, handle):
        gateway = ScriptedGateway(handle)
        self.addCleanup(gateway.close)
        return gateway

    def caller(self, *gateways, timeout=5.0, width=4):
        pool = Pool([parse(gateway.address) for gateway in gateways], None, timeout, width)
        self.addCleanup(pool.close)
        return Caller(pool, timeout)

    @staticmethod
    def results(*results):
        """A handler that gives one result after another, the last one for ever."""
        rest = list(results)

        def handle(request):
            if request.opcode == Op.GET_CLUSTER_DEFAULT:
                request.answer()
                return
            result = rest.pop(0) if len(rest) > 1 else rest[0]
            if result is None:
                request.hang_up()
            else:
                request.answer(b"" if result or request.opcode != Op.READ_OBJ else b"data",
                               result)
        return handle

    def test_again_is_tried_again(self):
        gateway = self.gateway(self.results(Result.AGAIN, Result.STARTUP, 0))
        call = read_call()
        self.caller(gateway).perform((call,))
        self.assertEqual((call.data, len(gateway.requests)), (b"data", 3))

    def test_patience_ends(self):
        gateway = self.gateway(self.results(Result.AGAIN))
        call = read_call()
        started = time.monotonic()
        self.caller(gateway, timeout=0.5).perform((call,))
        self.assertEqual(call.status, Result.AGAIN)
        self.assertTrue(0.2 < time.monotonic() - started < 5)

    def test_a_result_is_handed_on(self):
        gateway = self.gateway(self.results(Result.NO_SPACE))
        call = read_call()
        self.caller(gateway).perform((call,))
        self.assertEqual((call.status, len(gateway.requests)), (Result.NO_SPACE, 1))

    def test_a_lost_connection_is_made_anew(self):
        gateway = self.gateway(self.results(None, None, 0))
        caller = self.caller(gateway)
        call = read_call()
        caller.perform((call,))
        self.assertEqual((call.data, gateway.connections), (b"data", 3))
        self.assertEqual(caller.pool.generation, 3)

    def test_the_next_gateway_takes_over(self):
        first = self.gateway(self.results(0))
        second = self.gateway(self.results(0))
        caller = self.caller(first, second)
        caller.perform((read_call(),))
        self.assertEqual(second.connections, 0)
        first.close()
        call = read_call()
        caller.perform((call,))
        self.assertEqual((call.data, len(second.requests)), (b"data", 1))

    def test_who_cannot_serve_is_left(self):
        first = self.gateway(self.results(Result.SHUTDOWN))
        second = self.gateway(self.results(0))
        call = read_call()
        self.caller(first, second).perform((call,))
        self.assertEqual(call.data, b"data")

    def test_who_takes_connections_and_ends_them_is_left(self):
        first = self.gateway(self.results(None))
        second = self.gateway(self.results(0))
        caller = self.caller(first, second)
        for _ in range(3):
            call = read_call()
            caller.perform((call,))
            self.assertEqual(call.data, b"data")
        self.assertEqual((first.connections, second.connections), (1, 1))

    def test_all_cannot_serve(self):
        gateways = [self.gateway(self.results(Result.WAIT_FOR_JOIN)) for _ in range(3)]
        call = read_call()
        started = time.monotonic()
        self.caller(*gateways).perform((call,))
        self.assertEqual(call.status, Result.WAIT_FOR_JOIN)
        self.assertLess(time.monotonic() - started, 4.5)

    def test_a_client_that_was_served_waits_for_a_restart(self):
        gateway = self.gateway(self.results(0, Result.WAIT_FOR_FORMAT, Result.WAIT_FOR_JOIN, 0))
        caller = self.caller(gateway)
        for _ in range(2):
            call = read_call()
            caller.perform((call,))
            self.assertEqual(call.data, b"data")

    def test_silence_sends_us_to_the_next(self):
        silent = self.gateway(lambda request: None)
        second = self.gateway(self.results(0))
        calls = [read_call() for _ in range(3)]
        caller = self.caller(silent, second, timeout=5.0)
        started = time.monotonic()
        caller.perform(calls)
        self.assertEqual([call.data for call in calls], [b"data"] * 3)
        self.assertLess(time.monotonic() - started, 4.5)
        again = read_call()
        caller.perform((again,))
        self.assertEqual(len(second.requests), 4)

    def test_unreachable_at_once_where_nobody_ever_was(self):
        gateway = self.gateway(self.results(0))
        gateway.close()
        started = time.monotonic()
        with self.assertRaises(ClusterUnreachable) as caught:
            self.caller(gateway).perform((read_call(),))
        self.assertLess(time.monotonic() - started, 1)
        self.assertEqual(str(caught.exception),
                         "failed to connect to %s: Connection refused" % gateway.address)
        self.assertIsInstance(caught.exception.__cause__, ConnectionRefusedError)

    def test_unreachable_in_the_end(self):
        gateway = self.gateway(self.results(0))
        caller = self.caller(gateway, timeout=0.5)
        caller.perform((read_call(),))
        gateway.close()
        started = time.monotonic()
        with self.assertRaises(ClusterUnreachable):
            caller.perform((read_call(),))
        self.assertTrue(0.3 < time.monotonic() - started < 5)

    def test_what_must_not_be_sent_twice_is_not(self):
        for result in (None, Result.AGAIN, Result.NETWORK_ERROR):
            gateway = self.gateway(self.results(result))
            with self.assertRaises(OutcomeUnknown):
                self.caller(gateway).perform((control_call(),))
            self.assertEqual([request.opcode for request in gateway.requests],
                             [Op.GET_CLUSTER_DEFAULT, Op.NEW_VDI])

    def test_a_stale_connection_is_not_an_unknown_outcome(self):
        gateway = self.gateway(self.results(0))
        caller = self.caller(gateway)
        caller.perform((read_call(),))
        gateway.requests[0].hang_up()
        call = control_call()
        caller.perform((call,))
        self.assertEqual(call.status, 0)

    def test_connections_are_added_for_who_waits_and_no_more(self):
        gate = threading.Event()

        def handle(request):
            gate.wait(5)
            request.answer(b"data")

        gateway = self.gateway(handle)
        caller = self.caller(gateway, width=3)
        calls = [read_call() for _ in range(9)]
        thread = threading.Thread(target=caller.perform, args=(calls,))
        thread.start()
        while len(caller.pool._connections) < 3:
            time.sleep(0.01)
        gate.set()
        thread.join(5)
        self.assertEqual([call.data for call in calls], [b"data"] * 9)
        self.assertEqual(gateway.connections, 3)

    def test_where_one_connection_breaks_the_others_count_no_more(self):
        """Those to a gateway that dropped all may not have noticed it; a new one beside them
        must not pass for one to the gateway that held our lock."""
        arrived = threading.Event()
        asked = []

        def handle(request):
            asked.append(request)
            if len(asked) <= 2:
                # Two connections, both busy; only the first one is hung up on.
                if len(asked) == 2:
                    arrived.set()
                return
            request.answer(b"data")

        caller = self.caller(self.gateway(handle), width=3)
        calls = [read_call(), read_call()]
        threads = [threading.Thread(target=caller.perform, args=((call,),)) for call in calls]
        for thread in threads:
            thread.start()
        self.assertTrue(arrived.wait(5))
        before = caller.pool.generation
        asked[0].hang_up()
        for thread in threads:
            thread.join(10)
        self.assertEqual([call.data for call in calls], [b"data"] * 2)
        self.assertGreater(caller.pool.generation, before)
        self.assertEqual({call.connection.generation for call in calls},
                         {caller.pool.generation})

    def test_closed(self):
        gateway = self.gateway(self.results(0))
        caller = self.caller(gateway)
        caller.perform((read_call(),))
        caller.pool.close()
        caller.pool.close()
        with self.assertRaises(Closed):
            caller.perform((read_call(),))

    def test_a_guard_may_change_the_connection(self):
        gateway = self.gateway(self.results(0))
        caller = self.caller(gateway)
        seen = []

        def guard(connection, deadline):
            seen.append(connection.generation)
            return connection

        caller.perform((read_call(), read_call()), guard)
        self.assertEqual(seen, [1, 1])

    def test_control_returns_header_and_payload(self):
        gateway = self.gateway(lambda request: request.answer(b"payload"))
        call = self.caller(gateway).control(Header(2, Op.READ_VDIS, 0, 0, 0, 100).pack())
        self.assertEqual((call.data, call.response[1]), (b"payload", Op.READ_VDIS))
