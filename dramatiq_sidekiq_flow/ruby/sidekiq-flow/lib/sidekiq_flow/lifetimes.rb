# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sidekiq's 25 retries take 21 days, in seconds: a barrier outlives them.
  RETRY_HORIZON = 21 * 86_400

  # Redis refuses a ttl whose end it cannot count.
  MAX_TTL = 1000 * 365 * 86_400

  # A barrier that has released is kept for a day, as the gem keeps it.
  RELEASED_TTL = 86_400
end
