# frozen_string_literal: true

module SidekiqFlow::Companion
  # Deregisters the process when the Manager of a capsule stops. Sidekiq 7 then
  # calls bulk_requeue with an empty list, and Sidekiq 8.1.3 and later do not call
  # the fetcher at all.
  module SignOff
    def stop(*)
      super
    ensure
      capsule.fetcher.sign_off if capsule.fetcher.is_a?(Fetch)
    end
  end
end
