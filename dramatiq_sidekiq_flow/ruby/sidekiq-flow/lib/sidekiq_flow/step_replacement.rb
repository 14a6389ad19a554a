# frozen_string_literal: true

module SidekiqFlow::Companion
  # Ends a step that a tree replaces: takes its job out of flight, keeps its output and
  # starts the tree with the callbacks of the step, in one step (Python's twin is
  # workflow/replacement.py).
  class StepReplacement < Completion
    # The completion of a step: a replacement if it asked for a tree that has something to
    # run. Raises InvalidNode.
    def self.of(execution, unit, fields)
      node = execution.changes.node if execution.changes?
      return Completion.new(unit, execution.job, fields) if node.nil? || Tree.completes_at_once?(node)

      new(unit, execution.job, fields, node)
    end

    def initialize(unit, job, fields, node)
      super(unit, job, fields)
      @node = node
      @tree = NewTree.new(node, job)
      # The step is counted in its barrier, or releases it; the last step of the tree
      # counts down that barrier, or another one.
      @top_kind = @kinds.first || ""
      @ttl = Lifetimes.barrier_ttl(node, @stack)
    end

    # Plans the tree, and writes nothing that a step that fails would have to take back.
    def prepare
      keep_chains
      number_after(run_total)
    end

    def advance
      loop do
        outcome = Trouble.patiently(@unit.config.logger) { send_script }
        case outcome
        when :done, :gone then return pour
        when :cancelled then return
        when Replies::Total then number_after(outcome.value)
        when :stage_lost then next # the plan stages it again
        end
      end
    end

    private

    # The stored chains of the stack outlive the tree.
    def keep_chains
      chains = CallbackStorage.chains(@job[Dialect.current.callbacks])
      return if chains.empty?

      ttl = [@ttl + CallbackStorage::MARGIN, Lifetimes::MAX_TTL].min
      redis { |conn| Scripts.run(conn, "extend", ["", *chains], [ttl, 0]) }
    end

    # The number of steps of the run, as its record has it: "" if they have none.
    def run_total
      return "" if step.keys.empty?

      state, total = redis { |conn| conn.call("HMGET", step.key, "state", "total") }
      state && total ? total : ""
    end

    # Plans the tree with the numbers behind the last one of the run.
    def number_after(total)
      @numbers = Numbers.of(total, @tree, step)
      stack, barrier = stack_of_tree
      @plan = Plan.new(@tree.in_place(@numbers.before), stack, run_id: run_id, finished: @job,
        queue: @unit.queue_name, config: @unit.config)
      @plan.add_barrier(barrier) if barrier
    end

    # The callback stack of the tree, and the new barrier of its top: the barrier of a
    # chain is released by the step, so that a second delivery of it does nothing.
    def stack_of_tree
      return [@stack, nil] unless @top_kind == "f"

      barrier = SecureRandom.uuid
      *below, top = @stack
      [[*below, Callback.new(barrier, top.remaining, top.propagate)], barrier]
    end

    def send_script
      plan_keys, plan_arguments = @plan.writes
      marker = @stack.empty? ? "swf:released:#{unit_id}" : ""
      keys = [memory_key, marker, step.key, *@top_down.map(&:barrier), *plan_keys]
      arguments = [unit_id, @ttl, Memory.current&.ttl || 0, step.text, *@numbers.arguments,
        @fields.size / 2, *@fields, @top_kind, @top_down.size, *plan_arguments]
      @unit.replace_step(keys, arguments)
    end

    def redis(&block)
      Trouble.patiently(@unit.config.logger) { @unit.config.redis(&block) }
    end
  end
end
