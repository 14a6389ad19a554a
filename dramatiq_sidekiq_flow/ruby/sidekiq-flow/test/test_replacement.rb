# frozen_string_literal: true

require_relative "helper"

# What takes the place of a step that is dead.
class TestReplacement < Minitest::Test
  Unit = Struct.new(:queue_name, :config)

  STEP = {
    "class" => "A", "args" => [1], "jid" => "j", "queue" => "other", "workflow_run_id" => RUN_ID, "swf_step" => 3
  }.freeze

  def replacement(policy, **fields)
    config = Sidekiq.default_configuration
    config.logger.level = Logger::FATAL
    job = STEP.merge("swf_on_death" => policy, **fields.transform_keys(&:to_s))
    Companion::Replacement.of(job, Unit.new("ruby", config))
  end

  def pushed(found)
    _, (_kept, ran, _barriers, _queues, _n, *jobs) = found.writes(2)
    [ran, jobs.grep(String).map { |job| JSON.parse(job) }]
  end

  def test_a_step_without_a_policy_stays_dead
    assert_nil replacement(nil)
    assert_nil replacement("done", workflow_run_id: nil)
  end

  def test_a_job_that_does_nothing_counts_for_the_step
    ran, (job,) = pushed(replacement("done"))
    assert_equal 0, ran
    assert_equal ["Sidekiq::Workflow::NoopWorker", [], "j", "ruby", 3, RUN_ID],
      job.values_at("class", "args", "jid", "queue", "swf_step", "workflow_run_id")
    refute job.key?("swf_on_death")
  end

  def test_a_fallback_without_jobs_is_none
    ran, (job,) = pushed(replacement({"__type__" => "chain", "children" => []}))
    assert_equal [0, "j"], [ran, job["jid"]]
  end

  def test_the_steps_of_a_fallback_are_counted_without_those_of_fallbacks_inside
    instead = {"__type__" => "job", "class" => "C", "args" => []}
    inside = {"__type__" => "job", "class" => "B", "args" => [], "swf_on_death" => instead}
    ran, (job,) = pushed(replacement({"__type__" => "chain", "children" => [inside, inside]}))
    assert_equal [2, "B"], [ran, job["class"]]
  end

  def test_the_members_of_a_group_that_needs_some_of_them_are_counted
    member = {"__type__" => "job", "class" => "B", "args" => []}
    delayed = {"__type__" => "with_delay", "delay" => 5, "task" => member}
    group = {"__type__" => "group", "children" => [member, delayed]}
    carrier = {"__type__" => "job", "class" => "Sidekiq::Workflow::NoopWorker", "args" => [1], "queue" => "python",
               "wrapped" => "group needing 1", "swf_group" => group}
    ran, (job,) = pushed(replacement(carrier))
    assert_equal [2, group], [ran, job["swf_group"]]
    assert_equal 5, Companion::Tree.total_delay(carrier)
    assert_nil replacement(carrier.merge("swf_group" => {"__type__" => "group"}))
  end

  def test_the_dead_job_has_left_its_run
    dead = JSON.parse(replacement("done", workflow_completion_callbacks: []).payload)
    kept = {"class" => "A", "args" => [1], "jid" => "j", "queue" => "other", "swf_died_in" => RUN_ID}
    taken = {"workflow_run_id" => RUN_ID, "swf_step" => 3, "swf_on_death" => "done",
             "workflow_completion_callbacks" => []}
    assert_equal kept.merge("swf_died_as" => taken), dead
  end

  def test_a_fallback_that_cannot_be_read_is_left_to_others
    assert_nil replacement({"__type__" => "job"})
    assert_nil replacement("never heard of")
  end
end
