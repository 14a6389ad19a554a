# frozen_string_literal: true

module SidekiqFlow::Companion
  # The gem's extend_ttl!, which sets the barriers of the running job to whatever
  # it is given. None of them lives shorter for it than before.
  module Prolongation
    def extend_ttl!(ttl: nil)
      execution = Execution.current
      return super if execution.nil? || SidekiqFlow::Companion.run_id(execution.job).nil?

      ttl = [Integer(ttl || configuration.barrier_ttl), MAX_TTL].min
      barriers = Callback.stack(execution.job).flat_map(&:keys)
      memory = SidekiqFlow::Companion.memory_key(execution.job)
      keys = memory.empty? ? ["", *barriers] : ["swf:keep:#{memory}", *barriers, memory]
      Sidekiq.redis { |conn| Scripts.run(conn, "extend", keys, [ttl, 1]) } > 0
    end
  end
end
