# frozen_string_literal: true

# A Sidekiq of which a later version has renamed a private method. Loaded before the companion.

require "sidekiq/scheduled"

Sidekiq::Scheduled::Poller.send(:remove_method, :initial_wait)
