# frozen_string_literal: true

module SidekiqFlow::Companion
  # A tree of the gem's nodes that replaces a step, in wire form.
  class NewTree
    # The option that names the part of the memory that a step writes.
    NAMESPACE = "memory_namespace"

    class << self
      include Sidekiq::JobUtil

      # Returns the wire form of a node of the gem. Raises InvalidNode.
      def read(node)
        wire = Wire.of(node)
        # Sidekiq's own rules for arguments.
        Tree.jobs(wire) { |job| verify_json(job) if job["args"].is_a?(Array) }
        Wire.read(wire).tap { |tree| Tree.check(tree) }
      rescue ArgumentError => error
        raise InvalidNode, error.message[0, 1000]
      end
    end

    # How many steps it has, and how many of them are in fallbacks.
    attr_reader :total, :skipped

    # +wire+: as +read+ returns it; +job+: the step that it replaces.
    def initialize(wire, job)
      @wire = wire
      @job = job
      Tree.jobs(wire) { |step| place(step) }
      numbers = StepNumbers.number(wire)
      @total = numbers.last
      @skipped = numbers.skipped
    end

    # A copy for its place in the run, since a thread remembers the nodes of chains that it
    # stored. +before+: number of the last step of the run; 0 if its steps have no numbers.
    def in_place(before)
      JSON.parse(JSON.generate(@wire)).tap do |copy|
        if before.zero?
          Tree.jobs(copy) { |step| step.delete(StepRecord::NUMBER) }
        else
          StepNumbers.number(copy, after: before)
        end
      end
    end

    # The compact tree, as the record shows it.
    def compact
      @compact ||= CompactTree.dump(Wire.with_queues(@wire), args: (Start.records || {}).fetch(:args, true))
    end

    private

    def place(step)
      # A barrier counts each id once.
      step.delete("jid") if step["jid"] == @job["jid"]
      names = [@job[NAMESPACE], step[NAMESPACE]].grep(String).reject(&:empty?)
      step[NAMESPACE] = names.join(".") unless names.empty?
    end
  end

  # What the record of a run holds of the tree that replaces a step. +before+: number of
  # the last step of the run; +total+: the same with the tree; +step+: number of the
  # replaced step; +added+: JSON.
  Numbers = Struct.new(:before, :total, :skipped, :step, :added) do
    # +total+: number of steps of the run, as its record has it; "" if they have none.
    def self.of(total, tree, step)
      before = total.to_i
      return new(0, 0, 0, 0, "") if before.zero? || before + tree.total > StepRecord::MOST

      new(before, before + tree.total, tree.skipped, step.number, "{\"first\":#{before + 1},\"tree\":#{tree.compact}}")
    end

    # As replace.lua reads them.
    def arguments
      [before.zero? ? "" : before.to_s, total, skipped, step, added]
    end
  end
end
