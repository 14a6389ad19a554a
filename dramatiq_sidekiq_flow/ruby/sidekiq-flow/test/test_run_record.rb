# frozen_string_literal: true

require_relative "helper"
require "sidekiq_flow/web"

class TestRunRecord < Minitest::Test
  RunRecord = SidekiqFlow::Web::RunRecord
  RunList = SidekiqFlow::Web::RunList

  KEY = "swf:flow:#{RUN_ID}"

  def setup
    redis("FLUSHDB")
  end

  def test_a_run_without_a_record_is_nil
    assert_nil RunRecord.find(RUN_ID)
    assert_equal [nil], RunRecord.heads([RUN_ID])
    assert_empty RunList.new.runs
  end

  def test_a_record_has_what_the_scripts_wrote
    redis("HSET", KEY, "state", "failed", "started", "1700000000.125", "total", "1003", "template", "nightly",
      "tags", '["a","<b>"]', "tree", "{}")
    redis("HSET", "#{KEY}:times", "0", "", "1", "1700000000.000 1700000001.500 2 host:1:abc")
    redis("SETBIT", "#{KEY}:done", 1002, 1)
    redis("HSET", "#{KEY}:failed", "7",
      '{"jid":"j","class":"A","queue":"q","error_class":"IOError","error_message":"no disk","at":1700000002.5}')
    record = RunRecord.find(RUN_ID)
    assert_equal ["failed", 1_700_000_000.125, nil, 1003, "nightly", ["a", "<b>"], "", true],
      [record.state, record.started, record.finished, record.total, record.template, record.tags, record.reason,
        record.open?]
    assert_equal [2, 1, [7]], [record.done, record.dead, record.failed_numbers]
    assert_equal [1_700_000_000.0, 1_700_000_001.5, 2, "host:1:abc"], record.times(1).to_a
    assert_equal [7, "j", "A", "q", "IOError: no disk", 1_700_000_002.5], record.failure(7).to_a
    assert_nil record.times(2)
    head, = RunRecord.heads([RUN_ID])
    assert_equal [record.state, record.done, record.dead], [head.state, head.done, head.dead]
  end

  def test_a_damaged_record_is_read
    fields = {"state" => "odd", "started" => "x", "total" => "many", "tags" => "{", "reason" => "\xFF"}
    record = RunRecord.new(RUN_ID, fields, times: {1 => ""}, failed: {2 => "[", "j" => "["})
    assert_equal [[2], ["j"], "", false], [record.failed_numbers, record.failed_jids, record.failure("j").error,
      record.inferred?("j")]
    assert_equal ["running", nil, nil, [], "\uFFFD", ""],
      [record.state, record.started, record.total, record.tags, record.reason, record.failure(2).error]
    assert_equal [nil, nil, 0, ""], record.times(1).to_a
  end

  # Equal starts come in the order of their ids; each run is on one page, also if the
  # indexes are read in many parts.
  def test_pages_have_all_runs_of_a_filter_once
    ids = Array.new(120) { |number| format("run-%03d", number) }
    ids.each_with_index { |id, number| add(id, RunRecord::STATES[number % 5], 1000 + (number / 40), number.even?) }
    newest_first = ids.reverse
    assert_equal newest_first, pages({})
    assert_equal newest_first.select { |id| id[-3..-1].to_i % 10 == 6 }, pages({state: "failed", tag: "even"})
    assert_equal newest_first.select { |id| id[-3..-1].to_i.even? }, pages({tag: "even"})
    assert_empty RunList.new(template: "other").runs
  end

  def test_pages_have_the_runs_of_all_states_in_order
    ids = Array.new(60) { |number| format("run-%03d", number) }
    ids.each_with_index { |id, number| add(id, RunRecord::STATES[number / 12], 1000 + number, false) }
    assert_equal ids.reverse, pages({})
  end

  # A page of many runs that do not match is ended; the next one goes on behind them.
  def test_a_search_in_long_lists_ends
    ids = Array.new(30) { |number| format("run-%03d", number) }
    ids.each_with_index { |id, number| add(id, "done", 1000 + number, number.zero?) }
    redis("ZADD", "swf:flows:template:t", *ids.each_with_index.flat_map { |id, number| [1000 + number, id] })
    ids[1..-1].each { |id| redis("ZADD", "swf:flows:tag:even", 1, "other-#{id}") }
    ids[1..-1].each { |id| redis("ZADD", "swf:flows:tag:even", 1, "more-#{id}") }
    list = RunList.new(template: "t", tag: "even", at_once: 5, most_read: 10)
    # The second part begins with the last entry of the first.
    assert_equal [[], "run-021"], [list.runs, list.next]
    list = RunList.new(template: "t", tag: "even", at_once: 5, after: list.next)
    assert_equal [["run-000"], nil], [list.runs.map(&:id), list.next]
  end

  def test_a_run_that_changes_its_state_is_listed_once
    add("run-1", "done", 1000, false)
    redis("ZADD", "swf:flows:running", 1000, "run-1")
    assert_equal [["run-1"], [], ["run-1"]], [pages({}), pages({state: "running"}), pages({state: "done"})]
  end

  def test_runs_whose_records_have_expired_leave_the_lists
    add("run-1", "done", 1000, false)
    add("run-2", "done", 1001, false)
    redis("DEL", "swf:flow:run-2")
    assert_equal ["run-1"], pages({})
    assert_equal ["run-1"], redis("ZRANGE", "swf:flows:done", 0, -1)
  end

  private

  def redis(*command)
    Sidekiq.redis { |conn| conn.call(*command) }
  end

  def add(id, state, started, even)
    redis("HSET", "swf:flow:#{id}", "state", state, "started", started)
    redis("ZADD", "swf:flows:#{state}", started, id)
    redis("ZADD", "swf:flows:tag:even", started, id) if even
  end

  def pages(filter)
    found = []
    after = nil
    loop do
      list = RunList.new(**filter, after: after, at_once: 3)
      assert_operator list.runs.size, :<=, RunList::SIZE
      found.concat(list.runs.map(&:id))
      return found unless (after = list.next)
    end
  end
end
