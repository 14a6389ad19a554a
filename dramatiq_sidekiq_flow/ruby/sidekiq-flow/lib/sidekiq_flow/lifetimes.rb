# frozen_string_literal: true

module SidekiqFlow::Companion
  # How long the Redis keys of a run live, in seconds.
  module Lifetimes
    # Sidekiq's 25 retries take 21 days: a barrier outlives them.
    RETRY_HORIZON = 21 * 86_400

    # Redis refuses a TTL whose end it cannot represent.
    MAX_TTL = 1000 * 365 * 86_400

    # A released barrier is kept for a day, as the gem keeps it.
    RELEASED_TTL = 86_400

    module_function

    # The keys that the run of a job needs, and for how many seconds from the
    # moment when the job continues. A payload that cannot be read needs none: a
    # failed job must be able to leave flight.
    def needs(job)
      stack = Callback.stack(job)
      chains = CallbackStorage.chains(job[Dialect.current.callbacks])
      keys = [*stack.flat_map(&:keys), Memory.key_for(job), *chains, *StepRecord.new(job).keys].reject(&:empty?)
      [keys, [barrier_ttl(nil, stack), Memory.current&.ttl || 0].max]
    rescue
      [[], RETRY_HORIZON]
    end

    # The seconds of a number, or of a duration of ActiveSupport, which has to_f and is not
    # a Numeric; nil of anything else.
    def seconds(value)
      value.to_f if value.respond_to?(:to_f) && !value.is_a?(String) && !value.is_a?(Time)
    end

    # The TTL of barriers: all delays ahead, and the retries of a job.
    def barrier_ttl(node, stack)
      trees = [*stack.map(&:remaining), node].compact
      delays = trees.sum { |tree| Tree.total_delay(tree) }
      [RETRY_HORIZON + (delays / 1000.0).to_i + 1, MAX_TTL].min
    end
  end
end
