# frozen_string_literal: true

module SidekiqFlow::Companion
  # Lets Sidekiq's poller survive a server that fails before its first round: the
  # error would end its thread, and no scheduled job would ever be pushed.
  module PatientPoller
    private

    def initial_wait
      super
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.log(logger, error)
    end
  end
end
