# frozen_string_literal: true

module SidekiqFlow
  # The job that runs on this thread is not a step of a run, or the companion does not
  # run it.
  class NoCurrentRun < StandardError; end

  # The run of the job that runs on this thread. What a step asks for here is written when
  # it ends, in the script that acknowledges it; a step that raises has asked for nothing.
  class CurrentRun
    attr_reader :run_id, :jid

    def initialize(execution)
      @execution = execution
      @run_id = Companion::Run.id(execution.job)
      @jid = execution.job["jid"]
    end

    # Replaces this step by a tree when it ends: what follows the step waits for the tree.
    # Of several calls, the last one counts. An empty chain just goes on.
    #
    # tree  a node of the gem: a Chain, Group, WithDelay or Job, or SidekiqFlow.wait_for(...)
    def replace(tree)
      raise InvalidWorkflow, "A step is replaced by a tree: replace(Chain.new(a, b))" if tree.nil?

      changes.tree = tree
      nil
    end

    # Starts steps when this step ends; they run beside each other, and beside the tree
    # that replaces it. What follows this step waits for them. May be called many times.
    def add(*steps)
      raise InvalidWorkflow, "add takes nodes, not an array of them: add(*steps)" if steps.any?(Array)

      changes.added.concat(steps)
      nil
    end

    private

    def changes
      if Companion::Run.callback?(@execution.job)
        raise NoCurrentRun, "A callback of a run is not a step, so nothing can replace it"
      end

      @execution.changes
    end
  end

  # The run of the job that runs on this thread. Raises NoCurrentRun.
  def self.current_run
    execution = Companion::Execution.current
    return CurrentRun.new(execution) if execution && !Companion::Run.id(execution.job).nil?

    raise NoCurrentRun, "No step of a run is performed on this thread by a Sidekiq process with the companion " \
      "(SidekiqFlow::Companion.configure)"
  end
end
