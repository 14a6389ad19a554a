# frozen_string_literal: true

require_relative "helper"

# Steps that replace themselves by a tree, with what Redis holds then.
class TestStepReplacement < Minitest::Test
  include Sidekiq::Workflow

  CHAIN = "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"

  class Grown
    include Sidekiq::Job

    sidekiq_options queue: "grown"
  end

  class Growth
    include Sidekiq::ClientMiddleware

    def call(*)
      redis { |conn| conn.call("HSET", "swf:flow:#{Minitest::Test::RUN_ID}", "total", 20) }
      yield
    end
  end

  def setup
    redis("FLUSHDB")
  end

  def redis(*command)
    Sidekiq.redis { |conn| conn.call(*command) }
  end

  # Performs a step: the block gets its run.
  def perform(step, &block)
    output = Companion::Output.new
    output.config = Sidekiq.default_configuration
    output.call(nil, step, "ruby") { block.call(SidekiqFlow.current_run) && nil }
  end

  def step(**fields)
    job(workflow_run_id: RUN_ID, **fields)
  end

  def grown(*args, **options)
    Job.new(Grown, *args, **options)
  end

  # The jobs of a queue, the oldest first.
  def pushed(queue = "grown")
    redis("LRANGE", "queue:#{queue}", 0, -1).reverse.map { |text| JSON.parse(text) }
  end

  def fields(name, jobs = pushed)
    jobs.map { |found| found[name] }
  end

  def barrier(id, value)
    redis("SET", id, value, "EX", 1000)
    redis("SET", "#{id}_ran", -1, "EX", 1000)
  end

  def record(**fields)
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "running", *fields.flatten.map(&:to_s))
  end

  def test_a_tree_takes_over_the_callbacks_of_its_step
    barrier(BARRIER, 2)
    barrier(CHAIN, 1)
    rest = {"__type__" => "chain", "children" => [{"__type__" => "job", "class" => "Z", "args" => []}]}
    stack = [[BARRIER, nil, true], [CHAIN, rest, false]]
    2.times do # delivered twice
      perform(step(workflow_completion_callbacks: stack)) { |run| run.replace(Chain.new(grown(1), grown(2))) }
    end
    first, = pushed
    assert_equal [1, [1]], [pushed.size, first["args"]]
    below, of_chain, own = first["workflow_completion_callbacks"]
    assert_equal [BARRIER, nil, true], below
    # The chain has a barrier of its own; that of the step is released.
    assert_equal [rest, false], of_chain.drop(1)
    assert_equal %w[1 -1], redis("MGET", of_chain[0], "#{of_chain[0]}_ran")
    assert_equal [2], own[1]["children"][0]["args"]
    assert_equal %w[0 0 2 -1], redis("MGET", CHAIN, "#{CHAIN}_ran", BARRIER, "#{BARRIER}_ran")
  end

  def test_a_member_of_a_group_is_counted_by_the_last_step_of_its_tree
    barrier(BARRIER, 3)
    member = step(workflow_completion_callbacks: [[BARRIER, nil, true]])
    2.times { perform(member) { |run| run.add(grown(1), grown(2)) } }
    assert_equal [[1], [2]], fields("args")
    assert_equal ["3", ["0123456789abcdef01234567"]], [redis("GET", BARRIER), redis("SMEMBERS", "#{BARRIER}:u")]
  end

  def test_the_only_step_of_a_run_is_replaced_once
    2.times { perform(step) { |run| run.replace(grown(1)) } }
    assert_equal [[1]], fields("args")
    assert_operator redis("TTL", "swf:released:0123456789abcdef01234567"), :>, 0
  end

  def test_added_steps_run_beside_the_last_tree
    perform(step) do |run|
      run.add(grown("a"))
      run.replace(grown("not"))
      run.add(grown("b"), grown("c"))
      run.replace(grown("tree"))
    end
    assert_equal %w[tree a b c], fields("args").flatten
    assert_equal 1, fields("workflow_completion_callbacks").uniq.size
  end

  def test_a_large_group_is_staged_and_poured
    2.times { perform(step) { |run| run.add(*Array.new(1001) { |n| grown(n) }) } }
    assert_equal [1001, 0], [redis("LLEN", "queue:grown"), redis("ZCARD", "swf:fanouts")]
  end

  def test_a_step_that_raises_has_replaced_nothing
    assert_raises(RuntimeError) { perform(step) { |run| [run.replace(grown), raise("fails")] } }
    assert_empty redis("KEYS", "*")
  end

  def test_an_empty_tree_just_goes_on
    barrier(BARRIER, 2)
    perform(step(workflow_completion_callbacks: [[BARRIER, nil, true]])) { |run| run.replace(Chain.new(Group.new)) }
    assert_equal "1", redis("GET", BARRIER)
  end

  def test_trees_that_cannot_run_are_refused
    deep = 60.times.inject(grown) { |node, _| Chain.new(node) }
    later = Chain.new(grown, grown(queue: ""))
    bad = ["none", 5, {"__type__" => "job"}, grown(:symbol), grown(Float::NAN), grown("\xff"), later, deep]
    bad.each do |tree|
      assert_raises(Companion::InvalidNode, tree.inspect) { perform(step) { |run| run.replace(tree) } }
    end
    assert_raises(SidekiqFlow::InvalidWorkflow) { perform(step) { |run| run.replace(nil) } }
    assert_raises(SidekiqFlow::InvalidWorkflow) { perform(step) { |run| run.add([grown]) } }
    assert_empty pushed
  end

  def test_steps_are_in_the_namespace_of_the_replaced_one
    named = grown(memory_namespace: "inner")
    perform(step(memory_namespace: "outer")) { |run| run.replace(Group.new(grown(jid: step["jid"]), named)) }
    assert_equal %w[outer outer.inner], fields("memory_namespace")
    refute_includes fields("jid"), step["jid"]
  end

  def test_steps_are_numbered_after_the_last_one_of_the_run
    record(total: 7)
    perform(step(swf_step: 3)) { |run| run.replace(Chain.new(grown(1), Group.new(grown(2), grown(3)))) }
    (first,) = pushed
    rest = first["workflow_completion_callbacks"][0][1]["children"][0]["children"]
    assert_equal [8, 9, 10], fields("swf_step", [first, *rest])
    assert_equal %w[10 1], redis("HMGET", "swf:flow:#{RUN_ID}", "total", "added")
    added = JSON.parse(redis("HGET", "swf:flow:#{RUN_ID}:added", "3"))
    one, two, three = %w[1 2 3].map { |n| {"step" => Grown.name, "queue" => "grown", "ruby" => true, "args" => n} }
    assert_equal({"first" => 8, "tree" => {"chain" => [one, {"group" => [two, three]}]}}, added)
    assert redis("HGET", "swf:flow:#{RUN_ID}:times", "3")
  end

  # Another step of the run is replaced while this one is planned.
  def test_steps_are_numbered_anew_when_the_run_has_grown
    record(total: 7)
    middleware = Sidekiq.default_configuration.client_middleware
    middleware.add(Growth)
    perform(step(swf_step: 3)) { |run| run.replace(grown(1)) }
    assert_equal [21], fields("swf_step")
  ensure
    middleware.remove(Growth)
  end

  def test_a_run_without_numbers_gets_none
    perform(step(swf_step: 3)) { |run| run.replace(grown(swf_step: 5)) }
    record(total: 7)
    perform(step(jid: "other")) { |run| run.replace(grown) }
    assert_equal [nil, nil], fields("swf_step")
    assert_equal 0, redis("EXISTS", "swf:flow:#{RUN_ID}:added")
  end

  def test_a_tree_of_a_paused_run_is_parked_and_one_of_a_cancelled_run_does_not_start
    record(state: "paused")
    perform(step) { |run| run.replace(grown) }
    assert_empty pushed
    assert_equal 1, redis("LLEN", "swf:parked:#{RUN_ID}")
    record(state: "cancelled")
    perform(step(jid: "other")) { |run| run.replace(grown) }
    assert_empty pushed
  end

  def test_stored_chains_below_outlive_a_tree_with_delays
    chain, sha = "a" * 64, "b" * 64
    redis("HSET", "swf:callbacks:#{chain}", "0", "x")
    redis("EXPIRE", "swf:callbacks:#{chain}", 1000)
    barrier(BARRIER, 1)
    barrier(CHAIN, 2)
    stored = {"__type__" => "reference", "chain" => chain, "at" => 0, "sha" => sha}
    stack = [[BARRIER, stored, false], [CHAIN, {"__type__" => "chain", "children" => [
      {"__type__" => "job", "class" => "Z", "args" => []}
    ]}, false]]
    year = 365 * 86_400
    perform(step(workflow_completion_callbacks: stack)) { |run| run.replace(WithDelay.new(grown, delay: year * 1000)) }
    [BARRIER, "swf:callbacks:#{chain}"].each { |key| assert_operator redis("TTL", key), :>, year, key }
  end

  def test_outside_of_a_step_there_is_no_run
    assert_raises(SidekiqFlow::NoCurrentRun) { SidekiqFlow.current_run }
    assert_raises(SidekiqFlow::NoCurrentRun) { perform(step(swf_callback: "on_failure")) { |run| run.replace(grown) } }
  end
end
