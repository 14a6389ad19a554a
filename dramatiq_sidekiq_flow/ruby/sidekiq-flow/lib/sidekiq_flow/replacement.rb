# frozen_string_literal: true

module SidekiqFlow::Companion
  # What takes the place of a step that is dead: its fallback, or a job that does
  # nothing, with the callback stack of the step (Python's twin is
  # workflow/death_policy.py).
  class Replacement
    # The option of a step that says what happens at its death: "done", or a tree.
    POLICY = "swf_on_death"

    # The value with which a step counts as done.
    COUNTS_AS_DONE = "done"

    # The run id of a job in `dead` that has left its run.
    DIED_IN = "swf_died_in"

    # The fields that such a job had in its run, by name.
    DIED_AS = "swf_died_as"

    # The replacement of a job that goes to `dead`, or nil. If it cannot be planned,
    # the job keeps its policy: a Python process finds it in `dead`.
    def self.of(job, unit)
      return unless job[POLICY] && Run.id(job).is_a?(String)

      new(job, unit)
    rescue Refused => error
      unit.config.logger.error("Nothing takes the place of the dead step #{job["jid"]} yet: #{error.message}")
      nil
    end

    def initialize(job, unit)
      @job = job
      @stack = Callback.stack(job)
      @node = node(unit)
      Tree.check(@node)
      @plan = Plan.new(@node, @stack, run_id: Run.id(job), finished: job, queue: unit.queue_name, config: unit.config)
      @config = unit.config
    end

    # The job as it goes to `dead`: a retry of it by hand runs it alone.
    def payload
      of_run = [Dialect.current.callbacks, Dialect.current.run_id, POLICY, StepRecord::NUMBER]
      taken, kept = @job.partition { |key, _| of_run.include?(key) }.map(&:to_h)
      Sidekiq.dump_json(kept.merge(DIED_IN => Run.id(@job), DIED_AS => taken))
    end

    # Seconds that the keys of the run must live.
    def ttl
      Lifetimes.barrier_ttl(@node, @stack)
    end

    # The keys and arguments of fail.lua behind all others; +kept+: how many keys it
    # keeps alive.
    def writes(kept)
      keys, arguments = @plan.writes
      [keys, [kept, fallback? ? Tree.count(@node) : 0, *arguments]]
    end

    # Pushes the jobs of a large plan.
    def pour
      @config.redis { |conn| Fanouts.pour_all(conn, @config.logger) } if @plan.fanout?
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      # The next heartbeat of any process does it.
      Trouble.log(@config.logger, error)
    end

    private

    def fallback?
      @job[POLICY] != COUNTS_AS_DONE && !Tree.completes_at_once?(@job[POLICY])
    end

    def node(unit)
      policy = @job[POLICY]
      Tree.check(policy) unless policy == COUNTS_AS_DONE
      return policy if fallback?

      {
        "__type__" => "job", "class" => Dialect.current.noop_class, "args" => [], "jid" => @job["jid"],
        "queue" => unit.queue_name, "retry" => true, StepRecord::NUMBER => @job[StepRecord::NUMBER]
      }.compact
    end
  end
end
