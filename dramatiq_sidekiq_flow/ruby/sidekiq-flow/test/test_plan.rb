# frozen_string_literal: true

require_relative "helper"

# The trees of interop/recordings: what the companion plans is what the gem wrote when the tree was started.
class TestPlan < Minitest::Test
  RECORDINGS = Dir[File.join(ENV.fetch("INTEROP_RECORDINGS"), "steps-sidekiq-*.json")]
  CASES = RECORDINGS.flat_map { |path| JSON.parse(File.read(path)).fetch("cases") }

  def plan(node, stack = [], finished: {})
    config = Sidekiq.default_configuration
    Companion::Plan.new(node, stack, run_id: RUN_ID, finished: finished, queue: "ruby", config: config)
  end

  def test_recorded_trees
    assert_operator CASES.size, :>, 30
    CASES.each do |recorded|
      planned = parts(plan(recorded["tree"]))
      after = recorded["after_run"]
      assert_equal recorded_jobs(after), planned[:pushed].map { |job| shape(job) }, recorded["name"]
      assert_equal recorded_scheduled(after), planned[:scheduled].map { |job| shape(job) }, recorded["name"]
      assert_equal recorded_barriers(after), planned[:barriers].sort, recorded["name"]
    end
  end

  def test_barriers_live_through_the_delays_ahead
    day = 86_400_000
    tree = chain({"__type__" => "with_delay", "delay" => 10 * day, "task" => a_job("A")}, a_job("B"))
    _, arguments = plan(tree).writes
    assert_equal (31 * 86_400) + 1, arguments[1]
  end

  def test_the_context_is_handed_on
    finished = {"locale" => "de", "cattr_tenant" => 5, "x-datadog-trace-id" => "1", "other" => 1}
    pushed, = parts(plan(a_job("B", "locale" => "fr"), finished: finished))[:pushed]
    assert_equal ["fr", 5, "1", nil], pushed.values_at("locale", "cattr_tenant", "x-datadog-trace-id", "other")
  end

  def test_an_explicit_id_is_used_once
    pushed = parts(plan(group(a_job("A", "jid" => "same"), a_job("B", "jid" => "same"))))[:pushed]
    assert_equal "same", pushed[0]["jid"]
    refute_equal "same", pushed[1]["jid"]
  end

  def test_a_large_group_is_a_fan_out
    refute_predicate plan(group(*Array.new(1000) { a_job("A") })), :fanout?
    assert_predicate plan(group(*Array.new(1001) { a_job("A") })), :fanout?
    assert_predicate plan(group(*Array.new(2) { a_job("A", "args" => ["x" * 600_000]) })), :fanout?
  end

  def test_trees_that_cannot_be_started_are_refused
    bad = [nil, 5, {}, {"__type__" => "chain"}, {"__type__" => "job", "class" => "A"}, a_job("A", "retry" => "no"),
      a_job("A", "queue" => ""), {"__type__" => "with_delay", "delay" => "1", "task" => a_job("A")}]
    bad.each { |node| assert_raises(Companion::InvalidNode, node.inspect) { Companion::Tree.check(node) } }
    deep = 102.times.inject(a_job("A")) { |node, _| chain(node) }
    assert_raises(Companion::InvalidNode) { Companion::Tree.check(deep) }
    CASES.each { |recorded| Companion::Tree.check(recorded["tree"]) }
  end

  private

  def a_job(name, more = {})
    {"__type__" => "job", "class" => name, "args" => []}.merge(more)
  end

  def chain(*children)
    {"__type__" => "chain", "children" => children}
  end

  def group(*children)
    {"__type__" => "group", "children" => children}
  end

  # What the arguments of advance.lua hold.
  def parts(plan)
    _, arguments = plan.writes
    # The script writes the marker: 0 for a barrier that is made released.
    barriers = Array.new(arguments.shift) { arguments.shift(2).last }.map { |value| [value, value.zero? ? 0 : -1] }
    pushed = Array.new(arguments.shift) { arguments.shift(arguments.shift) }
    scheduled = Array.new(arguments.shift) { arguments.shift(2).last }
    assert_empty arguments
    {barriers: barriers, pushed: parsed(pushed.flatten), scheduled: parsed(scheduled)}
  end

  def parsed(texts)
    texts.map { |text| JSON.parse(text) }
  end

  def recorded_jobs(after)
    queues = after.select { |key, _| key.start_with?("queue:") }
    queues.each_value.flat_map { |queue| queue["value"].reverse }.map { |text| shape(JSON.parse(text)) }
  end

  def recorded_scheduled(after)
    (after.dig("schedule", "value") || []).map { |member, _| shape(JSON.parse(member)) }
  end

  # [counter, marker] of each barrier.
  def recorded_barriers(after)
    ids = after.keys.select { |key| key.match?(Companion::UUID) }
    ids.map { |id| [after.dig(id, "value").to_i, after.dig("#{id}_ran", "value").to_i] }.sort
  end

  # A job without what is new in each run: ids and times.
  def shape(job)
    job = job.reject { |name, _| %w[jid created_at enqueued_at at].include?(name) }
    stack = job["workflow_completion_callbacks"]
    stack ? job.merge("workflow_completion_callbacks" => stack.map { |entry| entry.drop(1) }) : job
  end
end
