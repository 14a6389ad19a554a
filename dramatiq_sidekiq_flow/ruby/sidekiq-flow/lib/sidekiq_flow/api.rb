# frozen_string_literal: true

# What applications call.
module SidekiqFlow
  # Raised for a workflow that cannot be run.
  InvalidWorkflow = Companion::InvalidWorkflow

  class << self
    # Starts a run of a node of the gem, and returns its id.
    #
    #   node = Sidekiq::Workflow
    #   SidekiqFlow.run(
    #     node::Chain.new(node::Job.new(Fetch, 7), SidekiqFlow.may_fail(node::Job.new(Thumb, 7))),
    #     on_failure: node::Job.new(Tell, "#alerts"), tags: ["nightly"], deadline: 2.hours
    #   )
    #
    # run_id       its id; a new UUID by default. A run of an id is started once
    # on_success   a node that runs after all others
    # on_failure   a job, pushed once, when the first step dies
    # on_complete  a job, pushed once, when the run is done or cancelled, or has failed and
    #              does not go on by itself
    # tags         names to find it by
    # deadline     seconds from the start (or a duration), after which it is cancelled
    # unique_key   a name that one run may have while it lives: if another run has it,
    #              nothing starts, and its id is returned
    # template     the name that it is listed by
    #
    # The last argument of on_failure and on_complete is a hash: run_id, template, state
    # and, of a death, step, class, jid, queue, error_class, error_message and at.
    #
    # Raises InvalidWorkflow (an ArgumentError); then nothing is started.
    def run(node, run_id: nil, on_success: nil, **options)
      node = gem_module::Chain.new(node, on_success) if on_success
      options = Companion::RunOptions.new(**options)
      run_id = (run_id || SecureRandom.uuid).to_s
      Companion::NamedRun.new(node, run_id, options).start
    end

    # A step that counts as done if it fails for good: the run goes on, and keeps the error.
    def may_fail(job)
      with_policy("may_fail", job, Companion::Replacement::COUNTS_AS_DONE)
    end

    # A step with a node that runs in its place if it fails for good.
    def catch(job, fallback)
      with_policy("catch", job, Companion::Wire.read(Companion::Wire.of(fallback)))
    end

    # Settings of the records of runs: false for none; or a hash with +keep+, the seconds
    # that a record is kept after the end of its run, and +args+, false to keep the arguments
    # of steps out of it.
    def records=(settings)
      Companion::Start.records = settings
    end

    private

    def with_policy(name, job, policy)
      unless job.is_a?(gem_module::Job)
        raise InvalidWorkflow, "#{name} takes one step, #{gem_module}::Job.new(...), not #{job.inspect[0, 100]}. " \
          "For a chain or a group, wrap each of its steps."
      end
      Companion::Wire.node(Companion::Wire.of(job).merge(Companion::Replacement::POLICY => policy))
    end

    def gem_module
      Companion::Dialect.current.gem
    end
  end
end
