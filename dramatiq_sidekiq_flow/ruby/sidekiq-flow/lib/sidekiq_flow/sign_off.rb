# frozen_string_literal: true

module SidekiqFlow::Companion
  # The end of a capsule. Sidekiq 7 ends with an empty list for the fetcher, and
  # Sidekiq 8.1.3 and later with nothing at all.
  module SignOff
    def stop(*)
      super
    ensure
      capsule.fetcher.sign_off if capsule.fetcher.is_a?(Fetch)
    end
  end
end
