# frozen_string_literal: true

require_relative "helper"

class Extract
  include Sidekiq::Job

  sidekiq_options queue: "ruby", retry: 3
end

# Runs that Ruby starts: what is in Redis after the start.
class TestStart < Minitest::Test
  Flow = Sidekiq::Workflow

  # Loses the next replies of scripts.
  module LostReplies
    class << self
      attr_accessor :left
    end
    self.left = 0

    def send_with(*)
      super.tap { raise RedisClient::ConnectionError if (LostReplies.left -= 1) >= 0 }
    end
  end
  SidekiqFlow::Companion::Scripts.singleton_class.prepend(LostReplies)

  def setup
    redis { |conn| conn.call("FLUSHDB") }
  end

  def teardown
    SidekiqFlow.records = nil
  end

  def test_a_run_of_the_gem_has_a_record
    run_id = Flow::Workflow.new(chain(extract(1), Flow::WithDelay.new(extract(2), delay: 50))).run
    record = record_of(run_id)
    assert_equal %w[running 2 604800], record.values_at("state", "total", "keep")
    assert_equal({"chain" => [step("1"), {"delay" => 50, "node" => step("2")}]}, JSON.parse(record["tree"]))
    first, = jobs("queue:ruby")
    assert_equal [run_id, 1, 3], first.values_at("workflow_run_id", "swf_step", "retry")
    rest = first["workflow_completion_callbacks"].dig(0, 1, "children", 0, "task")
    assert_equal [2, "Extract"], rest.values_at("swf_step", "class")
    assert_operator redis { |conn| conn.call("TTL", first["workflow_completion_callbacks"].dig(0, 0)) }, :>, 21 * 86_400
  end

  def test_a_run_is_started_as_often_as_the_gem_is_told_to
    flow = Flow::Workflow.new(extract(1), run_id: "x")
    2.times { assert_equal "x", flow.run }
    assert_equal "x", Flow::Workflow.new(extract(1), run_id: "x").run
    assert_equal 3, jobs("queue:ruby").size
    2.times { SidekiqFlow.run(extract(1), run_id: "y") }
    assert_equal 4, jobs("queue:ruby").size
  end

  def test_a_continuation_is_not_a_start
    flow = Flow::Workflow.new(extract(1), run_id: "x", callbacks: [[BARRIER, nil, false]])
    flow.run
    flow = Flow::Workflow.new(extract(1), run_id: "x")
    flow.instance_variable_set(:@completion_callbacks, []) # as the gem itself does
    flow.run
    assert_equal({}, record_of("x"))
    assert_equal 2, jobs("queue:ruby").size
  end

  def test_a_run_starts_without_a_record_where_it_can_get_none
    redis { |conn| conn.call("SET", "swf:flows:running", "another type") }
    redis { |conn| conn.call("SET", "swf:flow:a", "another type") }
    Flow::Workflow.new(extract(1), run_id: "a").run
    SidekiqFlow.records = false
    Flow::Workflow.new(extract(1), run_id: "b").run
    SidekiqFlow.records = {}
    # Deeper than the companion reads.
    Flow::Workflow.new(120.times.inject(extract(1)) { |node, _| chain(node) }, run_id: "c").run
    assert_equal [%w[a 1], ["b", nil], ["c", nil]], run_ids_and_numbers
  end

  def test_a_user_who_may_not_send_scripts_starts_runs
    without_scripts { Flow::Workflow.new(extract(1), run_id: "a").run }
    assert_equal [["a", nil]], run_ids_and_numbers
    without_scripts do
      assert_raises(RedisClient::CommandError) { SidekiqFlow.run(extract(1), unique_key: "k") }
      SidekiqFlow.run(extract(1), run_id: "b", tags: ["x"])
    end
    assert_equal [["a", nil], ["b", nil]], run_ids_and_numbers
  end

  def test_an_error_of_the_connection_starts_a_run_once
    flow = Flow::Workflow.new(extract(1), run_id: "a")
    LostReplies.left = 2
    assert_raises(RedisClient::ConnectionError) { flow.run }
    flow.run
    assert_equal 1, jobs("queue:ruby").size
    LostReplies.left = 1
    Flow::Workflow.new(extract(1), run_id: "b").run
    assert_equal 2, jobs("queue:ruby").size
  end

  def test_options
    run_id = SidekiqFlow.run(extract(1), on_success: extract(2), on_failure: extract(3), on_complete: extract(4),
      tags: [:a, "b"], template: "nightly", deadline: 60, unique_key: "k")
    record = record_of(run_id)
    assert_equal ["nightly", '["a","b"]', "60.0", "k", "2"],
      record.values_at("template", "tags", "deadline", "unique", "total")
    head, queue = record["on_failure"].split("\n")
    call = JSON.parse("#{head}}]}")
    assert_equal ["ruby", "ruby", "failure", [3, {"run_id" => run_id, "template" => "nightly"}]],
      [queue, *call.values_at("queue", "swf_callback", "args")]
    refute call.key?("swf_step")
    lists = %w[swf:flows:running swf:flows:tag:a swf:flows:tag:b swf:flows:template:nightly swf:deadlines]
    lists.each { |list| assert_equal [run_id], redis { |conn| conn.call("ZRANGE", list, 0, -1) }, list }
    assert_equal run_id, SidekiqFlow.run(extract(1), unique_key: "k")
    assert_equal 1, jobs("queue:ruby").size
  end

  def test_a_template_is_named
    Flow::Templates.register("weekly") { |params| extract(params["n"]) }
    run_id = Flow::Templates.run("weekly", {"n" => 5})
    assert_equal "weekly", record_of(run_id)["template"]
    assert_nil record_of(Flow::Workflow.new(extract(1)).run)["template"]
  ensure
    Flow::Templates.clear!
  end

  def test_steps_that_may_fail
    failing = SidekiqFlow.may_fail(extract(1))
    caught = SidekiqFlow.catch(extract(2), chain(extract(3), extract(4)))
    run_id = SidekiqFlow.run(chain(failing, caught, extract(5)))
    first, = jobs("queue:ruby")
    children = first["workflow_completion_callbacks"].dig(0, 1, "children")
    assert_equal "done", first["swf_on_death"]
    assert_equal([2, 5], children.map { |child| child["swf_step"] })
    assert_equal([3, 4], children[0]["swf_on_death"]["children"].map { |child| child["swf_step"] })
    assert_equal %w[5 2], record_of(run_id).values_at("total", "skipped")
  end

  def test_arguments_may_be_left_out
    SidekiqFlow.records = {args: false, keep: 60}
    record = record_of(Flow::Workflow.new(extract("secret")).run)
    assert_equal [{"step" => "Extract", "queue" => "ruby", "ruby" => true}, "60"],
      [JSON.parse(record["tree"]), record["keep"]]
  end

  def test_a_large_group_is_poured
    SidekiqFlow.run(Flow::Group.new(*Array.new(1500) { |n| extract(n) }))
    assert_equal 1500, jobs("queue:ruby").size
    assert_equal(0, redis { |conn| conn.call("EXISTS", "swf:fanouts") })
  end

  def test_an_empty_run_is_done
    assert_equal "done", record_of(SidekiqFlow.run(chain))["state"]
  end

  def test_what_is_refused
    bad = [
      [:node], [extract(1), {tags: "a"}], [extract(1), {tags: [""]}], [extract(1), {deadline: 0}],
      [extract(1), {deadline: Time.now}], [extract(1), {deadline: "2"}], [extract(1), {unique_key: ""}],
      [extract(1), {on_failure: chain}], [extract(1), {template: "x" * 256}], [extract(1), {run_id: "x" * 256}],
      [extract(1), {retries: 1}], [Flow::Job.new(Extract, queue: "")]
    ]
    bad.each do |node, options|
      assert_raises(SidekiqFlow::InvalidWorkflow, options.inspect) { SidekiqFlow.run(node, **(options || {})) }
    end
    assert_raises(SidekiqFlow::InvalidWorkflow) { SidekiqFlow.may_fail(chain) }
    assert_raises(SidekiqFlow::InvalidWorkflow) { SidekiqFlow.catch(extract(1), :node) }
    assert_raises(NameError) { Flow::Workflow.new(Flow::Job.new("Extarct")).run }
    assert_raises(ArgumentError) { Flow::Workflow.new(Flow::Job.new(Extract, :symbol)).run }
    assert_empty(redis { |conn| conn.call("KEYS", "*") })
  end

  private

  def extract(*args)
    Flow::Job.new(Extract, *args)
  end

  def chain(*nodes)
    Flow::Chain.new(*nodes)
  end

  def step(args)
    {"step" => "Extract", "queue" => "ruby", "ruby" => true, "args" => args}
  end

  def redis(&block)
    Sidekiq.default_configuration.redis(&block)
  end

  def record_of(run_id)
    redis do |conn|
      next {} unless conn.call("TYPE", "swf:flow:#{run_id}") == "hash"

      found = conn.call("HGETALL", "swf:flow:#{run_id}")
      found.is_a?(Array) ? found.each_slice(2).to_h : found
    end
  end

  def jobs(queue)
    redis { |conn| conn.call("LRANGE", queue, 0, -1) }.map { |text| JSON.parse(text) }
  end

  def run_ids_and_numbers
    jobs("queue:ruby").reverse.map { |job| [job["workflow_run_id"], job["swf_step"]&.to_s] }
  end

  def without_scripts
    commands = %w[-evalsha -eval]
    redis { |conn| conn.call("ACL", "SETUSER", "default", *commands) }
    yield
  ensure
    redis { |conn| conn.call("ACL", "SETUSER", "default", "+@all") }
  end
end
