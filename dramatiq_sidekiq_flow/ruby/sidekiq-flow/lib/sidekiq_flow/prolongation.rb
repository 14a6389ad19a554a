# frozen_string_literal: true

module SidekiqFlow::Companion
  # Makes the gem's extend_ttl!, which sets the TTL of the running job's barriers,
  # extend them only: no barrier expires earlier than before. It extends the stored
  # chains of the job's stack, too.
  module Prolongation
    def extend_ttl!(ttl: nil)
      execution = Execution.current
      return super if execution.nil? || Run.id(execution.job).nil?

      ttl = [Integer(ttl || configuration.barrier_ttl), Lifetimes::MAX_TTL].min
      barriers = Callback.stack(execution.job).flat_map(&:keys)
      chains = CallbackStorage.chains(execution.job[Dialect.current.callbacks])
      memory = Memory.key_for(execution.job)
      keys = memory.empty? ? ["", *barriers, *chains] : ["swf:keep:#{memory}", *barriers, *chains, memory]
      Sidekiq.redis { |conn| Scripts.run(conn, "extend", keys, [ttl, 1]) } > 0
    end
  end
end
