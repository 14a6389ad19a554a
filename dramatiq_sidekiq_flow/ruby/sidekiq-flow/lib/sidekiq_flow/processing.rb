# frozen_string_literal: true

module SidekiqFlow::Companion
  # Gives Sidekiq's Processor the companion's Retry, also for jobs that fail before
  # their middleware.
  module Processing
    def initialize(capsule, ...)
      super
      unless instance_variable_defined?(:@retrier)
        raise Unsupported, "Sidekiq #{Sidekiq::VERSION} keeps its JobRetry elsewhere than in Processor's @retrier, " \
          "which sidekiq-flow #{SidekiqFlow::VERSION} replaces. It was tested with #{Requirements::TESTED}."
      end
      @retrier = capsule.fetcher.retrier if capsule.fetcher.is_a?(Fetch)
    end
  end
end
