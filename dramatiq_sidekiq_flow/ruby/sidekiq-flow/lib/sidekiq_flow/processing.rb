# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sidekiq's Processor with the rules above, also for jobs that fail before their
  # middleware.
  module Processing
    def initialize(capsule, ...)
      super
      @retrier = capsule.fetcher.retrier if capsule.fetcher.is_a?(Fetch)
    end
  end
end
