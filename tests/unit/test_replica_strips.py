"""What a holder does when objects are cut into strips and made whole again."""

from sheepstack.redundancy.erasure import Trailer, pack_strip
from sheepstack.sheep.replica import Replica, strip_trailer
from sheepstack.wire import oid as oids
from sheepstack.wire.peer import make_stamp
from sheepstack.wire.results import Result
from tests.unit.store_case import StoreTestCase

OID = oids.data_oid(7, 3)
STRIP = oids.strip_oid(OID, 2)
REVISION = 5


class ReplicaTest(StoreTestCase):

    def setUp(self):
        super().setUp()
        self.store = self.open()
        self.replica = Replica(self.store, lambda oid: True)
        self.replica.enter(REVISION, 0)
        self.counter = 0
        self.results = []

    def stamp(self, node=1):
        self.counter += 1
        return make_stamp(self.counter, node)

    def done(self, result, last):
        self.results.append(result)

    def create(self, settled=True):
        stamp = self.stamp()
        self.replica.create(OID, REVISION, stamp, 4096, 0, b"x", self.done)
        if settled:
            self.replica.note_settled(1, self.counter, REVISION)

    def write(self):
        self.replica.write(OID, REVISION, self.stamp(), 0, b"y", self.done)

    def put_strip(self, version, data=b"strip"):
        content = pack_strip(version, 4096, data)
        return self.replica.put(STRIP, REVISION, len(content), version, [(0, content)])

    def put_whole(self, version, revision=REVISION):
        return self.replica.put(OID, revision, 4096, version, [(0, b"whole")])


class Retiring(ReplicaTest):

    def test_what_was_not_written_to_since_the_mark_goes(self):
        self.create()
        self.assertTrue(self.replica.mark(OID, REVISION, 9))
        self.assertEqual(Result.SUCCESS, self.replica.retire(OID, REVISION, 9))
        self.assertFalse(self.store.exists(OID))
        self.assertEqual(Result.SUCCESS, self.replica.retire(OID, REVISION, 9), "once more")

    def test_a_write_takes_the_mark_away(self):
        self.create()
        self.assertTrue(self.replica.mark(OID, REVISION, 9))
        self.write()
        self.assertEqual(Result.AGAIN, self.replica.retire(OID, REVISION, 9))
        self.assertTrue(self.store.exists(OID))

    def test_what_may_not_be_everywhere_yet_is_not_marked(self):
        self.create(settled=False)
        self.assertFalse(self.replica.mark(OID, REVISION, 9))
        self.replica.note_settled(1, self.counter, REVISION)
        self.assertTrue(self.replica.mark(OID, REVISION, 9))

    def test_marks_and_retirements_are_of_one_revision(self):
        self.create()
        self.assertTrue(self.replica.mark(OID, REVISION, 9))
        self.replica.enter(REVISION + 1, 0)
        self.assertNotEqual(Result.SUCCESS, self.replica.retire(OID, REVISION, 9))
        self.assertEqual(Result.AGAIN, self.replica.retire(OID, REVISION + 1, 9))
        self.assertFalse(self.replica.mark(OID, REVISION, 9))
        self.assertTrue(self.store.exists(OID))

    def test_another_mark_does_not_count(self):
        self.create()
        self.assertTrue(self.replica.mark(OID, REVISION, 9))
        self.assertEqual(Result.AGAIN, self.replica.retire(OID, REVISION, 8))

    def test_without_a_mark_it_goes_in_any_case(self):
        self.create()
        self.assertEqual(Result.SUCCESS, self.replica.retire(OID, REVISION, 0))
        self.assertFalse(self.store.exists(OID))

    def test_a_copy_that_was_fetched_before_is_not_installed_afterwards(self):
        self.create()
        before = self.replica.retirements(OID)
        self.replica.retire(OID, REVISION, 0)
        self.assertFalse(self.replica.install(OID, REVISION, self.fail, before))
        self.assertFalse(self.replica.install(OID, REVISION + 1, self.fail))


class Putting(ReplicaTest):

    def test_a_newer_strip_replaces_an_older_one_and_not_the_other_way_round(self):
        self.assertEqual(Result.SUCCESS, self.put_strip(5))
        self.assertEqual(Result.SUCCESS, self.put_strip(6, b"newer"))
        self.assertEqual(Result.AGAIN, self.put_strip(5))
        self.assertEqual(6, strip_trailer(self.store, STRIP).version)
        self.assertEqual(b"newer", bytes(self.store.read(STRIP, 0, 5)))

    def test_a_whole_object_is_put_only_where_there_is_none(self):
        self.assertEqual(Result.SUCCESS, self.put_whole(5))
        self.write()
        self.assertEqual(Result.SUCCESS, self.put_whole(5))
        self.assertEqual(b"yhole", bytes(self.store.read(OID, 0, 5)))

    def test_an_object_of_before_the_last_cut_is_not_put(self):
        self.put_strip(6)
        self.assertEqual(Result.AGAIN, self.put_whole(5))
        self.assertFalse(self.store.exists(OID))
        self.assertEqual(Result.SUCCESS, self.put_whole(6))

    def test_nothing_is_put_for_another_revision(self):
        self.assertNotEqual(Result.SUCCESS, self.put_whole(5, REVISION + 1))
        self.assertFalse(self.store.exists(OID))

    def test_all_strips_of_an_object_are_dropped(self):
        self.put_strip(5)
        self.create()
        self.assertEqual(Result.SUCCESS, self.replica.drop_strips(OID, REVISION, 3))
        self.assertFalse(self.store.exists(STRIP))
        self.assertTrue(self.store.exists(OID))

    def test_the_trailer_is_found_behind_the_strip(self):
        self.put_strip(1 << 70, b"data" * 1000)
        self.assertEqual((1 << 70, 4096), strip_trailer(self.store, STRIP)[:2])
        self.assertIsInstance(strip_trailer(self.store, STRIP), Trailer)

    def test_discarding_what_is_not_here_says_so(self):
        self.replica.discard(OID, REVISION, self.stamp(), 0, 4096, self.done)
        self.assertEqual([Result.NO_OBJ], self.results)
