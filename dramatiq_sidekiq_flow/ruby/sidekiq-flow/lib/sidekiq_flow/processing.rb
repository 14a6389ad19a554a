# frozen_string_literal: true

module SidekiqFlow::Companion
  # Gives Sidekiq's Processor the companion's Retry, also for jobs that fail before
  # their middleware.
  module Processing
    def initialize(capsule, ...)
      super
      @retrier = capsule.fetcher.retrier if capsule.fetcher.is_a?(Fetch)
    end
  end
end
