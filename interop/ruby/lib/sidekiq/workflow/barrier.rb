# frozen_string_literal: true

module Sidekiq
  module Workflow
    module Barrier
      # Two keys: how many are still awaited, and whether it was released.
      #
      # The second key makes a release happen at most once: a count below zero
      # releases too, but only the first to raise +ran+ from -1 to 0 gets it.
      # An expired barrier is not noticed: DECR and INCRBY make the keys anew,
      # without TTL, and +ran+ ends at 1. Nothing is released, ever.
      class AtMostOnceBarrier
        attr_reader :key

        def initialize(key, ttl: Sidekiq::Workflow.configuration.barrier_ttl, config: Sidekiq.default_configuration)
          @key = key
          @ran_key = "#{key}_ran"
          @ttl = ttl
          @config = config
        end

        def create(parties)
          @config.redis do |conn|
            conn.call("SETEX", @key, @ttl, parties)
            conn.call("SETEX", @ran_key, @ttl, -1)
          end
          self
        end

        # Never blocks: true for the one caller that releases the barrier.
        def wait
          @config.redis do |conn|
            next false if conn.call("DECR", @key) > 0
            conn.call("INCRBY", @ran_key, 1) == 0
          end
        end

        def extend_ttl!(ttl = @ttl)
          @config.redis do |conn|
            conn.call("EXPIRE", @key, ttl)
            conn.call("EXPIRE", @ran_key, ttl)
          end
        end
      end
    end
  end
end
