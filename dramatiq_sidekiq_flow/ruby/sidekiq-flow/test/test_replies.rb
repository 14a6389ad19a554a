# frozen_string_literal: true

require_relative "helper"

class TestReplies < Minitest::Test
  Replies = Companion::Replies

  def test_an_advance_is_done_or_says_what_it_needs
    assert_equal :done, Replies.advance(["DONE"])
    assert_equal :gone, Replies.advance(["GONE"])
    assert_equal :cancelled, Replies.advance(["CANCELLED"])
    assert_equal :stage_lost, Replies.advance(["STAGE", "swf:fanout:1"])
    assert_equal Replies::NeedsPlan.new(2), Replies.advance(["PLAN", 2])
  end

  def test_an_advance_that_cannot_go_on_names_the_key
    error = assert_raises(Companion::BarrierExpired) { Replies.advance(["EXPIRED", BARRIER]) }
    assert_includes error.message, BARRIER
    error = assert_raises(Companion::WrongType) { Replies.advance(["TYPE", "queue:a"]) }
    assert_includes error.message, '"queue:a"'
  end

  def test_a_failed_job_has_left_flight_or_its_set_has_another_type
    assert_nil Replies.fail(["DONE"])
    assert_nil Replies.fail(["GONE"])
    assert_raises(Companion::WrongType) { Replies.fail(["TYPE", "dead"]) }
  end

  def test_a_parked_job_has_left_flight_or_a_key_has_another_type
    Replies.park(["DONE"])
    Replies.park(["GONE"])
    assert_raises(Companion::WrongType) { Replies.park(["TYPE", "swf:parked:a"]) }
  end

  def test_a_fetch_gives_a_payload_nothing_or_that_the_worker_is_unknown
    assert_equal "{}", Replies.fetch(["2", "{}", 1, "?"])
    assert_equal "", Replies.fetch(["0", "", 1, "?"])
    assert_nil Replies.fetch(["", "", 0, "?"])
    assert_equal :unregistered, Replies.fetch(nil)
    assert_raises(Companion::WrongType) { Replies.fetch(["TYPE", "queue:a"]) }
  end

  def test_a_trial_gives_a_payload_or_nothing
    assert_equal "{}", Replies.trial(["TRIAL", "{}"])
    assert_nil Replies.trial(["WAIT"])
    assert_nil Replies.trial(["NONE"])
    assert_raises(Companion::WrongType) { Replies.trial(["TYPE", "swf:trial:a"]) }
  end

  def test_a_recovery_is_counted_unless_the_worker_lives
    recovered = Replies.recover(["DONE", 1, 2, 3, [4, 5], [6]])
    assert_equal [1, 2, 3, [4, 5], [6]], recovered.to_a
    assert_equal [[4, 5], [6]], [recovered.buried, recovered.kept]
    assert_nil Replies.recover(["ALIVE"])
    assert_raises(Companion::WrongType) { Replies.recover(["TYPE", "queue:a"]) }
  end

  def test_a_heartbeat_names_workers_and_whether_fan_outs_wait
    assert_equal [["a"], ["b"], true], Replies.beat([["a"], ["b"], 1]).to_a
    assert_equal [[], [], false], Replies.beat([[], [], 0]).to_a
  end

  def test_a_promotion_gives_the_jobs_that_stay
    promoted = Replies.promote([7, [1], [2, 3]])
    assert_equal [[1], [2, 3]], [promoted.misplaced, promoted.stuck]
  end

  def test_a_fan_out_is_poured_or_blocked
    assert_equal :more, Replies.pour(["MORE"])
    assert_equal :done, Replies.pour(["DONE"])
    assert_equal Replies::Blocked.new("queues"), Replies.pour(["TYPE", "queues"])
  end
end
