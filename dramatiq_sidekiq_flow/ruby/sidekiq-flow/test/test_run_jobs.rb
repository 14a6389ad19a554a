# frozen_string_literal: true

require_relative "helper"
require "sidekiq_flow/web"

class TestRunJobs < Minitest::Test
  RunJobs = SidekiqFlow::Web::RunJobs
  RunPage = SidekiqFlow::Web::RunPage
  Actions = SidekiqFlow::Web::Actions

  MEMBER = "host:1:abc"

  def setup
    redis("FLUSHDB")
  end

  def test_a_job_is_found_wherever_it_is
    redis("SADD", "queues", "python")
    redis("ZADD", "swf:workers", 1, "#{MEMBER}:python")
    redis("ZADD", "swf:fanouts", 1, "f")
    redis("LPUSH", "queue:python", step(1), step(20, "other", args: [RUN_ID]), "not JSON #{RUN_ID}\"")
    redis("LPUSH", "swf:arrived:python", step(2))
    redis("HSET", "swf:inflight:#{MEMBER}:python", "1:1", step(3), "1:2?", step(4))
    redis("ZADD", "schedule", 30.5, step(5))
    redis("ZADD", "retry", 40, step(6, error_class: "E", error_message: "m"))
    redis("ZADD", "dead", 50, step(7, error_class: "E"))
    redis("RPUSH", "swf:fanout:f", step(8), "s60.5 #{step(9)}")
    redis("RPUSH", "swf:parked:#{RUN_ID}", "qpython\0#{step(10)}", "fparked\0\"#{RUN_ID}\"")
    redis("ZADD", "schedule", 70, step(11, swf_waits_until: 70))
    search = RunJobs.new(RUN_ID)
    found = search.jobs.sort_by(&:number).map do |job|
      [job.number, job.state, job.due, job.ended, job.worker, job.error]
    end
    assert_equal [[1, "queued", nil, nil, nil, nil], [2, "queued", nil, nil, nil, nil],
      [3, "running", nil, nil, MEMBER, nil], [4, "queued", nil, nil, nil, nil], [5, "scheduled", 30.5, nil, nil, nil],
      [6, "retry", 40.0, nil, nil, "E: m"], [7, "dead", nil, 50.0, nil, "E"], [8, "queued", nil, nil, nil, nil],
      [9, "scheduled", 60.5, nil, nil, nil], [10, "parked", nil, nil, nil, nil],
      [11, "signal", 70.0, nil, nil, nil]], found
    assert_equal [false, 14], [search.stopped?, search.read]
  end

  # Sidekiq's own workers have their jobs nowhere else.
  def test_what_a_thread_works_on_is_found
    redis("SADD", "processes", MEMBER)
    work = {"queue" => "ruby", "payload" => step(1), "run_at" => 1_700_000_000}
    other = work.merge("payload" => step(2, "other"))
    redis("HSET", "#{MEMBER}:work", "t1", JSON.generate(work), "t2", JSON.generate(other))
    found = RunJobs.new(RUN_ID).jobs.map { |job| [job.number, job.state, job.worker, job.since] }
    assert_equal [[1, "running", MEMBER, 1_700_000_000.0]], found
    # In flight, too: one job.
    redis("ZADD", "swf:workers", 1, "#{MEMBER}:ruby")
    redis("HSET", "swf:inflight:#{MEMBER}:ruby", "1:1", step(1))
    assert_equal([[1, 1_700_000_000.0]], RunJobs.new(RUN_ID).jobs.map { |job| [job.number, job.since] })
  end

  def test_a_search_that_finds_many_jobs_stops
    redis("SADD", "queues", "python")
    redis("LPUSH", "queue:python", *Array.new(3000) { |number| step(number + 1) })
    search = RunJobs.new(RUN_ID)
    assert_equal [true, 1000], [search.stopped?, search.read]
  end

  def test_dead_steps_are_retried_as_by_sidekiq
    tree = '{"group":[{"step":"a"},{"step":"b"}]}'
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "failed", "started", "1", "tree", tree)
    redis("HSET", "swf:flow:#{RUN_ID}:failed", "1", "{}")
    redis("ZADD", "dead", 50, step(1, retry_count: 0), 51, step(1, "other", jid: "x", note: RUN_ID))
    page = RunPage.find(RUN_ID)
    assert_equal [%w[retry pause cancel], "failed"], [Actions.offered(page).map(&:name), page.state]
    Actions.pressed({"retry" => "Retry"}).perform.call(RUN_ID, {})
    assert_equal [1, 1], [redis("ZCARD", "dead"), redis("LLEN", "queue:python")]
    assert_equal(-1, JSON.parse(redis("LINDEX", "queue:python", 0))["retry_count"])
    page = RunPage.find(RUN_ID)
    assert_equal [%w[pause cancel], "running"], [Actions.offered(page).map(&:name), page.state]
  end

  def test_a_run_may_have_any_id
    id = "odd [1]*\\\"\u{e9}"
    redis("SADD", "queues", "python")
    redis("LPUSH", "queue:python", step(2, id))
    redis("ZADD", "dead", 50, step(1, id))
    Actions.retry_dead(id, {})
    assert_equal([[1, "queued"], [2, "queued"]], RunJobs.new(id).jobs.map { |job| [job.number, job.state] }.sort)
  end

  def test_a_run_is_cancelled_by_the_script
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "running", "started", "1")
    Actions.pressed({"cancel" => ""}).perform.call(RUN_ID, {"reason" => "no \xFF need"})
    page = RunPage.find(RUN_ID)
    assert_equal ["cancelled", "no \uFFFD need", []], [page.state, page.record.reason, Actions.offered(page)]
    assert_equal [RUN_ID], redis("ZRANGE", "swf:cancelled", 0, -1)
    assert_equal [RUN_ID], redis("ZRANGE", "swf:flows:cancelled", 0, -1)
    assert_nil Actions.pressed({"delete" => ""})
  end

  def test_a_run_is_paused_and_resumed_by_the_scripts
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "running", "started", "1", "tree", '{"step":"a"}')
    Actions.pressed({"pause" => ""}).perform.call(RUN_ID, {"reason" => "a fault"})
    redis("RPUSH", "swf:parked:#{RUN_ID}", *Array.new(300) { "qpython\0#{step(1)}" })
    redis("HSET", "swf:flow:#{RUN_ID}:disarmed", "#{"1" * 8}-0000-0000-0000-#{"0" * 12}", "python\0fires")
    page = RunPage.find(RUN_ID)
    assert_equal ["paused", "a fault", %w[resume cancel], "parked"],
      [page.state, page.record.reason, Actions.offered(page).map(&:name), page.rows.first.state]
    Actions.pressed({"resume" => ""}).perform.call(RUN_ID, {})
    assert_equal ["running", "queued"], [RunPage.find(RUN_ID).state, RunPage.find(RUN_ID).rows.first.state]
    assert_equal [300, 0], [redis("LLEN", "queue:python"), redis("EXISTS", "swf:flow:#{RUN_ID}:disarmed")]
  end

  private

  def redis(*command)
    Sidekiq.redis { |conn| conn.call(*command) }
  end

  def step(number, run = RUN_ID, **fields)
    jid = number.to_s.rjust(24, "0")
    JSON.generate(job(jid: jid, queue: "python", swf_step: number, workflow_run_id: run, **fields))
  end
end
