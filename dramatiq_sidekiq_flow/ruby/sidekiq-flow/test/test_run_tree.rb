# frozen_string_literal: true

require_relative "helper"
require "sidekiq_flow/web"

class TestRunTree < Minitest::Test
  RunTree = SidekiqFlow::Web::RunTree
  RunRecord = SidekiqFlow::Web::RunRecord
  RunPage = SidekiqFlow::Web::RunPage
  StepStates = SidekiqFlow::Web::StepStates
  Job = SidekiqFlow::Web::RunJobs::Job

  STEP = {"step" => "a"}.freeze
  # 1, (2 | 3, 4 | 25 times (5, 6)), 55, 56
  PAIR = {"chain" => [STEP, STEP]}.freeze
  TREE = {"chain" => [
    STEP,
    {"group" => [STEP, PAIR, {"times" => 25, "node" => PAIR}], "need" => 20},
    {"group" => []},
    {"delay" => 60_000, "node" => STEP},
    {"step" => "R", "ruby" => true, "queue" => "q", "args" => "1"}
  ]}.freeze

  def test_lines_have_the_numbers_of_their_steps
    lines = tree.each_line.map { |line| [line.depth, line.node.kind, line.number, line.node.steps] }
    assert_equal [[0, :chain, 1, 56], [1, :step, 1, 1], [1, :group, 2, 53], [2, :step, 2, 1], [2, :chain, 3, 2],
      [3, :step, 3, 1], [3, :step, 4, 1], [2, :times, 5, 50], [1, :group, 55, 0], [1, :delay, 55, 1],
      [2, :step, 55, 1], [1, :step, 56, 1]], lines
    last = tree.each_line.to_a.last.node
    assert_equal ["R", "q", "1", true], [last.name, last.queue, last.args, last.ruby?]
  end

  def test_trees_that_replaced_steps_are_below_them
    trees = {3 => '"first":4,"tree":{"chain":[{"step":"b"},{"step":"c"}]}', 4 => '"first":6,"tree":{"step":"d"}',
             1 => "{", 2 => '"first":5,"tree":{"step":"twice"}'}
    added = trees.transform_values { |tree| "{#{tree}}" }
    tree = RunTree.parse(JSON.generate({"chain" => [STEP, STEP, STEP]}), added)
    lines = tree.each_line.map { |line| [line.depth, line.node.kind, line.number] }
    assert_equal [[0, :chain, 1], [1, :step, 1], [1, :step, 2], [1, :step, 3], [2, :replacement, 4], [3, :chain, 4],
      [4, :step, 4], [5, :replacement, 6], [6, :step, 6], [4, :step, 5]], lines
    record = record(times: {1 => "1 2 0 w", 3 => "1 2 0 w"})
    states = StepStates.new(tree, record, [Job.new(number: 5, state: "queued")])
    assert_equal %w[done inferred done inferred queued open], Array.new(6) { |index| states[index + 1] }
  end

  def test_trees_that_replaced_steps_without_a_line_follow
    tree = RunTree.parse('{"times":30,"node":{"step":"a"}}', {7 => '{"first":31,"tree":{"step":"b"}}'})
    lines = tree.each_line.map { |line| [line.depth, line.node.kind, line.number] }
    assert_equal [[0, :times, 1], [0, :replacement, 31], [1, :step, 31]], lines
  end

  def test_what_is_not_a_tree_is_nil
    deep = ["[" * 600, "]" * 600].join
    ["", "{", "[]", "{}", '{"chain":{}}', '{"times":0,"node":{"step":"a"}}', '{"delay":"x","node":{"step":"a"}}', deep,
      '{"times":10000001,"node":{"step":"a"}}'].each { |json| assert_nil RunTree.parse(json), json }
  end

  def test_steps_before_one_that_exists_are_inferred_as_done
    # Of the second repetition, the second step is at work.
    states = states(jobs: [Job.new(number: 8, state: "running")])
    assert_equal %w[inferred open open open open open inferred running open],
      Array.new(9) { |index| states[index + 1] }
    assert_equal({"inferred" => 2, "running" => 1, "open" => 53}, states.counts)
    assert_equal({"inferred" => 55, "dead" => 1}, states(failed: {56 => "{}"}).counts)
    assert_equal({"done" => 1, "inferred" => 55}, states(times: {56 => "1 2 0 w"}).counts)
  end

  def test_steps_before_one_of_a_repeated_node_of_a_chain_are_inferred
    chain = {"chain" => [{"times" => 25, "node" => PAIR}, STEP]}
    states = StepStates.new(RunTree.parse(JSON.generate(chain)), record, [Job.new(number: 8, state: "queued")])
    assert_equal({"inferred" => 7, "queued" => 1, "open" => 43}, states.counts)
    assert_equal "queued", states[8]
  end

  def test_a_fallback_that_did_not_run_is_skipped
    tree = {"chain" => [{"catch" => STEP, "fallback" => PAIR}, {"catch" => STEP, "fallback" => STEP}, STEP]}
    record = record(state: "done", times: {1 => "1 2 0 w", 5 => "1 2 0 w", 6 => "1 2 0 w"}, failed: {4 => "{}"})
    states = StepStates.new(RunTree.parse(JSON.generate(tree)), record, [])
    assert_equal %w[done skipped skipped dead done done], Array.new(6) { |index| states[index + 1] }
  end

  def test_the_state_of_the_run_says_what_open_steps_are
    times = {1 => "1 2 0 w"}
    assert_equal({"done" => 1, "inferred" => 55}, states(state: "done", times: times).counts)
    assert_equal({"done" => 1, "skipped" => 55}, states(state: "cancelled", times: times).counts)
    assert_equal "done", states(bits: "\x40".b)[1]
  end

  def test_a_dead_step_that_was_retried_is_where_its_job_is
    failed = {2 => "{}"}
    assert_equal "dead", states(failed: failed)[2]
    both = [Job.new(number: 2, state: "queued"), Job.new(number: 2, state: "dead")]
    assert_equal "queued", states(failed: failed, jobs: both)[2]
    assert_equal "done", states(failed: failed, times: {2 => "1 2 1 w"})[2]
    assert_equal "done", states(jobs: both, times: {2 => "1 2 1 w"})[2]
    assert_nil states[57]
    assert_nil states[nil]
  end

  def test_a_page_shows_repeated_steps_in_one_row
    failed = {10 => '{"class":"a","error_class":"E","error_message":"<x>"}'}
    page = RunPage.new(record(failed: failed, times: {1 => "1 3.5 0 w"}, state: "failed"), nil)
    row = page.rows.find(&:counts)
    # Step 9 comes before the dead one in its chain.
    assert_equal ["(a > a) x 25", "!", 5, {"inferred" => 1, "dead" => 1, "open" => 48}],
      [row.name, row.mark, row.number, row.counts]
    assert_equal([[10, "E: <x>"]], page.hidden_failures.map { |failure| [failure.number, failure.error] })
    assert_equal ["failed", 2, 1, 56], [page.state, page.done, page.dead, page.total]
    assert_equal [2.5, 1], [page.rows[1].took, page.rows[1].attempts]
    assert_equal ["group, 20 of 27 needed", "after 60 s"], [page.rows[2].name, page.rows[9].name]
  end

  private

  def tree
    RunTree.parse(JSON.generate(TREE))
  end

  def record(state: "running", bits: nil, times: {}, failed: {})
    RunRecord.new(RUN_ID, {"state" => state, "tree" => JSON.generate(TREE)}, bits: bits, times: times, failed: failed)
  end

  def states(jobs: [], **marks)
    StepStates.new(tree, record(**marks), jobs)
  end
end
