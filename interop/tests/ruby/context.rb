# frozen_string_literal: true

# An application with tenants, as two well-known gems have them: a client
# middleware notes the tenant in the payload, a server middleware sets it again
# around the job. And a transaction, whose end what follows must wait for.

module Tenancy
  KEYS = %w[apartment acts_as_tenant].freeze

  class << self
    def current
      Thread.current[:tenancy] ||= {}
    end

    def with(tenants)
      before = current
      Thread.current[:tenancy] = tenants
      yield
    ensure
      Thread.current[:tenancy] = before
    end
  end

  class Client
    include Sidekiq::ClientMiddleware

    def call(_job_class, job, _queue, _redis_pool)
      KEYS.each { |key| job[key] ||= Tenancy.current[key] if Tenancy.current[key] }
      # As of the moment: nothing hands it on but this middleware.
      job["inside"] = Tenancy.current.fetch("apartment", "nobody")
      yield
    end
  end

  class Server
    include Sidekiq::ServerMiddleware

    def call(_instance, job, _queue)
      Tenancy.with(job.slice(*KEYS)) { yield }
    end
  end

  # What follows must not be there before this has ended.
  class Transaction
    include Sidekiq::ServerMiddleware

    def call(_instance, job, _queue)
      yield.tap do
        sleep(0.2) if job["slow_commit"]
        redis { |conn| conn.call("RPUSH", "commits", "#{job["jid"]} #{Time.now.to_f}") }
      end
    end
  end
end

module Rb
  class Tenant
    include Sidekiq::Job
    sidekiq_options queue: "ruby", retry: 0

    def perform(name, *)
      Sidekiq.redis { |conn| conn.call("RPUSH", "tenants", JSON.generate([name, Tenancy.current])) }
      nil
    end
  end
end

Sidekiq.configure_server do |config|
  config.client_middleware { |chain| chain.add Tenancy::Client }
  config.server_middleware do |chain|
    chain.add Tenancy::Transaction
    chain.add Tenancy::Server
  end
end
