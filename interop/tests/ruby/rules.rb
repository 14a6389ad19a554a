# frozen_string_literal: true

# Steps and middleware for the rules of the companion about what becomes of a job.

module Rules
  # Lets a job that says so not run.
  class Swallow
    include Sidekiq::ServerMiddleware

    def call(_instance, job, _queue)
      yield unless job["swallow"]
    end
  end
end

module Rb
  class Discards
    include Sidekiq::Job
    sidekiq_options queue: "ruby"
    sidekiq_retry_in { :discard }

    def perform(*)
      raise "cannot be"
    end
  end

  class NotDead
    include Sidekiq::Job
    sidekiq_options queue: "ruby", retry: 0, dead: false

    def perform(*)
      raise "cannot be"
    end
  end
end

Sidekiq.configure_server do |config|
  config.server_middleware { |chain| chain.add Rules::Swallow }
  config.death_handlers << ->(job, _error) { Sidekiq.redis { |conn| conn.call("RPUSH", "deaths", job["jid"]) } }
end
