# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sidekiq's poller looks at Redis before its first round. A server that is sick
  # at that moment ends its thread, and nothing is ever due any more.
  module PatientPoller
    private

    def initial_wait
      super
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.say(logger, error)
    end
  end
end
