# frozen_string_literal: true

module SidekiqFlow::Companion
  # Takes the place of the connection that JobRetry writes a failure to.
  class FailureWriter
    def initialize(unit, config)
      @unit = unit
      @config = config
    end

    def multi
      yield self
    end

    def zadd(set, score, payload)
      @unit.fail(set, score, payload)
    end

    # The script trims `dead`.
    def zremrangebyscore(*)
    end

    def zremrangebyrank(*)
    end

    # A Sidekiq that writes with other commands still writes, in two steps.
    def method_missing(name, *arguments, &block)
      @config.redis { |conn| conn.public_send(name, *arguments, &block) }
    end

    def respond_to_missing?(*)
      true
    end
  end
end
