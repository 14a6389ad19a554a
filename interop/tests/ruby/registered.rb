# frozen_string_literal: true

# An application with the registry file alone.

Sidekiq.configure_server { |config| SidekiqFlow::Registry.publish_with(config) }
