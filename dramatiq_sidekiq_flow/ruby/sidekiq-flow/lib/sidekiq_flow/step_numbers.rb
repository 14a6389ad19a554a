# frozen_string_literal: true

module SidekiqFlow::Companion
  # Numbers the steps of a tree in written order, depth first: their places in the
  # record of a run (Python's twin is wire/step_numbers.py, which leaves out the numbers
  # that a Python worker finds by itself).
  class StepNumbers
    # The number of the last step, and how many steps are in fallbacks.
    attr_reader :last, :skipped

    # Numbers the jobs of a tree, in place. +after+: the number of the step before it.
    def self.number(node, after: 0)
      new(after).tap { |numbers| numbers.number(node) }
    end

    def initialize(after)
      @last = after
      @skipped = 0
    end

    def number(node)
      case node["__type__"]
      when "job" then number_job(node)
      when "with_delay" then number(node["task"])
      else node["children"].each { |child| number(child) }
      end
    end

    private

    # The steps of a fallback come after its step.
    def number_job(job)
      job[StepRecord::NUMBER] = (@last += 1)
      fallback = CompactTree.fallback_of(job)
      return if fallback.nil?

      before = @last
      skipped = @skipped
      number(fallback)
      @skipped = skipped + @last - before
    end
  end
end
