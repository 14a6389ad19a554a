# frozen_string_literal: true

require_relative "helper"

class TestWaitFor < Minitest::Test
  def serialized(node)
    Sidekiq::Workflow::Serialize.serialize_workflow(node)
  end

  # Python's WaitFor has the same wire form (wire/wait_for.py).
  def test_it_is_a_carrier
    instead = Sidekiq::Workflow::Job.new("A", 1)
    node = SidekiqFlow.wait_for("approved", queue: "python", timeout: 0.5, otherwise: instead)
    assert_equal({
      "__type__" => "job", "class" => "Sidekiq::Workflow::NoopWorker", "queue" => "python", "retry" => true,
      "args" => ["approved", 500, {"__type__" => "job", "class" => "A", "args" => [1]}],
      "wrapped" => "wait for approved", "display_class" => "wait for approved"
    }, serialized(node))
    assert_equal ["go", nil, nil], serialized(SidekiqFlow.wait_for(:go, queue: :python))["args"]
  end

  def test_a_run_may_begin_with_it
    Sidekiq.redis { |conn| conn.call("FLUSHDB") }
    id = SidekiqFlow.run(SidekiqFlow.may_fail(SidekiqFlow.wait_for("go", queue: "python")))
    waits = JSON.parse(Sidekiq.redis { |conn| conn.call("RPOP", "queue:python") })
    expected = {"args" => ["go", nil, nil], "retry" => true, "wrapped" => "wait for go", "swf_on_death" => "done"}
    assert_equal expected.merge("workflow_run_id" => id, "swf_step" => 1),
      waits.slice(*expected.keys, "workflow_run_id", "swf_step")
    tree = JSON.parse(Sidekiq.redis { |conn| conn.call("HGET", "swf:flow:#{id}", "tree") })
    assert_equal({"step" => "wait for go", "queue" => "python", "may_fail" => true}, tree)
  end

  def test_a_duration_is_a_timeout
    duration = Struct.new(:to_f).new(1.5)
    assert_equal 1500, serialized(SidekiqFlow.wait_for("go", queue: "python", timeout: duration))["args"][1]
  end

  def test_what_cannot_wait_is_refused
    ["", "a\n", "x" * 201, nil].each { |name| refused(name, queue: "python") }
    [-1, Float::NAN, "1", Time.now, :a].each { |timeout| refused("go", queue: "python", timeout: timeout) }
    [nil, "", 5].each { |queue| assert_includes refused("go", queue: queue), "Python worker" }
    refused("go", queue: "python", otherwise: 5)
  end

  def test_a_queue_of_this_worker_is_refused
    # As in a server.
    Sidekiq.const_set(:CLI, Module.new)
    Sidekiq.default_configuration.capsule("own") { |capsule| capsule.queues = %w[own] }
    assert_includes refused("go", queue: "own"), "This Ruby process"
  ensure
    Sidekiq.default_configuration.capsules.delete("own")
    Sidekiq.send(:remove_const, :CLI)
  end

  def test_a_signal_to_a_run_that_does_not_exist
    Sidekiq.redis { |conn| conn.call("FLUSHDB") }
    assert_raises(SidekiqFlow::UnknownRun) { SidekiqFlow.signal(RUN_ID, "go") }
    assert_raises(SidekiqFlow::InvalidWorkflow) { SidekiqFlow.signal(RUN_ID, "") }
    Sidekiq.redis { |conn| conn.call("HSET", "swf:flow:#{RUN_ID}", "state", "running") }
    assert SidekiqFlow.signal(RUN_ID, "go", {"by" => "Ada"})
    kept = Sidekiq.redis { |conn| conn.call("HGET", "swf:signals:#{RUN_ID}", "go") }
    assert_equal '{"by":"Ada"}', kept
    Sidekiq.redis { |conn| conn.call("HSET", "swf:flow:#{RUN_ID}", "state", "done") }
    refute SidekiqFlow.signal(RUN_ID, "go")
  end

  private

  def refused(...)
    assert_raises(SidekiqFlow::InvalidWorkflow) { SidekiqFlow.wait_for(...) }.message
  end
end
